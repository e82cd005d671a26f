"""Everything Larder can refuse or fail at, one class per code.

The first paragraph of a docstring is the sentence people read; ``{fields}`` in it are filled from the keyword
details. The code is the same on the page, in the history, in the command line's JSON and in docs/errors.md.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, ClassVar

from worker.visible import said


class _Blank(dict[str, Any]):
    """Details for ``str.format_map``: a missing one reads as a dash instead of raising inside an error."""

    def __missing__(self, key: str) -> str:
        return "–"


def _said(details: Mapping[str, Any]) -> dict[str, Any]:
    return {name: said(detail) for name, detail in details.items()}


class LarderError(Exception):
    """Something went wrong that Larder did not foresee. The log has it under reference {reference}."""

    code: ClassVar[str] = "internal"
    http_status: ClassVar[int] = 400

    def __init__(self, /, **details: Any) -> None:
        self.details = details
        super().__init__(self.message)

    @property
    def message(self) -> str:
        """The sentence for people, with the details filled in."""
        paragraph = (type(self).__doc__ or "").strip().split("\n\n")[0]
        return " ".join(paragraph.split()).format_map(_Blank(_said(self.details)))

    def to_json(self) -> dict[str, Any]:
        """``{code, message, details}``, the form in which errors cross the pipe and reach the command line."""
        return {"code": self.code, "message": self.message, "details": self.details}


class UploadError(LarderError):
    """This upload cannot be taken: {reason}."""

    code = "upload-refused"


class EmptyFile(UploadError):
    """{name} is empty: it has 0 bytes. Check the copy you have, or save the model again, and upload it once more."""

    code = "empty-file"


class UnreadablePath(UploadError):
    """{name} cannot be read: {reason}."""

    code = "unreadable-path"


class UnknownFormat(UploadError):
    """{name} is not a model format that Larder knows: it starts with {found}. Expected one of: {expected}."""

    code = "unknown-format"


class AmbiguousFormat(UploadError):
    """{name} could be several things: {found}. Upload one model per file, or only the files that belong together."""

    code = "ambiguous-format"


class NotAModel(UploadError):
    """{name} is {found}, not a model that Larder reads. {advice}"""

    code = "not-a-model"


class TooLarge(UploadError):
    """{name} has {size}, more than the {limit} that this Larder takes. Its operator can raise {setting}."""

    code = "too-large"
    http_status = 413


class LengthRequired(UploadError):
    """The request does not say how long the file is. Send it with a Content-Length header."""

    code = "length-required"
    http_status = 411


class IncompleteUpload(UploadError):
    """{name} arrived incomplete: {received} of {expected} bytes. Nothing was stored; upload it again."""

    code = "incomplete-upload"


class CorruptFile(UploadError):
    """{name} is damaged: {problem}. Compare its size with the original and upload it again."""

    code = "corrupt-file"


class IncompleteModel(UploadError):
    """{name} is not a whole model: {found}, but {missing} is missing. {advice}"""

    code = "incomplete-model"


class UnsafeContent(UploadError):
    """{name} is refused: {reason}."""

    code = "unsafe-content"


class ArchiveBomb(UnsafeContent):
    """{name} would unpack to more than {limit}: it is refused as an archive bomb."""

    code = "archive-bomb"


class PathTraversal(UnsafeContent):
    """{name} holds an entry that points outside the archive ({entry}). Pack it again without such entries."""

    code = "path-traversal"


class PickledCode(UnsafeContent):
    """{name} is a pickle: a program that runs when it is opened, so Larder never opens it. Save the model with
    model.save("model.keras") and upload that file."""

    code = "pickled-code"


class StoreFull(UploadError):
    """There is no room for {name}: the disk that keeps Larder's files is full. Nothing was stored; tell the operator
    of this Larder, and try again once there is room."""

    code = "store-full"
    http_status = 507


class ModelError(LarderError):
    """The model in this file cannot be loaded: {problem}."""

    code = "model-unreadable"


class NotRunnable(ModelError):
    """This model cannot be run here: {problem}."""

    code = "not-runnable"


class NothingMeasured(ModelError):
    """None of the files could be run here, so there is no time to compare: {problem}."""

    code = "nothing-measured"


class WeightsMismatch(ModelError):
    """The weights do not fit the architecture: {problem}. Upload the architecture and the weights of one model."""

    code = "weights-mismatch"


class CustomCode(ModelError):
    """The model needs code that is not in the file: {names}. Upload custom_objects.py together with it and agree to run
    that, or save the model as a SavedModel, which carries its graph."""

    code = "custom-code"


class LambdaRefused(ModelError):
    """The model has a Lambda layer ({names}) that holds Python byte code, which Larder reads but does not run. This
    in it was not understood: {problem}. Replace it with a registered layer, save the model as a SavedModel, or agree to
    run it."""

    code = "lambda-refused"


class ConsentNeeded(ModelError):
    """The model needs Python code to run ({names}), and nobody has agreed to that. {advice}"""

    code = "consent-needed"
    http_status = 403


class ConversionError(LarderError):
    """The conversion to {target} failed: {problem}."""

    code = "conversion-failed"


class UnknownTarget(ConversionError):
    """There is no format called {target}. Known: {known}."""

    code = "unknown-target"


class NoRoute(ConversionError):
    """{source} cannot become {target}: {reason}"""

    code = "no-route"


class BadOption(ConversionError):
    """{option} is not a valid option of {target}: {problem}."""

    code = "bad-option"


class UnsupportedOperation(ConversionError):
    """{target} cannot hold {operation}: {problem}."""

    code = "unsupported-operation"


class ConverterFailed(ConversionError):
    """{doing} failed: {problem}."""

    code = "converter-failed"


class FormatUnavailable(ConversionError):
    """{target} needs {missing}, which is not installed here."""

    code = "format-unavailable"


class TooLargeForTarget(ConversionError):
    """The model is too large for {target}: it has {found}, and {most}."""

    code = "too-large-for-target"


class BadSamples(ConversionError):
    """The samples in {name} do not fit the model: {problem}."""

    code = "bad-samples"


class SandboxError(ConversionError):
    """The job could not run: {problem}."""

    code = "sandbox-failed"

    @property
    def message(self) -> str:
        """The sentence; behind it what the job was doing and what to try, where a conversion knows (``during``)."""
        return " ".join(filter(None, [super().message, str(self.details.get("during") or "")]))


class SandboxMissing(SandboxError):
    """Jobs are refused, because this machine cannot contain them: {missing}. `manage.py check_sandbox` tells more."""

    code = "sandbox-missing"
    http_status = 503


class TimedOut(SandboxError):
    """The job was stopped after {seconds} seconds of {kind} time, the most it may take."""

    code = "timed-out"


class OutOfMemory(SandboxError):
    """The job needed more than the {limit} of memory that it may use."""

    code = "out-of-memory"


class DiskFull(SandboxError):
    """The job wrote more than the {limit} that it may write."""

    code = "disk-full"


class Forbidden(SandboxError):
    """The job was stopped: the file tried to {what}, which no model needs."""

    code = "forbidden"


class Crashed(SandboxError):
    """The library that was working on the model crashed ({signal}). The worker is unharmed; the file may be damaged, or
    hold what that library cannot take."""

    code = "crashed"


class NoResult(SandboxError):
    """The job ended without an answer (exit status {status})."""

    code = "no-result"


class Canceled(SandboxError):
    """The job was canceled."""

    code = "canceled"


class WorkerLost(SandboxError):
    """The worker was lost {attempts} times while it worked on this, so it was given up. Ask again once the worker
    is well."""

    code = "worker-lost"


class VerificationError(LarderError):
    """The result does not compute the same as the source, so it is not offered: {problem}."""

    code = "differs"


class Quarantined(LarderError):
    """{name} is in quarantine and is not handed out: {reason}. An owner of its team can release it, with a written
    reason."""

    code = "quarantined"
    http_status = 423


class QuarantinedForGood(Quarantined):
    """{name} is in quarantine for good and is not handed out: {reason}. Nobody can release it."""

    code = "quarantined-for-good"


class StateError(LarderError):
    """This cannot be done any more: {problem}."""

    code = "invalid-transition"
    http_status = 409


class UnknownAccount(LarderError):
    """There is no account called {who}. Ask for the exact user name or e-mail address."""

    code = "unknown-account"


class TooManyAttempts(LarderError):
    """Too many sign-ins to this account failed. Wait {minutes} minutes, then try again."""

    code = "too-many-attempts"
    http_status = 429


def classes() -> Iterator[type[LarderError]]:
    """Every error class, parents first."""
    pending: list[type[LarderError]] = [LarderError]
    while pending:
        error = pending.pop(0)
        yield error
        pending.extend(error.__subclasses__())


def from_json(data: Mapping[str, Any]) -> LarderError:
    """The error that ``to_json`` described; an unknown code gives the base class. Never runs anything of ``data``."""
    known = {error.code: error for error in classes()}
    details = data.get("details")
    return known.get(str(data.get("code")), LarderError)(**(details if isinstance(details, dict) else {}))
