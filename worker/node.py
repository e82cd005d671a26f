"""Node, and the packages of TensorFlow.js that ``scripts/setup`` installs beside this Python: are they here, and how is
a model run with them? Asked outside of jobs."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from functools import cache
from pathlib import Path

HERE = Path(__file__).resolve().parent / "tfjs"
LOCKED = ("package.json", "package-lock.json")
PACKAGES = tuple(f"@tensorflow/tfjs-{name}" for name in ("core", "backend-cpu", "converter", "layers"))
OLDEST = 18  # of Node: what Debian 12 and Ubuntu 24.04 have
DEBIAN = Path("/usr/share/nodejs")  # parts of Node that Debian's has outside of its file, and does not start without
SECONDS = 10  # for saying which release it is
# Numbers lie outside of V8's heap, so that one need not be large. Nothing here makes code of text, or loads native code
OPTIONS = ("--max-old-space-size=2048", "--disallow-code-generation-from-strings", "--no-addons")
ABOUT = "JSON.stringify([process.versions.node, process.execPath])"
BEGUN = "TensorFlow.js has begun"  # what the program says first, see ``tfjs/run.js``
HOW = f"install Node {OLDEST} or newer and npm, and run scripts/setup"


@dataclass(frozen=True)
class Node:
    """How a model is run. ``version``: of TensorFlow.js, ``release``: of Node; ``absent``: why it cannot be, or "".

    ``command`` is run with the file that says what to run and the number of a descriptor; see ``tfjs/run.js``. It has
    ``environment``, and has to ``read`` these folders beside the system's libraries.
    """

    version: str = ""
    absent: str = ""
    command: tuple[str, ...] = ()
    environment: tuple[tuple[str, str], ...] = ()
    read: tuple[Path, ...] = ()
    release: str = ""


def packages() -> Path:
    """The folder of ``node_modules``: in the virtual environment, named after the lock file."""
    digest = hashlib.sha256(b"".join((HERE / name).read_bytes() for name in LOCKED)).hexdigest()
    return Path(sys.prefix) / f"tfjs-{digest[:16]}"


def found() -> Node:
    """TensorFlow.js as it is here, or why it is not."""
    program, folder = shutil.which(os.environ.get("LARDER_NODE") or "node"), packages()
    if program is None:
        return Node(absent=f"not present here: {HOW}")
    if not (folder / "complete").exists():
        return Node(absent=f"not present here: its packages are not installed; {HOW}")
    try:
        release, path = _about(program)
    except (OSError, subprocess.SubprocessError, ValueError):
        return Node(absent=f"not present here: Node does not start; {HOW}")
    if int(release.partition(".")[0]) < OLDEST:
        return Node(absent=f"not present here: Node is {release}; {HOW}")
    described = json.loads((folder / "node_modules" / PACKAGES[0] / "package.json").read_text(encoding="utf-8"))
    # io_uring is refused in jobs, and settings of OpenSSL are none of theirs to read
    environment = {"NODE_PATH": f"{folder}/node_modules", "UV_USE_IO_URING": "0", "OPENSSL_CONF": os.devnull}
    command = (path, *OPTIONS, str(HERE / "run.js"))
    read = (folder, *filter(Path.is_dir, [DEBIAN]))
    return Node(str(described["version"]), "", command, tuple(environment.items()), read, release)


@cache
def _about(program: str) -> tuple[str, str]:
    """The release, and the program behind whatever starts it; OSError, SubprocessError or ValueError where that does
    not start, which may be for once."""
    done = subprocess.run([program, "-p", ABOUT], capture_output=True, text=True, timeout=SECONDS, check=True)
    release, path = json.loads(done.stdout)
    return str(release), str(path)
