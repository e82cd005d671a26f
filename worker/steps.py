"""What a job may do, by name. Runs inside the sandbox, in a process of its own, with TensorFlow.

Each step takes plain data and returns plain data; what crosses to the worker in files is written into the job's
folder. What the libraries raise becomes a LarderError on the way out.
"""

from __future__ import annotations

import gc
import hashlib
import json
import os
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from worker import custom_code, faults, fingerprints, formats, loadback, routes, timing, verify
from worker import inside as looking
from worker.errors import BadSamples, CorruptFile, LarderError, ModelError, NotRunnable, UnsafeContent
from worker.formats import _tfjs_run
from worker.formats._draws import DRAWS, INSIDE, distinct_guesses, far_out, for_another_run, make_inputs
from worker.formats._format import MOST_SIGNATURES, WRITTEN, Format, Hop, Loaded, Scales, Summary, TensorSpec
from worker.formats._likeness import Measured
from worker.formats._samples import Samples, open_samples, told
from worker.formats._screen import screen
from worker.report import Finding, refusals
from worker.translation import translated

if TYPE_CHECKING:
    from worker.verify import Array, Arrays

Progress = Callable[[str], None]
Json = dict[str, Any]
MOST_TABLES = 1000  # of which anything is told
SHOWN = "shown.json"  # in the job's own folder: what is said of every weight
LARGE_PARTS = ("weights", "prints", "faults")
Digest = tuple[str, list[int], str, str]  # dtype, shape, sha256, name
FAULTS_SHARE = 0.2  # of the time of a conversion, for trying out whether faults would show
COMPARING_SECONDS = 5.0  # for the same where nothing is converted
LARGE_FILE = 64 * 1024 * 1024
AGAIN, OFTEN = 0.02, 1.0  # seconds for asking whether a model answers as before; the more where much hangs on it
WAITING_SECONDS = 0.005  # between two looks whether it is told what is asked
STEADY = 1e-4  # relative: two runs of one model on one machine differ by the order of sums alone


# The steps ------------------------------------------------------------------------------------------------------


def inspect(arguments: Json, progress: Progress) -> Json:
    """``{path, format, load, consent?}`` → ``{summary, findings, error, weights}``: the structure, and whether
    the model loads, where ``load`` asks for that, with one digest of all its weights.

    ``error`` is what loading said, or None; the structure is known all the same. Where the screen refuses the file,
    nothing but its findings is known, and nothing has opened it.
    """
    path, item = Path(arguments["path"]), formats.get(arguments["format"])
    progress("looking for what no model needs")
    with translated(f"Reading {item.label}", path.name, CorruptFile):
        screened = screen(path, item.slug, _scratch())
    if refused := refusals(screened):
        return _refused(path, refused, screened)
    progress("reading the structure")
    with translated(f"Reading {item.label}", path.name, CorruptFile):
        summary = _summary(path, item, arguments)
        findings = [*screened, *(item.findings(path, _scratch()) if item.findings else ())]
    error, digest = None, ""
    try:
        loaded = _load(path, item, arguments, progress) if arguments["load"] else None
        findings += loaded.findings if loaded else ()
        if loaded and loaded.inputs:  # they say what the layers imply, and it is by them that samples are matched
            summary = replace(summary, inputs=tuple(loaded.inputs))
        if loaded and not loaded.architecture:  # sorting the weights of a large one takes longer than copying it
            with translated("Reading the weights", otherwise=ModelError):
                digest = fingerprints.of_model(loaded.weights())
    except LarderError as raised:
        error = raised.to_json()
    return {"summary": summary.to_json(), "findings": _plain_findings(findings), "error": error, "weights": digest}


def _refused(path: Path, refused: list[Finding], screened: list[Finding]) -> Json:
    """The answer about a file that is not opened; the error says the first reason."""
    error = UnsafeContent(name=path.name, reason=refused[0].sentence.rstrip("."))
    findings = _plain_findings(screened)
    return {"summary": Summary().to_json(), "findings": findings, "error": error.to_json(), "weights": ""}


def convert(arguments: Json, progress: Progress) -> Json:
    """``{source, source_format, target, target_format, options, seed, signature?, samples?, first?, probe?,
    consent?}`` → findings, probe.

    ``first`` asks for a part of the graph, of so many operations: see ``worker.culprit``.

    ``probe`` ``{seed, inputs, outputs, allowed, gross, decisive, prints, samples?, described?}`` asks to run the source
    as well, and to write what it was given and what it answered, unless it is large and ``described`` says that its
    description will do; the answer's ``probe`` describes the source, or holds the ``error`` for which it could not run.
    ``allowed`` is how far values may lie apart: faults are planted into the weights to see whether more than that would
    show, ``gross`` ones being enough where that is asked, for a fifth of the time that converting took; a few of them
    where nothing is ``decisive`` about it.
    """
    path, target = Path(arguments["source"]), Path(arguments["target"])
    source, goal = formats.get(arguments["source_format"]), formats.get(arguments["target_format"])
    custom_code.obey(arguments.get("consent"))
    progress(f"converting {source.label} to {goal.label}")
    hop = _hop(arguments, progress)
    started = time.monotonic()
    with translated(f"Converting {source.label} to {goal.label}", path.name):
        routes.converter(source.slug, goal.slug).run(path, target, hop)
    seconds = FAULTS_SHARE * (time.monotonic() - started)
    progress(WRITTEN)
    _let_go(path)
    probe = _probe(path, source, arguments, progress, seconds) if arguments.get("probe") else None
    return {"findings": _plain_findings(hop.findings), "probe": probe}


def _let_go(path: Path) -> None:
    """What a conversion leaves behind goes away with the next collection. A large model's is worth one before the
    source is run, for a job has only so much memory."""
    if path.stat().st_size > LARGE_FILE:
        gc.collect()


def probe(arguments: Json, progress: Progress) -> Json:
    """``{path, format, probe, signature?, consent?}`` → ``{probe}``: what ``convert`` tells about its source, for a
    result that is there already."""
    item = formats.get(arguments["format"])
    custom_code.obey(arguments.get("consent"))
    shown = _probe(Path(arguments["path"]), item, arguments, progress, COMPARING_SECONDS)
    return {"probe": shown}


def exact(arguments: Json, progress: Progress) -> Json:
    """``{path, format, inputs, outputs, nudged, signature?, consent?}`` → ``{unsteady, exact, nudged}``: does the
    source answer these draws, which it has answered before, the same each time; its answers in float64; and those to
    the same draws an ulp beside. Nothing is written, and the answer is false, where it cannot."""
    loaded = _load(Path(arguments["path"]), formats.get(arguments["format"]), arguments, progress)
    if loaded is None:
        return {"unsteady": "", "exact": False, "nudged": False}
    progress("running the source in float64")
    draws = verify.load_draws(Path(arguments["inputs"]))
    with translated("Running the model", otherwise=ModelError):
        unsteady = faults.steady(loaded, draws, [_answer(loaded, draw) for draw in draws], STEADY, OFTEN)
    beside = [verify.nudged(draw) for draw in draws]
    return {
        "unsteady": unsteady,
        "exact": _answered(loaded.exact, draws, Path(arguments["outputs"])),
        "nudged": _answered(loaded.run, beside, Path(arguments["nudged"])),
    }


def _answered(run: Callable[[Arrays], Arrays] | None, draws: list[Arrays], target: Path) -> bool:
    """Write the answers; False where there are none, as of a kernel that has no float64: then the rounding stays
    unknown, which is no fault of the model."""
    try:
        answers = [{name: _plain(array) for name, array in run(draw).items()} for draw in draws] if run else None
    except Exception:
        return False
    if answers is not None:
        verify.save_draws(target, answers)
    return answers is not None


def twin(arguments: Json, progress: Progress) -> Json:
    """``{path, format, target, seed, consent?}`` → ``{}``: the same layers with other weights, as ``.keras``."""
    from worker.formats import _twin

    custom_code.obey(arguments.get("consent"))
    path = Path(arguments["path"])
    progress("drawing other weights")
    with translated("Making an alive twin", path.name, ModelError):
        _twin.write(arguments["format"], path, Path(arguments["target"]), _scratch(), int(arguments["seed"]))
    return {}


def run(arguments: Json, progress: Progress) -> Json:
    """``{path, format, specs, inputs, outputs, prints?, again?, runtime?, consent?}`` → ``{inputs, outputs, draws,
    weights, findings}``. ``asked``: where ``specs`` and ``inputs`` will be told, in place of them.

    ``inputs`` is an .npz of draws under the names of ``specs``, the source's inputs; the model's own may differ. Where
    they cannot be matched, or there are none, nothing is run, and ``outputs`` is not written. ``again`` asks for the
    answers to the smallest draws alone, without the weights; ``draws`` are the places of those that were run.
    """
    item = formats.get(arguments["format"])
    in_another = arguments.get("runtime")
    loaded = _open_in(arguments, item) if in_another else _load(Path(arguments["path"]), item, arguments, progress)
    if loaded is None:
        return _unopened(Path(arguments["path"]), item)
    again, numbers = bool(arguments.get("again")), []
    described = {} if again else _describe(loaded, bool(arguments.get("prints")))  # before a run may change its state
    arguments = _asked(arguments)
    names = verify.pair([TensorSpec.from_json(spec) for spec in arguments["specs"]], loaded.inputs)
    if names is not None and arguments["inputs"]:
        progress("running the result")
        draws = verify.load_draws(Path(arguments["inputs"]))
        numbers = for_another_run(draws) if again else list(range(len(draws)))
        given = [{names[name]: array for name, array in draws[number].items()} for number in numbers]
        verify.save_draws(Path(arguments["outputs"]), [_answer(loaded, draw) for draw in given])
    if again:
        return {**_interface(loaded), "draws": numbers}
    return _handed_over({**described, "draws": numbers, "findings": _plain_findings(loaded.findings)})


def fit(arguments: Json, progress: Progress) -> Json:
    """``{path, specs}`` → ``{inputs, findings}``: a person's samples for these inputs; BadSamples where they do not
    fit. No model is opened."""
    progress("reading the samples")
    samples = open_samples(Path(arguments["path"]), [TensorSpec.from_json(spec) for spec in arguments["specs"]])
    return {"inputs": told(samples.arrays), "findings": _plain_findings(samples.findings)}


def hand_over(arguments: Json, progress: Progress) -> Json:
    """``{path, format, specs, inputs}``, or ``asked`` as of ``run`` → what TensorFlow.js is to run, for the program
    that the job goes on as; it is given the smallest draws. Its answer has ``told`` in it: ``{inputs, outputs, draws}``
    as ``run`` has them."""
    path, item = Path(arguments["path"]), formats.get(arguments["format"])
    with translated(f"Reading {item.label}", path.name, CorruptFile):
        summary = item.inspect(path, _scratch())
    _tfjs_run.refuse_strange(summary)
    arguments = _asked(arguments)
    names = verify.pair([TensorSpec.from_json(spec) for spec in arguments["specs"]], summary.inputs)
    if names is None:
        raise NotRunnable(problem="not tried, for its inputs do not correspond to the source's")
    draws = verify.load_draws(Path(arguments["inputs"]))
    numbers = for_another_run(draws)
    given = [{names[name]: array for name, array in draws[number].items()} for number in numbers]
    progress("running the result in TensorFlow.js")
    handed = _tfjs_run.handed_over(item.slug, path, _scratch(), summary, given)
    return {**handed, "told": {**_interface(summary), "draws": numbers}}


def _asked(arguments: Json) -> Json:
    """The same with what is asked, where that is told only now: a result is opened while its source still runs."""
    if not (place := arguments.get("asked")):
        return arguments
    while not os.path.exists(place):
        time.sleep(WAITING_SECONDS)
    told: Json = json.loads(Path(place).read_text(encoding="utf-8"))
    return arguments | told


def _open_in(arguments: Json, item: Format) -> Loaded:
    """The result in another runtime than the format's own."""
    custom_code.obey(arguments.get("consent"))
    path = Path(arguments["path"])
    with translated(f"Loading {item.label}", path.name, ModelError):
        return loadback.run_in(arguments["runtime"], item.slug, path, _scratch())


def inside(arguments: Json, progress: Progress) -> Json:
    """``{path, format, specs, inputs, draw, row, inner, signature?, consent?}`` → ``{problem}``: what a model
    computes inside, on one row of one draw."""
    loaded = _load(Path(arguments["path"]), formats.get(arguments["format"]), arguments, progress)
    progress("looking inside")
    return looking.show(loaded, arguments)


def measure(arguments: Json, progress: Progress) -> Json:
    """``{path, format, specs, inputs, seed, seconds, consent?}`` → what ``timing.measure`` says: how long the model
    takes for one row."""
    timing.on_one_thread()
    item = formats.get(arguments["format"])
    loaded = _load(Path(arguments["path"]), item, arguments, progress)
    if loaded is None:
        raise NotRunnable(problem=f"{item.label} runs on other machines than this one")
    progress("measuring")
    seed, seconds = int(arguments["seed"]), float(arguments["seconds"])
    return timing.measure(loaded, arguments["specs"], Path(arguments["inputs"]), seed, seconds)


def signatures(arguments: Json, progress: Progress) -> Json:
    """``{path, format, names, seed, seconds, consent?}`` → ``{signatures}``: of each of these signatures whether it
    runs on inputs made from it, and answers the same twice. None is begun after so many seconds."""
    started = time.monotonic()
    found: list[Json] = []
    for name in arguments["names"]:
        if found and time.monotonic() - started > float(arguments["seconds"]):
            break
        found.append({"name": name, **_tried({**arguments, "signature": name}, progress)})
    return {"signatures": found}


def _tried(arguments: Json, progress: Progress) -> Json:
    try:
        loaded = _load(Path(arguments["path"]), formats.get(arguments["format"]), arguments, progress)
        assert loaded  # a format whose signatures can be chosen from is run here
        draws, answers = _try_out(loaded, arguments, None)
        with translated("Running the model", otherwise=ModelError):
            return {"refusal": "", "unsteady": faults.steady(loaded, draws, answers, STEADY, AGAIN)}
    except LarderError as error:
        return {"refusal": str(error.details.get("problem") or error.message), "unsteady": ""}


def alike(arguments: Json, progress: Progress) -> Json:
    """``{fine, path, format, specs, seed, samples?}`` → how far the file is ``fine`` with numbers rounded
    (``Likeness``). What ranges are measured on is made of the last three, and ``fine`` is run on that."""
    item, path = formats.get(arguments["format"]), Path(arguments["path"])
    assert item.alike
    progress("comparing number by number")
    specs = tuple(TensorSpec.from_json(spec) for spec in arguments["specs"])
    samples = arguments.get("samples")
    measured = Measured(specs, int(arguments["seed"]), Path(samples) if samples else None)
    with translated(f"Reading {item.label}", path.name, CorruptFile):
        return asdict(item.alike(Path(arguments["fine"]), path, measured))


def _unopened(path: Path, item: Format) -> Json:
    """A result that runs on other machines: that it can at least be read back, and its weights."""
    item.inspect(path, _scratch())
    problem = f"{item.label} runs on other machines than this one"
    if item.weights is None:
        raise NotRunnable(problem=problem)
    with translated("Reading the weights", otherwise=ModelError):
        return _handed_over({"not_run": problem, "prints": fingerprints.of_weights(item.weights(path, _scratch()), {})})


def sample(arguments: Json, progress: Progress) -> Json:
    """``{kind: dense|conv, path}`` → ``{}``: a small model, always the same, in the format of the path's suffix."""
    import keras

    progress("making a sample model")
    keras.utils.set_random_seed(7)
    with translated("Making a sample model"):
        model = keras.Sequential(_sample_layers(arguments["kind"]), name=f"sample_{arguments['kind']}")
        model.save(arguments["path"])
    return {}


STEPS: dict[str, Callable[[Json, Progress], Json]] = {
    "inspect": inspect,
    "convert": convert,
    "probe": probe,
    "exact": exact,
    "twin": twin,
    "inside": inside,
    "measure": measure,
    "alike": alike,
    "run": run,
    "fit": fit,
    "hand_over": hand_over,
    "signatures": signatures,
    "sample": sample,
}
formats.formats()  # imported now, in the zygote, and not by every job again


def _summary(path: Path, item: Format, arguments: Json) -> Summary:
    """The structure; where there is consent, shapes of what code makes, too. Whose code that is, is told before it is
    known here."""
    summary = item.inspect(path, _scratch())
    if not summary.code or not arguments.get("consent"):
        return summary
    custom_code.obey(arguments["consent"])
    known = item.inspect(path, _scratch())
    return replace(known, custom_objects=summary.custom_objects, lambdas=summary.lambdas)


# Loading and running --------------------------------------------------------------------------------------------


def _load(path: Path, item: Format, arguments: Json, progress: Progress) -> Loaded | None:
    """The model, opened for running; None where its format cannot be run."""
    if item.load is None:
        return None
    custom_code.obey(arguments.get("consent"))
    progress(f"loading {item.label}")
    with translated(f"Loading {item.label}", path.name, ModelError):
        if item.load_signature and arguments.get("signature"):
            return item.load_signature(path, _scratch(), str(arguments["signature"]))
        return item.load(path, _scratch())


def _hop(arguments: Json, progress: Progress) -> Hop:
    samples = arguments.get("samples")
    return Hop(
        _scratch(),
        arguments.get("options") or {},
        samples=Path(samples) if samples else None,
        seed=int(arguments.get("seed") or 0),
        signature=str(arguments.get("signature") or ""),
        first=arguments.get("first"),
        say=progress,
    )


def _probe(path: Path, source: Format, arguments: Json, progress: Progress, seconds: float) -> Json:
    """Run the source; a source that cannot be run is told, and converted nevertheless."""
    wanted = arguments["probe"]
    try:
        loaded = _load(path, source, arguments, progress)
        if loaded is None:
            raise ModelError(problem=f"{source.label} cannot be run here")
        samples = _samples(loaded, wanted) if wanted.get("samples") else None
        described = _describe(loaded, bool(wanted["prints"]), loaded.scales)  # before a run may change its state
        tried = None
        if not (loaded.architecture and wanted.get("described")):
            progress("running the source")
            tried = _try_out(loaded, wanted, samples)
        if tried:
            base = _base_of(tried[0], wanted)
            described |= _challenge(loaded, tried, wanted, progress, seconds)
            described |= {"far_draws": _go_far_out(loaded, tried, base) if not described["unsteady"] else 0}
    except BadSamples:  # what a person gave is theirs to repair
        raise
    except LarderError as error:
        return {"error": error.to_json()}
    if tried:
        for name, draws in zip(("inputs", "outputs"), tried, strict=True):
            verify.save_draws(Path(wanted[name]), draws)
    said = (*loaded.findings, *(samples.findings if samples else ()))
    return _handed_over({**described, "findings": _plain_findings(said), "error": None})


def _samples(loaded: Loaded, wanted: Json) -> Samples:
    return open_samples(Path(wanted["samples"]), loaded.inputs, all_finite=bool(wanted.get("near")))


def _base_of(draws: list[Arrays], wanted: Json) -> Arrays | None:
    """The draw of several rows that is multiplied; None where a result is to be compared on samples and their like, or
    where rows are so large that the last draws were left out."""
    made = len(draws) - bool(wanted.get("samples"))
    return None if wanted.get("near") or made < len(DRAWS) else draws[INSIDE - len(DRAWS)]


def _go_far_out(loaded: Loaded, tried: tuple[list[Arrays], list[Arrays]], base: Arrays | None) -> int:
    """One more draw, of numbers much larger than the others, where the model answers it with numbers."""
    draw = far_out(loaded.inputs, base) if base else None
    answer = faults.finite_answer(loaded, draw) if draw else None
    if draw is None or answer is None:
        return 0
    tried[0].append(draw)
    tried[1].append({name: _plain(array) for name, array in answer.items()})
    return 1


def _challenge(
    loaded: Loaded, tried: tuple[list[Arrays], list[Arrays]], wanted: Json, progress: Progress, seconds: float
) -> Json:
    """Does the model answer the same twice, and would a fault show? Draws that show more join what was tried."""
    draws, answers = tried
    with translated("Running the model", otherwise=ModelError):
        if unsteady := faults.steady(loaded, draws, answers, STEADY, AGAIN):
            return {"unsteady": unsteady, "faults": [], "variables": 0}
    progress("planting faults")
    enough, gross = 4 * float(wanted["allowed"]), bool(wanted["gross"])
    with translated("Trying out faults", otherwise=ModelError):
        if not wanted["decisive"]:
            rows = faults.tell_faults(loaded, draws, answers, wanted["seed"], enough)
            return {"unsteady": "", "faults": rows, "variables": len(loaded.variables())}
        rows = faults.try_faults(loaded, draws, wanted["seed"], seconds, enough=enough)
        better = faults.better_draws(
            loaded, draws, answers, rows, wanted["seed"], seconds / 2, enough=enough, gross=gross
        )
    draws += better.draws
    answers += [{name: _plain(array) for name, array in answer.items()} for answer in better.answers]
    said = {"unsteady": "", "faults": better.rows, "variables": len(loaded.variables())}
    return said | {"scaled_draws": len(better.draws)}


def _try_out(loaded: Loaded, wanted: Json, samples: Samples | None) -> tuple[list[Arrays], list[Arrays]]:
    """What the model was given and what it answered: people's own samples, and draws of the first kind it accepts.
    BadSamples where it accepts those, and not the samples."""
    draws = [samples.arrays] if samples else []
    try:
        answers, unfit = [_answer(loaded, draw) for draw in draws], None
    except ModelError as error:  # and not that they take more memory than a job has
        answers, unfit = [], error
    like = samples.arrays if samples and wanted.get("near") and not unfit else None
    refusal: LarderError | None = unfit
    for guess in distinct_guesses(loaded.inputs):
        try:
            made = make_inputs(loaded.inputs, wanted["seed"], guess, like, brief=not wanted.get("decisive", True))
            answered = [_answer(loaded, draw) for draw in made]
        except LarderError as error:
            refusal = refusal or error
            continue
        if unfit:
            raise _at_fault(Path(wanted["samples"]), draws[0], unfit) from unfit
        return draws + made, answers + answered
    if unfit:
        raise unfit
    if refusal and not draws:
        raise ModelError(problem=f"it does not run on inputs made from its signature ({refusal.message})")
    return draws, answers


def _at_fault(path: Path, draw: Arrays, error: LarderError) -> BadSamples:
    """What is said of samples that the model refuses, though it takes other inputs."""
    given = ", ".join(f"{name} is {'×'.join(map(str, array.shape))}" for name, array in draw.items())
    said = str(error.details.get("problem") or error.message).rstrip(".")
    return BadSamples(name=path.name, problem=f"the model runs on other inputs, and not on these: {given} ({said})")


def _answer(loaded: Loaded, draw: Arrays) -> Arrays:
    with translated("Running the model", otherwise=ModelError):
        return {name: _plain(array) for name, array in loaded.run(draw).items()}


def _describe(loaded: Loaded, with_prints: bool, scales: Scales | None = None) -> Json:
    """The interface, a digest of every weight, and its fingerprint where weights need not come back bit for bit."""
    with translated("Reading the weights", otherwise=ModelError):
        prints = fingerprints.of_weights(loaded.weights(), loaded.steps(), scales) if with_prints else None
        weights = _digests_in(prints) if prints else list(_digests(loaded))
    return {
        **_interface(loaded),
        "weights": weights,
        "prints": prints,
        "architecture": loaded.architecture,
        "further": list(loaded.further[:MOST_SIGNATURES]),
        "tables": list(loaded.tables()[:MOST_TABLES]),
        "layers": "" if with_prints else loaded.architecture or loaded.described(),
    }


def _interface(model: Loaded | Summary) -> Json:
    return {side: [asdict(spec) for spec in getattr(model, side)] for side in ("inputs", "outputs")}


def _handed_over(shown: Json) -> Json:
    """The same, with what is said of every weight in a file: a model may have thousands, and an answer is one line."""
    large = {key: shown.pop(key) for key in LARGE_PARTS if key in shown}
    Path(SHOWN).write_text(json.dumps(large, allow_nan=False), encoding="utf-8")
    return shown


def _digests_in(prints: Json) -> list[Digest]:
    """Those that the fingerprints hold already: reading and hashing all weights is what takes the time."""
    return [(each["dtype"], each["shape"], each["sha256"], each["name"]) for each in prints["tensors"]]


def _digests(loaded: Loaded) -> Iterator[Digest]:
    """Two at a time, for hashing is what takes the time; never more arrays than that, for they may be large."""
    waiting: deque[Future[Digest]] = deque()
    with ThreadPoolExecutor(2) as pool:
        for name, array in loaded.weights():
            waiting.append(pool.submit(_digest, name, array))
            if len(waiting) > 2:
                yield waiting.popleft().result()
        yield from (future.result() for future in waiting)


def _digest(name: str, array: Array) -> Digest:
    import numpy as np

    plain = np.ascontiguousarray(_plain(array))
    content = plain.data if plain.dtype.kind in "iufcb" else plain.tobytes()  # those are hashed where they lie
    return str(array.dtype), list(array.shape), hashlib.sha256(content).hexdigest(), name


def _plain(array: Any) -> Array:
    """The array in a dtype that an .npz holds without pickling: text as bytes, bfloat16 and the like as float32."""
    import numpy as np

    array = np.asarray(array)
    if array.dtype.kind == "O":
        array = array.astype("S") if array.size else np.empty(array.shape, "S1")
    if array.dtype.kind == "U":
        array = np.char.encode(array, "utf-8")
    return cast("Array", array.astype("float32") if array.dtype.kind == "V" else array)


def _scratch() -> Path:
    """One folder inside the job's own, which is where it runs; an archive is unpacked into it once for all readers."""
    folder = Path.cwd() / "scratch"
    folder.mkdir(exist_ok=True)
    return folder


def _plain_findings(findings: Iterable[Finding]) -> list[Json]:
    return [finding.to_json() for finding in findings]


def _sample_layers(kind: str) -> list[Any]:
    from keras import Input, layers

    if kind == "dense":
        hidden = [layers.Dense(16, activation="relu", name="hidden"), layers.BatchNormalization(name="norm")]
        return [Input((4,), name="flower"), *hidden, layers.Dense(3, activation="softmax", name="species")]
    blocks = [layers.Conv2D(8, 3, activation="relu", name="edges"), layers.MaxPooling2D(name="pool")]
    blocks += [layers.Conv2D(16, 3, activation="relu", name="strokes"), layers.GlobalAveragePooling2D(name="mean")]
    return [Input((28, 28, 1), name="image"), *blocks, layers.Dense(10, activation="softmax", name="digit")]
