"""Conversions end to end, verified, against the tools that people would use instead, on the same files in one run.

Ours is `manage.py convert` over all the files of a case at once, start included, and the warm server, asked for all of
them at once, up to the last download link; both divided by the number of files. Theirs is one process for each file,
as people run them. Wall time, and the ratios; how long a single file takes alone in the server; and the processors'
time, of which ours may take half of tf2onnx' on large models.
Both take the same .h5 files and SavedModel folders; the server takes archives, as browsers send them.

usage: scripts/bench convert [--files N] [--large] [--only CASE …]
  --files N   models of each case; 24 small ones by default, 16 large ones
  --large     ResNet50 instead of small models
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from playwright.sync_api import Page, sync_playwright

from bench._machine import processors
from bench._table import conclude, show
from bench.click import wait_for_download
from tests.browser import CHROMIUM_ARGUMENTS, find_chromium, sign_in
from tests.stack import Stack
from worker import archive

SMALL_FILES, LARGE_FILES = 24, 16
LOOK_SECONDS = 0.25  # as often as the page does
SMALL_BAR, LARGE_BAR = 0.2, 1.0  # ours over theirs
LARGE_ONNX_BAR = 0.5  # the same of the processors' time
PYTHON = sys.executable
BIN = Path(PYTHON).parent
THEIR_RUNS = 3  # of a tool on small models; it takes the same time for each
TFJS = "tensorflowjs==4.22.0"  # resolves with nothing newer than TensorFlow 2.19, so its code alone is fetched

MAKE_MODELS = """
import sys
import keras
from keras import layers

folder, count, large = sys.argv[1], int(sys.argv[2]), sys.argv[3] == "large"
for number in range(count):
    keras.utils.set_random_seed(number)
    if large:
        model = keras.applications.ResNet50(weights=None)
    else:
        model = keras.Sequential([
            layers.Input((16,), name="x"), layers.Dense(32, activation="relu"),
            layers.BatchNormalization(), layers.Dense(4, activation="softmax"),
        ])
    model.save(f"{folder}/{number}.h5")
    model.export(f"{folder}/{number}", verbose=False)
"""
RESAVE = "import sys, keras; keras.saving.load_model(sys.argv[1], compile=False).save(sys.argv[2])"
TFJS_SHIM = """
import sys, types
for name in ("tensorflow_decision_forests", "tensorflow_hub"):
    sys.modules[name] = types.ModuleType(name)
jax = types.ModuleType("tensorflowjs.converters.jax_conversion")
jax.convert_jax = None
sys.modules[jax.__name__] = jax
from tensorflowjs.converters import converter
converter.convert(sys.argv[1:])
"""


@dataclass(frozen=True)
class Case:
    """One direction: our target, the suffix of the source, which has none where it is a SavedModel's folder, and their
    command for (SavedModel folder or .h5, out)."""

    name: str
    target: str
    theirs: Sequence[str]
    source: str = ""


CASES = (
    Case("tf2onnx", "onnx", (PYTHON, "-m", "tf2onnx.convert", "--saved-model", "{folder}", "--output", "{out}.onnx")),
    Case("tflite_convert", "tflite", (f"{BIN}/tflite_convert", "--saved_model_dir={folder}", "--output_file={out}")),
    Case("ovc", "openvino", (f"{BIN}/ovc", "{folder}", "--output_model", "{out}.xml")),
    Case(
        "tensorflowjs_converter",
        "tfjs_graph",
        (PYTHON, "-c", TFJS_SHIM, "--input_format=tf_saved_model", "{folder}", "{out}"),
    ),
    Case("a Keras script", "keras", (PYTHON, "-c", RESAVE, "{h5}", "{out}.keras"), source=".h5"),
)


def make_models(folder: Path, count: int, large: bool) -> None:
    """The same models as .h5 and as SavedModel folders, and these as the archives that are uploaded."""
    size = "large" if large else "small"
    command = [PYTHON, "-c", MAKE_MODELS, str(folder), str(count), size]
    subprocess.run(command, check=True, capture_output=True, env=_environment(folder))
    for number in range(count):
        archive.pack(folder / str(number), folder / f"{number}.zip")


def _environment(folder: Path) -> dict[str, str]:
    extra = {"PYTHONPATH": str(folder / "tfjs"), "TF_CPP_MIN_LOG_LEVEL": "3", "OPENVINO_TELEMETRY_OPT_OUT": "1"}
    return os.environ | extra


def fetch_tfjs(folder: Path) -> None:
    """The converter's own code, without what it asks for: the rest is here, or not needed for SavedModels."""
    arguments = ["install", "-q", "--no-deps", "--target", str(folder / "tfjs"), TFJS]
    subprocess.run([PYTHON, "-m", "pip", *arguments], check=True)


@dataclass(frozen=True)
class Took:
    """Seconds for one file: on the wall, and of the processors."""

    wall: float
    processors: float


@dataclass(frozen=True)
class Server:
    """Seconds for one file through the server: from a click to its link, and where many were asked for at once."""

    alone: float
    many: float


@dataclass(frozen=True)
class Compared:
    """One case: ours over many files, ours through the server, and theirs."""

    name: str
    ours: Took
    server: Server
    theirs: Took

    @property
    def ratio(self) -> float:
        return self.ours.wall / self.theirs.wall

    @property
    def of_server(self) -> float:
        return self.server.many / self.theirs.wall

    @property
    def of_processors(self) -> float:
        return self.ours.processors / self.theirs.processors


def time_theirs(case: Case, folder: Path, runs: int) -> Took:
    """For one file: the median on the wall, the mean of the processors."""
    seconds, before = [], processors()
    for number in range(runs):
        names = {"folder": folder / str(number), "h5": folder / f"{number}.h5", "out": folder / f"theirs-{number}"}
        command = [part.format(**names) if "{" in part and "\n" not in part else part for part in case.theirs]
        started = time.perf_counter()
        done = subprocess.run(command, env=_environment(folder), capture_output=True, text=True)
        seconds.append(time.perf_counter() - started)
        if done.returncode:
            raise SystemExit(f"{case.name} failed: {done.stderr[-500:]}")
        _remove(folder, f"theirs-{number}*")
    return Took(statistics.median(seconds), (processors() - before) / runs)


def time_ours(case: Case, folder: Path, count: int) -> Took:
    """For one file: the whole command over all of them, divided by their number; all must be verified."""
    files = [str(folder / f"{number}{case.source}") for number in range(count)]
    command = [PYTHON, "manage.py", "convert", "--to", case.target, "--out", str(folder / "ours"), "--json", *files]
    started, before = time.perf_counter(), processors()
    done = subprocess.run(command, capture_output=True, text=True)
    seconds, spent = time.perf_counter() - started, processors() - before
    rows = [json.loads(line) for line in done.stdout.splitlines()]
    wrong = [row for row in rows if row["verdict"] != "verified"]
    if wrong or len(rows) != count:
        raise SystemExit(f"{case.target}: {wrong[:1] or done.stderr[-500:]}")
    shutil.rmtree(folder / "ours")
    return Took(seconds / count, spent / count)


def time_server(case: Case, folder: Path, page: Page, count: int) -> Server:
    """The first file alone, then the others, from the first click to the last download link."""
    first, *others = [_upload(case, folder, page, number) for number in range(count)]
    page.goto(first)
    page.locator(f"#to-{case.target}").check()
    started = time.perf_counter()
    page.get_by_role("button", name="Convert selected").click()
    wait_for_download(page)
    alone, started = time.perf_counter() - started, time.perf_counter()
    token = page.locator("[name=csrfmiddlewaretoken]").first.input_value()
    for asked in [_ask(case, page, version, token) for version in others]:
        _wait(page, asked)
    return Server(alone, (time.perf_counter() - started) / len(others))


def _wait(page: Page, asked: str) -> None:
    """Until there is a download, ten minutes at most: a conversion that failed has none."""
    end = time.monotonic() + 600
    while "Download" not in page.request.get(asked).text():
        if time.monotonic() > end:
            raise SystemExit(f"no download at {asked}")
        time.sleep(LOOK_SECONDS)


def _upload(case: Case, folder: Path, page: Page, number: int) -> str:
    """Where the version is, once it was looked at."""
    page.goto("/")
    page.get_by_role("link", name="Upload").first.click()
    page.get_by_label("Choose model files").set_input_files(folder / f"{number}{case.source or '.zip'}")
    page.get_by_label("Name of the new model").fill(f"{case.name} {number}")
    page.get_by_role("button", name="Upload").click()
    page.wait_for_url("**/m/**/v*/")
    page.locator(f"#to-{case.target}").wait_for()
    return page.url


def _ask(case: Case, page: Page, version: str, token: str) -> str:
    """Where the conversion is that was asked for: as the page asks, but without a browser that draws it, which would
    take a processor from the jobs."""
    asked: dict[str, str | float | bool] = {"target": case.target, "csrfmiddlewaretoken": token}
    answer = page.request.post(f"{version}convert/", form=asked, headers={"Referer": version})
    assert answer.ok, answer.text()
    return answer.url


def _remove(folder: Path, pattern: str) -> None:
    for path in folder.glob(pattern):
        shutil.rmtree(path) if path.is_dir() else path.unlink()


def measure(cases: Sequence[Case], folder: Path, count: int, large: bool) -> list[Compared]:
    """Each case in turn, on models that are made for it."""
    make_models(folder, count, large)
    if any(case.target == "tfjs_graph" for case in cases):
        fetch_tfjs(folder)
    found = []
    with Stack(folder / "data") as stack, sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=find_chromium(), args=CHROMIUM_ARGUMENTS)
        page = browser.new_page(base_url=stack.url)
        sign_in(page, *stack.login)
        for case in cases:
            ours, theirs = time_ours(case, folder, count), time_theirs(case, folder, min(count, THEIR_RUNS))
            found.append(Compared(case.name, ours, time_server(case, folder, page, count), theirs))
            print(*_row(found[-1]), file=sys.stderr, flush=True)  # for a run that is broken off
        browser.close()
    return found


def main() -> int:
    parser = argparse.ArgumentParser(prog="scripts/bench convert")
    parser.add_argument("--files", type=int)
    parser.add_argument("--large", action="store_true")
    parser.add_argument("--only", nargs="+", metavar="CASE", choices=[case.target for case in CASES])
    given = parser.parse_args()
    cases = [case for case in CASES if not given.only or case.target in given.only]
    folder = Path(tempfile.mkdtemp(prefix="larder-bench-"))
    try:
        count = given.files or (LARGE_FILES if given.large else SMALL_FILES)
        found = measure(cases, folder, count, given.large)
    finally:
        shutil.rmtree(folder)
    header = ["instead of", "ours, s", "server, s", "one alone, s", "theirs, s", "ours / theirs", "server / theirs"]
    show([*header, "processors"], list(map(_row, found)))
    bar = LARGE_BAR if given.large else SMALL_BAR
    figures = [(item.name, item.ratio, bar, "of their time") for item in found]
    figures += [(f"{item.name}, server", item.of_server, bar, "of their time") for item in found]
    if given.large:
        of_onnx = [item for item in found if item.name == CASES[0].name]
        figures += [(f"{item.name}, processors", item.of_processors, LARGE_ONNX_BAR, "of theirs") for item in of_onnx]
    return conclude(*figures)


def _row(item: Compared) -> list[str]:
    seconds = (item.ours.wall, item.server.many, item.server.alone, item.theirs.wall)
    numbers = (*seconds, item.ratio, item.of_server, item.of_processors)
    return [item.name, *(f"{number:.2f}" for number in numbers)]


if __name__ == "__main__":
    sys.exit(main())
