"""In which runtimes a result can be opened here, and opening it in one of them. The table is read by the worker, too;
the libraries are imported in jobs alone."""

from __future__ import annotations

import importlib.metadata
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from worker import formats, node
from worker.errors import NotRunnable
from worker.formats import _bare
from worker.formats._format import Loaded

Opener = Callable[[Path, Path], Loaded]
MIB = 2**20
LARGE = 256 * MIB  # of a file that more than one runtime is asked to open: each of them wants it in memory


@dataclass(frozen=True)
class Runtime:
    """A library that runs models.

    packages: what people install to have it; the version of the first is told.
    by_node: is it no library of Python, but run by Node in place of the job? Then ``worker.looks`` runs it.
    opens: the formats that it opens; None as opener where Larder always runs the format with this runtime.
    largest: bytes of a file that it is asked to open.
    absent: why it is never asked on this machine.
    """

    label: str
    packages: tuple[str, ...]
    opens: Mapping[str, Opener | None]
    largest: int = LARGE
    absent: str = ""
    by_node: bool = False


@dataclass(frozen=True)
class Turn:
    """One runtime that a result is to be opened in. ``install``: the packages at the versions that are here.
    ``releases``: the same by name, and Node where that runs it. ``absent``: why it is not asked, or "". ``own``: does
    Larder run the format with it anyway, so that what the result showed of itself was shown by this runtime?
    ``by_node``: is it run by Node?"""

    runtime: str
    label: str
    version: str
    install: str
    own: bool = False
    absent: str = ""
    by_node: bool = False
    releases: Mapping[str, str] = field(default_factory=dict)

    @property
    def is_asked(self) -> bool:
        """Is the result opened in it once more, for this table alone?"""
        return not self.own and not self.absent


_KERAS = ("json_npz", "weights_h5", "json_safetensors", "checkpoint", "data_pickle", "json_pickle", "pickle")
_GRAPHS = ("saved_model", "frozen_graph", "tf1_checkpoint")
# For each format the first runtime that opens it is the one that its snippet is written for
RUNTIMES: dict[str, Runtime] = {
    "tfjs": Runtime(
        "TensorFlow.js",
        node.PACKAGES,
        {"tfjs_graph": None, "tfjs_layers": None},
        largest=64 * MIB,
        by_node=True,
    ),
    "coreml": Runtime("Core ML", (), {"coreml": None}, absent="converted, not run here: it runs on Apple's systems"),
    "keras": Runtime(
        "Keras 3",
        ("keras", "tensorflow"),
        {
            "keras": partial(_bare.keras, "keras"),
            "h5": partial(_bare.keras, "h5"),
            **dict.fromkeys(_KERAS),
            "tfjs_layers": None,
        },
    ),
    "tf_keras": Runtime(
        "tf-keras",
        ("tf-keras", "tensorflow"),
        {"h5": partial(_bare.tf_keras, "h5"), "keras": partial(_bare.tf_keras, "keras")},
    ),
    "tensorflow": Runtime("TensorFlow", ("tensorflow",), {**dict.fromkeys(_GRAPHS), "tfjs_graph": None}),
    "onnxruntime": Runtime("ONNX Runtime", ("onnxruntime",), {"onnx": None}),
    "litert": Runtime("LiteRT", ("ai-edge-litert",), {"tflite": None}),
    "tf_lite": Runtime("TensorFlow Lite in TensorFlow", ("tensorflow",), {"tflite": _bare.tf_lite}),
    "openvino": Runtime(
        "OpenVINO",
        ("openvino",),
        {
            "openvino": None,
            "onnx": _bare.openvino_of_onnx,
            "tflite": _bare.openvino_of_tflite,
            "saved_model": _bare.openvino_of_saved_model,
        },
    ),
    "onnx_reference": Runtime("ONNX reference", ("onnx",), {"onnx": _bare.onnx_reference}, largest=2 * MIB),
}


def runtimes(slug: str, size: int = 0) -> tuple[Turn, ...]:
    """Where a result of so many bytes is opened, the runtime that its snippet is written for first; those that cannot
    be asked here, too, with the reason."""
    return tuple(_turn(name, item, slug, size) for name, item in RUNTIMES.items() if slug in item.opens)


def home(slug: str, size: int = 0) -> str:
    """The runtime that the format's snippet is written for, where it is another library than Larder runs the format
    with and can be asked; else ""."""
    first = next(iter(runtimes(slug, size)), None)
    return first.runtime if first and first.is_asked and not first.by_node else ""


def _turn(name: str, item: Runtime, slug: str, size: int) -> Turn:
    own = item.opens[slug] is None and not item.by_node
    versions, absent = _here(item)
    if not absent and not own and size > item.largest:
        absent = f"not tried: it is asked for files up to {item.largest // MIB} MiB"
    pin = "@" if item.by_node else "=="
    install = " ".join(f"{package}{pin}{version}" for package, version in zip(item.packages, versions, strict=False))
    version = versions[0] if versions else ""
    releases = dict(zip(item.packages, versions, strict=False))
    if item.by_node and versions:
        releases["node"] = node.found().release
    return Turn(name, item.label, version, install, own and not absent, absent, item.by_node, releases)


def _here(item: Runtime) -> tuple[list[str], str]:
    """The releases of its packages, and why it cannot be asked on this machine, or ""."""
    if item.by_node:
        found = node.found()
        return ([] if found.absent else [found.version] * len(item.packages)), found.absent
    try:
        return [importlib.metadata.version(package) for package in item.packages], item.absent
    except importlib.metadata.PackageNotFoundError:
        return [], "not present here"


def run_in(runtime: str, slug: str, path: Path, scratch: Path) -> Loaded:
    """The file of this format, opened in this runtime by its own loader; whatever that raises, as a LarderError."""
    item = RUNTIMES[runtime]
    if item.absent or item.by_node or slug not in item.opens:
        raise NotRunnable(problem=f"{item.label}: {item.absent or 'it does not open this format in Python'}")
    opener = item.opens[slug] or formats.get(slug).load
    assert opener
    return opener(path, scratch)
