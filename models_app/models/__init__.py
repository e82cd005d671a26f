"""The tables of Larder, one module per noun of the domain."""

from models_app.models.attempts import Attempt
from models_app.models.audit import SYSTEM, Actor, AuditEvent, Tag, record
from models_app.models.catalog import Artifact, ModelVersion, RegisteredModel
from models_app.models.consents import Consent
from models_app.models.conversions import Conversion, WorkerNode
from models_app.models.measurements import Measurement
from models_app.models.quarantine import Quarantine
from models_app.models.samples import Samples
from models_app.models.sharing import ShareLink
from models_app.models.teams import Membership, Role, Team, can
from models_app.models.uploads import Upload

__all__ = [
    "SYSTEM",
    "Actor",
    "Artifact",
    "Attempt",
    "AuditEvent",
    "Consent",
    "Conversion",
    "Measurement",
    "Membership",
    "ModelVersion",
    "Quarantine",
    "RegisteredModel",
    "Role",
    "Samples",
    "ShareLink",
    "Tag",
    "Team",
    "Upload",
    "WorkerNode",
    "can",
    "record",
]
