"""How much of a corpus of model files becomes a file that computes what its writer recorded.

Every entry goes the whole way: recognised by its bytes, inspected and loaded in a job, converted in jobs with the
recorded inputs as samples, and the result's answers are compared with the recorded outputs. The first target that is
right counts. Printed: right of all, by format and version; what is refused on purpose; what lacks a part (only weights,
words of a vocabulary, operations of an application); every failure with its code.

With ``--verdicts N`` the first target that is right is made N times more, without the recorded inputs, each time with a
seed of its own for all that is drawn: what the verdict says may not depend on it.

With ``--denied`` every system call that the sandbox refuses to one of these jobs is counted. Honest files need none but
``clone3``, which is unknown on purpose: a library that needs another one fails here, by its name.

usage: scripts/bench corpus FOLDER [--only FORMAT …] [--to FORMAT …] [--sample N] [--seed S] [--verdicts N] [--denied]
                            [--json FILE]
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import random
import shutil
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from bench._table import show
from tests.formats.corpus import Entry, entries
from worker import formats, pipeline, routes
from worker.errors import LarderError, NoRoute
from worker.formats._format import Summary
from worker.intake import recognise, take_sample
from worker.sandbox import seccomp
from worker.sandbox.client import Zygote
from worker.sandbox.limits import Limits
from worker.verify import load_draws, save_draws

AT_ONCE = 2
TRIES = 4  # targets, before an entry is given up
# Layers first, then finished graphs, then weights: the order in which people would want them
TARGETS = ("keras", "saved_model", "h5", "onnx", "tflite", "openvino", "frozen_graph", "json_npz", "weights_h5")
EXPECTED = ("clone3",)  # calls that every honest job is refused: glibc then uses the older one
ON_PURPOSE = ("lambda-refused", "custom-code")  # code that nobody agreed to run


@dataclass(frozen=True)
class Verdict:
    """What was said of one conversion with one seed."""

    seed: int
    word: str
    reason: str


@dataclass
class Outcome:
    """How far one entry came: recognised, loaded, right; and what stopped it."""

    id: str
    tag: str
    format: str
    slug: str = ""
    stage: str = "recognise"
    target: str = ""
    verdict: str = ""
    seconds: float = 0.0
    lacks: bool = False  # a part that is not in the file, or that nothing here can run, stopped it
    problems: list[str] = field(default_factory=list)  # "target: code: sentence"
    codes: list[str] = field(default_factory=list)
    verdicts: list[Verdict] = field(default_factory=list)  # with other seeds

    @property
    def wavers(self) -> bool:
        return len({verdict.word for verdict in self.verdicts}) > 1

    @property
    def is_right(self) -> bool:
        return self.stage == "right"

    @property
    def is_refused_on_purpose(self) -> bool:
        return not self.is_right and self.codes[:1] in [[code] for code in ON_PURPOSE]

    def note(self, where: str, code: str, sentence: str) -> None:
        self.codes.append(code)
        self.problems.append(f"{where}: {code}: {sentence[:200]}")


@dataclass(frozen=True)
class Wanted:
    """What each entry should become, the first that it can; and the seeds with which that is judged again."""

    targets: Sequence[str] = TARGETS
    seeds: Sequence[int] = ()


def examine(entry: Entry, zygote: Zygote, wanted: Wanted = Wanted()) -> Outcome:
    """The whole way of one entry."""
    started = time.monotonic()
    outcome = Outcome(entry.id, entry.tag, entry.format)
    folder = Path(tempfile.mkdtemp(prefix="larder-corpus-"))
    try:
        _follow(entry, zygote, folder, outcome, wanted)
    except LarderError as error:
        outcome.note(outcome.stage, error.code, error.message)
    except (KeyError, IndexError) as error:
        outcome.note(outcome.stage, "not-comparable", f"the recording and the model do not correspond: {error!r}")
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    outcome.lacks = not outcome.is_right and outcome.codes[:1] in [[code] for code in entry.refusals]
    outcome.seconds = round(time.monotonic() - started, 2)
    return outcome


def _follow(entry: Entry, zygote: Zygote, folder: Path, outcome: Outcome, wanted: Wanted) -> None:
    bundle = entry.gather(_made(folder / "bundle"))
    item, _ = recognise(take_sample(bundle.path, bundle.name))
    outcome.slug, outcome.stage = item.slug, "load"
    inspection = pipeline.inspect(
        zygote, bundle.path, item.slug, _made(folder / "inspect"), Limits(), consent=entry.consent
    )
    if inspection.error:
        raise inspection.error
    source = pipeline.Source(bundle.path, item.slug, inspection.summary, bundle.name)
    samples = _samples(entry, source, folder) if entry.has_outputs else None
    outcome.stage = "convert"
    if not entry.has_model:
        raise NoRoute(source=item.label, target="a model", reason="it holds weights alone.")
    for target in _targets(item.slug, inspection.summary, wanted.targets):
        if _is_right(entry, zygote, source, target, samples, _made(folder / target), outcome):
            outcome.stage, outcome.target = "right", target
            outcome.verdicts = [_verdict(entry, zygote, source, target, folder, seed) for seed in wanted.seeds]
            return
    if samples and formats.get(item.slug).converts_from and _computes(entry, zygote, source, _made(folder / "itself")):
        outcome.stage, outcome.target = "right", "(as it is)"


def _verdict(entry: Entry, zygote: Zygote, source: pipeline.Source, target: str, folder: Path, seed: int) -> Verdict:
    """What is said of the conversion where this seed draws the inputs, and the recorded ones are not known."""
    own = Path(tempfile.mkdtemp(dir=folder))
    try:
        result = pipeline.convert(zygote, source, target, {}, own, Limits(), consent=entry.consent, seed=seed)
    except LarderError as error:
        return Verdict(seed, f"error {error.code}", error.message)
    finally:
        shutil.rmtree(own, ignore_errors=True)
    return Verdict(seed, str(result.report.verdict), result.report.reason)


def _computes(entry: Entry, zygote: Zygote, source: pipeline.Source, folder: Path) -> bool:
    """Does the file as it is compute what was recorded? Its format is one that others ask for, too."""
    specs = source.summary.inputs
    given, answers = folder / "inputs.npz", folder / "outputs.npz"
    arrays = entry.inputs([spec.name for spec in specs])
    save_draws(given, [{spec.name: _plain(arrays[spec.name], spec.dtype, entry, spec.name) for spec in specs}])
    arguments = {"path": str(source.path), "format": source.format, "specs": [dataclasses.asdict(s) for s in specs]}
    files = {"inputs": str(given), "outputs": str(answers), "consent": None}
    try:
        zygote.run("run", arguments | files, read=[source.path, given], folder=folder, limits=Limits())
    except LarderError:
        return False
    return entry.difference(load_draws(answers)[0]) == ""


def _made(folder: Path) -> Path:
    folder.mkdir(mode=0o700)
    return folder


def _targets(slug: str, summary: Summary, wanted: Sequence[str]) -> list[str]:
    """The first few of the targets that the routes offer; whatever they offer where that is none of them."""
    offered = {offer.format.slug for offer in routes.offers(slug, summary) if offer.error is None and not offer.renews}
    known = [target for target in wanted if target in offered]
    return (known or sorted(offered))[:TRIES]


def _is_right(
    entry: Entry, zygote: Zygote, source: pipeline.Source, target: str, samples: Path | None, folder: Path, out: Outcome
) -> bool:
    try:
        result = pipeline.convert(zygote, source, target, {}, folder, Limits(), samples=samples, consent=entry.consent)
        out.verdict = str(result.report.verdict)
        problem = _difference(entry, folder) if samples else ""
    except LarderError as error:
        out.note(target, error.code, error.message)
        return False
    if problem:
        out.note(target, "outputs-differ", problem)
    elif result.report.verdict == "differs":
        out.note(target, "differs", result.report.reason)
    return not problem and result.report.verdict != "differs"


def _difference(entry: Entry, folder: Path) -> str:
    values = folder / "result" / "outputs.npz"
    draws = load_draws(values) if values.exists() else []
    return entry.difference(draws[0]) if draws else "the result was not run"


def _samples(entry: Entry, source: pipeline.Source, folder: Path) -> Path:
    """The recorded inputs under the model's names, as people would give them."""
    specs = source.summary.inputs
    path = folder / "samples.npz"
    if not specs:  # a model of people's own class tells its inputs only when it is built
        np.savez(path, **{f"input_{place}": array for place, array in enumerate(entry.inputs_in_order)})
        return path
    arrays = entry.inputs([spec.name for spec in specs])
    np.savez(path, **{spec.name: _plain(arrays[spec.name], spec.dtype, entry, spec.name) for spec in specs})
    return path


def _plain(array: Any, dtype: str, entry: Entry, name: str) -> Any:
    if array.dtype == object:
        return array.astype("S")
    if dtype in ("int8", "uint8") and array.dtype.kind == "f":
        return _quantised(array, dtype, entry, name)
    return array


def _quantised(array: Any, dtype: str, entry: Entry, name: str) -> Any:
    """The recorded floats in the steps of a quantised input, as the recording's own interpreter was fed."""
    from ai_edge_litert.interpreter import Interpreter

    details = Interpreter(model_path=str(entry.path)).get_input_details()
    found = next((item for item in details if item["name"] == name), details[0])
    scale, zero = found["quantization"]
    bounds = np.iinfo(dtype)
    return np.clip(np.round(array / scale + zero), bounds.min, bounds.max).astype(dtype)


# The table ------------------------------------------------------------------------------------------------------


def report(outcomes: Sequence[Outcome]) -> int:
    """Print the table and the failures; 1 where a file that may be opened becomes nothing."""
    show(*_matrix(outcomes))
    print()
    for outcome in outcomes:
        if not outcome.is_right:
            word = "refused" if outcome.is_refused_on_purpose else "lacks" if outcome.lacks else outcome.stage
            print(f"{word:<10} {outcome.id} [{outcome.format}]: {'; '.join(outcome.problems) or 'no target'}")
    return max(_totals(outcomes), _steadiness(outcomes))


def _steadiness(outcomes: Sequence[Outcome]) -> int:
    """Print whose verdict depends on the seed; 1 where there is one."""
    judged = [outcome for outcome in outcomes if outcome.verdicts]
    wavering = [outcome for outcome in judged if outcome.wavers]
    for outcome in wavering:
        for verdict in outcome.verdicts:
            print(f"wavers {outcome.id} → {outcome.target}: seed {verdict.seed}: {verdict.word}: {verdict.reason}")
    if judged:
        words = Counter(verdict.word for outcome in judged for verdict in outcome.verdicts)
        print(
            f"{len(judged)} judged with {max(len(outcome.verdicts) for outcome in judged)} seeds each "
            f"({_listed(words)}); {len(wavering)} waver: {'falls short' if wavering else 'holds'} (bar: none)"
        )
    return int(bool(wavering))


def _totals(outcomes: Sequence[Outcome]) -> int:
    right = sum(outcome.is_right for outcome in outcomes)
    refused = sum(outcome.is_refused_on_purpose for outcome in outcomes)
    lacking = sum(outcome.lacks and not outcome.is_refused_on_purpose for outcome in outcomes)
    failed = len(outcomes) - right - refused - lacking
    codes = Counter(outcome.codes[0] for outcome in outcomes if not outcome.is_right and outcome.codes)
    targets = Counter(outcome.target for outcome in outcomes if outcome.is_right)
    print(f"\nby target: {_listed(targets)}\nfailures by first code: {_listed(codes) or 'none'}")
    print(
        f"{right} of {len(outcomes)} right; {refused} refused because they hold code; "
        f"{lacking} lack a part of the model; {failed} failed: "
        f"{'falls short' if failed else 'holds'} (bar: none failed)"
    )
    return int(failed > 0)


def _listed(counts: Counter[str]) -> str:
    return ", ".join(f"{name} {count}" for name, count in counts.most_common())


def _matrix(outcomes: Sequence[Outcome]) -> tuple[list[str], list[list[str]]]:
    tags = sorted({outcome.tag for outcome in outcomes}, key=_age)
    rows = [[name, *(_cell(outcomes, name, tag) for tag in [*tags, ""])] for name in _formats(outcomes)]
    return ["right / all", *tags, "all"], [*rows, ["all", *(_cell(outcomes, "", tag) for tag in [*tags, ""])]]


def _formats(outcomes: Sequence[Outcome]) -> list[str]:
    return sorted({outcome.format for outcome in outcomes})


def _cell(outcomes: Sequence[Outcome], name: str, tag: str) -> str:
    found = [item for item in outcomes if name in ("", item.format) and tag in ("", item.tag)]
    return f"{sum(item.is_right for item in found)}/{len(found)}" if found else ""


def _age(tag: str) -> tuple[int, list[int]]:
    numbers = [int(part) for part in tag.removeprefix("tf").split(".") if part.isdigit()]
    return (0 if numbers else 1), numbers


# Choosing -------------------------------------------------------------------------------------------------------


def stratified(found: Sequence[Entry], count: int, seed: int) -> list[Entry]:
    """``count`` entries of every format of every version."""
    generator = random.Random(seed)  # noqa: S311 - which files to look at is no secret
    strata: dict[tuple[str, str], list[Entry]] = {}
    for entry in found:
        strata.setdefault((entry.tag, entry.format), []).append(entry)
    drawn = (generator.sample(strata[key], min(count, len(strata[key]))) for key in sorted(strata))
    return [entry for group in drawn for entry in group]


def run(chosen: Sequence[Entry], wanted: Wanted, zygote: Zygote) -> Iterator[Outcome]:
    """Every outcome in the order of the entries, two at once."""
    with ThreadPoolExecutor(AT_ONCE) as threads:
        for number, outcome in enumerate(threads.map(lambda entry: examine(entry, zygote, wanted), chosen), 1):
            if sys.stderr.isatty():
                print(f"\r{number}/{len(chosen)} ", end="", file=sys.stderr)
            yield outcome


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="scripts/bench corpus")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--only", nargs="+", metavar="FORMAT", help="these formats of the manifest")
    parser.add_argument("--to", nargs="+", metavar="FORMAT", default=list(TARGETS), help="the first of these")
    parser.add_argument("--sample", type=int, metavar="N", help="N entries of every format of every version")
    parser.add_argument("--seed", type=int, default=None)
    parser.add_argument("--verdicts", type=int, default=0, metavar="N", help="judge each result with N other seeds")
    parser.add_argument("--denied", action="store_true", help="count the system calls that jobs are refused")
    parser.add_argument("--json", type=Path, help="add one line for each entry")
    return parser.parse_args()


def main() -> int:
    given = arguments()
    found = [entry for entry in entries(given.folder) if not given.only or entry.format in given.only]
    seed = random.SystemRandom().randrange(10**6) if given.seed is None else given.seed
    if given.sample or given.verdicts:
        print(f"seed {seed}", flush=True)
    if given.sample:
        found = stratified(found, given.sample, seed)
    wanted = Wanted(given.to, range(seed, seed + given.verdicts))
    with Zygote(counted=given.denied) as zygote:
        fell_short = report(list(_noted(run(found, wanted, zygote), given.json)))
        return max(fell_short, report_denied(zygote))


def report_denied(zygote: Zygote) -> int:
    """Print what was refused, by name and step, where it was counted; 1 where that is more than what always is."""
    if zygote.denied is None:
        return 0
    steps: dict[str, Counter[str]] = {}
    for (step, name), count in zygote.denied.items():
        steps.setdefault(name, Counter())[step] += count
    for name, counts in sorted(steps.items()):
        word = "told to be done" if _is_pretended(name) else "denied"
        print(f"{word} {name}: {counts.total()} times ({_listed(counts)})")
    others = refused(zygote)
    print(f"{len(others)} denied but {', '.join(EXPECTED)}: {'falls short' if others else 'holds'} (bar: none)")
    return int(bool(others))


def refused(zygote: Zygote) -> set[str]:
    """The calls that jobs were refused, where they are counted, but for what always is and what is told to be done."""
    return {name for _, name in zygote.denied or () if name not in EXPECTED and not _is_pretended(name)}


def _is_pretended(name: str) -> bool:
    """Was it answered that it was done?"""
    return seccomp.error_of(name.partition("(")[0]) == 0


def _noted(outcomes: Iterator[Outcome], log: Path | None) -> Iterator[Outcome]:
    """The same, each a line of the log as soon as it is known, for a run that is broken off."""
    for outcome in outcomes:
        if log:
            with log.open("a", encoding="utf-8") as file:
                file.write(json.dumps(dataclasses.asdict(outcome)) + "\n")
        yield outcome


if __name__ == "__main__":
    sys.exit(main())
