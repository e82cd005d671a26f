"""Writing TensorFlow Lite from a signature: precisions, calibration, and what is tried where the plain way fails."""

from __future__ import annotations

import re
import shutil
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from worker.errors import BadOption, ConverterFailed, ModelError, NotRunnable, UnsupportedOperation
from worker.formats import _draws, _graphs, _tflite_file, _tflite_float, _tflite_run, saved_model
from worker.formats._batch import needs_batch
from worker.formats._format import Hop, Tolerance
from worker.formats._frozen import Wish, built, plain
from worker.formats._graphs import Graph
from worker.formats._samples import open_samples
from worker.report import Severity, declare
from worker.translation import first_line

if TYPE_CHECKING:
    from worker.formats._format import Arrays

LABEL = "TensorFlow Lite"
SIGNATURE = "serving_default"
CALIBRATED_ON_DRAWS = declare(
    "calibrated-on-draws",
    Severity.WARNING,
    "The ranges of the whole numbers were measured on {rows} rows that Larder made up from the signature, not on your"
    " data. Convert again with samples of yours: on real inputs such a result can be badly off.",
)
CALIBRATED_ON_SAMPLES = declare(
    "calibrated-on-samples",
    Severity.NOTE,
    "The ranges of the whole numbers were measured on {rows} rows of your samples.",
)
PARTLY_QUANTISED = declare(
    "partly-quantised",
    Severity.WARNING,
    "Some operations have no form in whole numbers and stay in float32: {reason}.",
)
BATCH_FIXED = declare(
    "batch-fixed",
    Severity.WARNING,
    "The result takes one row at a time: TensorFlow Lite has no {operation} for a free batch size.",
)
NEEDS_FLEX = declare(
    "needs-flex",
    Severity.WARNING,
    "The result needs the Flex delegate (SELECT_TF_OPS) for {operations}: an application without it cannot run the"
    " file, and neither can Larder, so its values are not proven.",
)
KEPT_FLOAT = declare(
    "kept-float",
    Severity.NOTE,
    "As it was asked for, these layers stay in float32: {names}.",
)
KEPT_IN_VAIN = declare(
    "kept-float-wins-nothing",
    Severity.WARNING,
    "Keeping layers in float32 ({names}) wins next to nothing: on {rows} rows of those that ranges were measured on,"
    " the result lies {kept:.2g} of an output's largest value from float32, and {plain:.2g} with no layer kept. The"
    " file has {size:,} bytes instead of {plain_size:,}. Keep other layers, or none.",
)
KEPT_NONE = declare(
    "kept-float-none",
    Severity.WARNING,
    "No layer stays in float32: none of them adds anything to the difference on the rows that were tried, which is"
    " {plain:.2g} of an output's largest value on {rows} of them.",
)
PRECISIONS = ("float32", "float16", "dynamic", "int8", "int16x8")
OPERATIONS = {
    "int8": "TFLITE_BUILTINS_INT8",
    "int16x8": "EXPERIMENTAL_TFLITE_BUILTINS_ACTIVATIONS_INT16_WEIGHTS_INT8",
}
CALIBRATED = tuple(OPERATIONS)
ROWS = 24  # of made-up calibration data
COMPARED = 24  # rows on which it is seen what layers in float32 win
WON = 0.95  # of the difference: where more than that is left, next to nothing was won
MOST_ROWS = 200  # of people's samples
# Operations that neither TensorFlow Lite nor its Flex delegate has, seen in the graph before the converter starts
NEVER = re.compile(r"^(MaxPool3D|AvgPool3D|MaxPool3DGrad|PyFunc|EagerPyFunc|XlaCallModule)$")
# The operations that the converter names when it has no TensorFlow Lite operation for them
REFUSED = re.compile(r"'tf\.(\w+)' op|^\s*tf\.(\w+)\(|Flex(\w+)", re.MULTILINE)
MEASURED = {
    "float32": Tolerance(rtol=1e-5, atol=1e-6),
    "float16": Tolerance(rtol=1e-2, atol=1e-4),
    "dynamic": Tolerance(rtol=0.05, atol=1e-3),
    "int8": Tolerance(rtol=0.35, atol=1e-3),
    "int16x8": Tolerance(rtol=0.2, atol=1e-3),
}


def write(source: Path, target: Path, hop: Hop) -> None:
    """Convert the signature after its variables were folded. ``from_saved_model`` of the converter itself leaves
    variables uninitialised in what Keras 3 exported, and says nothing."""
    graph = plain(source, hop, Wish(single=True, loops=True))
    _refuse_by_name(graph.definition)
    precision = str(hop.options.get("precision") or "float32")
    job = _Job(source, hop, _without_differences(graph) if precision == "int16x8" else graph, precision)
    content = job.with_floats(job.convert())
    _tflite_file.check_constant(content)
    target.write_bytes(content)
    if not _tflite_file.read(target).flex and not _is_random(graph.definition):
        job.check_steady(target)


def _is_random(graph: Any) -> bool:
    """Does the model draw by chance? Then two runs need not agree, and whoever proves the result says so."""
    return any("Random" in node.op or node.op == "Multinomial" for node in _graphs.all_nodes(graph))


def _refuse_by_name(graph: Any) -> None:
    """What no way leads around is said at once, with the layer it is in."""
    problem = "TensorFlow Lite has no such operation; keep the SavedModel, or leave it out of the model"
    text = "TensorFlow Lite does not work on text; turn it into numbers before the model"
    for node in _graphs.all_nodes(graph):
        if NEVER.match(node.op):
            raise UnsupportedOperation(target=LABEL, operation=_in_layer(node), problem=problem)
        if _graphs.STRINGS.match(node.op):
            raise UnsupportedOperation(target=LABEL, operation=_in_layer(node), problem=text)


def _in_layer(node: Any) -> str:
    """The operation, and the layer whose name its own ends in."""
    parts = [part for part in node.name.split("/") if part and not part.endswith("PartitionedCall")]
    return f"{node.op} (layer {parts[-2]})" if len(parts) > 1 else str(node.op)


def _without_differences(graph: Graph) -> Graph:
    """Squared differences, as layer normalisation has them, in steps that LiteRT computes in 16 bits too."""
    definition = _graphs.with_own_functions(graph.definition, "_in_steps")
    for node in [node for node in definition.node if node.op == "SquaredDifference"]:
        minus = definition.node.add()
        minus.CopyFrom(node)
        minus.name, minus.op, node.op = f"{node.name}/minus", "Sub", "Mul"
        del node.input[:]
        node.input.extend([minus.name, minus.name])
    return Graph(definition, graph.inputs, graph.outputs)


@dataclass(frozen=True)
class _Job:
    """One conversion: the source, its graph, and the precision that is wished for."""

    source: Path
    hop: Hop
    graph: Graph
    precision: str

    def convert(self) -> bytes:
        """The plain way, else for a batch of one, else with TensorFlow's own operations."""
        operation = "TensorListReserve"
        if not needs_batch(self.graph):
            try:
                return self._quantised(None)
            except UnsupportedOperation as refusal:
                operation = str(refusal.details["operation"])
        return self._for_one(operation)

    def with_floats(self, content: bytes) -> bytes:
        """The result with the layers in float32 that were named, or so many of those that lose most."""
        wish = str(self.hop.options.get(_tflite_float.OPTION) or "")
        if not wish.strip():
            return content
        if self.precision not in CALIBRATED:
            problem = f"it is for {' and '.join(CALIBRATED)}; in {self.precision} all layers compute in float32"
            raise BadOption(option=_tflite_float.OPTION, target=LABEL, problem=problem)
        fine = replace(self, precision="float32", hop=replace(self.hop, findings=[])).convert()
        rows = self._calibration()
        mixed, names = _tflite_float.kept(fine, content, wish, rows)
        self._say_kept(names, {"fine": fine, "plain": content, "kept": mixed}, rows[:COMPARED])
        return mixed

    def _say_kept(self, names: list[str], files: dict[str, bytes], rows: list[Arrays]) -> None:
        """Which layers were kept, and what for: how far the results with and without them lie from float32."""
        said = ", ".join(names)
        if names:
            self.hop.add(KEPT_FLOAT(names=said))
        gaps = self._gaps(files, rows)
        if not gaps:
            return
        plain, kept = gaps
        sizes = {"size": len(files["kept"]), "plain_size": len(files["plain"])}
        if not names:
            self.hop.add(KEPT_NONE(plain=plain, rows=len(rows)))
        elif kept > WON * plain:
            self.hop.add(KEPT_IN_VAIN(names=said, rows=len(rows), kept=kept, plain=plain, **sizes))

    def _gaps(self, files: dict[str, bytes], rows: list[Arrays]) -> tuple[float, float] | None:
        """How far the two lie from float32; None where one of them does not run, as a kernel may lack a precision."""
        answers = {}
        try:
            for name, content in files.items():
                path = self.hop.scratch / f"beside-{name}.tflite"
                path.write_bytes(content)
                answers[name] = list(map(_tflite_run.load(path).run, rows))
        except ModelError:
            return None
        return _gap(answers["fine"], answers["plain"]), _gap(answers["fine"], answers["kept"])

    def _for_one(self, operation: str) -> bytes:
        try:
            content = self._quantised(1)
        except UnsupportedOperation as refusal:
            return self._with_flex(refusal)
        self.hop.add(BATCH_FIXED(operation=operation))
        return content

    def _with_flex(self, refusal: UnsupportedOperation) -> bytes:
        if self.precision in CALIBRATED:  # measuring ranges means running the model, which nothing here could
            raise refusal
        try:
            content = self._run(None, self.precision, "TFLITE_BUILTINS", "SELECT_TF_OPS")
        except (UnsupportedOperation, ConverterFailed):
            raise refusal from None
        self.hop.add(NEEDS_FLEX(operations=str(refusal.details["operation"])))
        return content

    def _quantised(self, batch: int | None) -> bytes:
        """In whole numbers throughout where that is wished for, else with floats where there is no other way."""
        if self.precision not in CALIBRATED:
            return self._run(batch, self.precision)
        if _graphs.operations(self.graph.definition) & _graphs.LOOPS:  # the converter crashes where it measures them
            content = self._run(batch, "dynamic")
            self.hop.add(
                PARTLY_QUANTISED(reason="ranges cannot be measured inside a loop, so only weights are in 8 bits")
            )
            return content
        only = OPERATIONS[self.precision]
        try:
            return self._run(batch, self.precision, only)
        except (UnsupportedOperation, ConverterFailed) as error:
            content = self._run(batch, self.precision, only, "TFLITE_BUILTINS")
            self.hop.add(PARTLY_QUANTISED(reason=error.details.get("operation") or error.details.get("problem")))
            return content

    def _run(self, batch: int | None, precision: str, *operations: str) -> bytes:
        import tensorflow as tf

        converter = self._converter(batch)
        if precision != "float32":
            converter.optimizations = [tf.lite.Optimize.DEFAULT]
        if precision == "float16":
            converter.target_spec.supported_types = [tf.float16]
        if precision in CALIBRATED:
            rows = self._calibration()
            converter.representative_dataset = lambda: iter(rows)
        if operations:
            converter.target_spec.supported_ops = [getattr(tf.lite.OpsSet, name) for name in operations]
        try:
            with warnings.catch_warnings():  # it measures ranges with an interpreter that it calls deprecated
                warnings.filterwarnings("ignore", r"\s*Warning: tf\.lite\.Interpreter", UserWarning)
                return _converted(converter)
        except Exception as error:  # MLIR reports everything through one private exception type
            raise _refusal(error) from error

    def _converter(self, batch: int | None) -> Any:
        """The converter of a SavedModel with the graph's large constants as variables."""
        import tensorflow as tf
        from tensorflow.lite.python.lite import TFLiteSavedModelConverterV2

        function, module = built(self.graph, batch, variables=True)
        folder = self.hop.scratch / "tflite-source"
        shutil.rmtree(folder, ignore_errors=True)
        # Gradients of its own, as swish has, are of no use here, and some of them cannot be saved
        options = tf.saved_model.SaveOptions(experimental_custom_gradients=False)
        tf.saved_model.save(module, str(folder), {SIGNATURE: function}, options)
        return TFLiteSavedModelConverterV2(str(folder), {"serve"}, [SIGNATURE])

    def _calibration(self) -> list[Arrays]:
        """One row at a time: people's samples, or rows made from the signature, which is said."""
        loaded = saved_model.load(self.source, self.hop.scratch, self.hop.signature)
        if self.hop.samples is None:
            rows = _draws.make_rows(loaded, self.hop.seed, ROWS)
            self.hop.add(CALIBRATED_ON_DRAWS(rows=len(rows)))
            return rows
        samples = open_samples(self.hop.samples, loaded.inputs, all_finite=True)
        rows = list(_draws.split_rows(samples.arrays, loaded.inputs))[:MOST_ROWS]
        self.hop.add(CALIBRATED_ON_SAMPLES(rows=len(rows)), *samples.findings)
        return rows

    def check_steady(self, target: Path) -> None:
        """Raise ConverterFailed where two runs on one input do not agree, as on memory that nobody set."""
        loaded = saved_model.load(self.source, self.hop.scratch, self.hop.signature)
        draw = _draws.make_rows(loaded, self.hop.seed, 1)[0]
        try:
            first, second = (_tflite_run.load(target).run(draw) for _ in range(2))
        except NotRunnable:
            raise
        except ModelError as error:  # a kernel that does not take this precision, which the converter did not know
            problem = f"LiteRT does not run the result ({error.details['problem']}); take another precision"
            raise UnsupportedOperation(target=LABEL, operation=f"this in {self.precision}", problem=problem) from error
        if any(first[name].tobytes() != second[name].tobytes() for name in first):
            problem = "two runs of the result on one input do not agree"
            raise ConverterFailed(target=LABEL, doing="Converting to TensorFlow Lite", problem=problem)


def _gap(fine: Sequence[Arrays], other: Sequence[Arrays]) -> float:
    """The largest difference of any value, relative to the largest value of its output."""
    import numpy as np

    worst = 0.0
    for name in fine[0]:
        one, two = (np.stack([np.asarray(row[name], "float64") for row in rows]) for rows in (fine, other))
        worst = max(worst, float(np.abs(one - two).max() / (np.abs(one).max() or 1.0)))
    return worst


def _converted(converter: Any) -> bytes:
    """What ``converter.convert()`` does, without loading the model once more for its debugging information, and
    without taking the result apart to add what the conversion was called."""
    graph, _, _ = converter._load_saved_model(converter.saved_model_dir, converter._saved_model_tags)
    return bytes(converter._convert_from_saved_model(graph))


def _refusal(error: Exception) -> ConverterFailed | UnsupportedOperation:
    found = {name for names in REFUSED.findall(str(error)) for name in names if name}
    if "Control Flow V1" in str(error):
        found = {"a loop of TensorFlow 1 (Switch, Merge)"}
    if "recorded during calibration" in str(error):
        problem = "the converter measures no ranges for them; take int8 or float16"
        return UnsupportedOperation(target=LABEL, operation="whole numbers as inputs in int16x8", problem=problem)
    if not found:
        problem = first_line(str(error)) or type(error).__name__
        return ConverterFailed(target=LABEL, doing="Converting to TensorFlow Lite", problem=problem)
    problem = "TensorFlow Lite has no such operation for these shapes; keep the SavedModel, or fix the free dimensions"
    return UnsupportedOperation(target=LABEL, operation=", ".join(sorted(found)), problem=problem)
