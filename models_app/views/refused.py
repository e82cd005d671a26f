"""What can be done instead about a file that could not be loaded, or was refused."""

from __future__ import annotations

from models_app.models import ModelVersion
from worker.errors import (
    CorruptFile,
    CustomCode,
    Forbidden,
    LambdaRefused,
    LarderError,
    SandboxError,
    UnsafeContent,
    WeightsMismatch,
    from_json,
)

AS_A_GRAPH = (
    'Where its code is at hand, write it as a SavedModel, which carries its graph: model.export("folder"). Upload that'
    " folder."
)
# The first class that an error is one of; every list ends with what always helps
ADVICE: tuple[tuple[type[LarderError], tuple[str, ...]], ...] = (
    (
        UnsafeContent,
        (
            "Do not open it elsewhere to see whether it works: loading or running it does what is said above.",
            "Where the model was made, take that out of it and write it again. Reading and writing files, calling"
            " programs and Python functions belong around a model, not into it.",
            "If its layers were saved too, as .keras or .h5, upload that file: layers alone cannot do such things.",
        ),
    ),
    (
        Forbidden,
        (
            "Do not open it elsewhere to see whether it works: loading it tries what is said above.",
            "Write the model again where it was made, and upload what comes out.",
        ),
    ),
    (
        CustomCode,
        (
            AS_A_GRAPH,
            "Or convert it on the command line, beside its code: manage.py convert --allow-custom-code.",
        ),
    ),
    (LambdaRefused, (AS_A_GRAPH, "Or put a registered layer in place of the Lambda layer, and save the model again.")),
    (
        WeightsMismatch,
        ("Look for the architecture and the weights of one training run, and upload the two together.",),
    ),
    (CorruptFile, ("Compare its sha256, below, with that of the original, and upload it again.",)),
    (
        SandboxError,
        ("Upload it again later. Where it ends the same way, tell the operator of this Larder what is said above.",),
    ),
    (LarderError, ('Open it with the release of Keras that wrote it, and save it again: model.save("model.keras").',)),
)


def instead(version: ModelVersion) -> tuple[str, ...]:
    """What people can do; nothing where the model loads."""
    if not version.error:
        return ()
    error = from_json(version.error)
    return next(advice for kind, advice in ADVICE if isinstance(error, kind))
