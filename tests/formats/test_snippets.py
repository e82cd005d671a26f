"""Each format's snippet runs as it is pasted: in a fresh interpreter, beside the file."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from tests.formats.models import TARGETS
from tests.stack import clean_environment
from worker import formats

# One interpreter for all of them, since importing TensorFlow is most of the time; each snippet has its own names.
RUN = """
import sys
import numpy as np
for slug in sys.argv[1:]:
    names = {}
    exec(compile(open("use_" + slug + ".py").read(), slug, "exec"), names)
    x = np.linspace(-1, 1, 12, dtype="float32").reshape(2, 6)
    if "signature" in names:
        y = names["signature"](features=x)["probs"].numpy()
    else:
        y = np.asarray(names["model"](x))
    print(slug, y.tobytes().hex())
"""


def test_snippets_run_and_agree(made_file: Callable[[str, str], Path], tmp_path: Path) -> None:
    for slug in TARGETS:
        name = f"{slug}-download{formats.get(slug).suffixes[0]}"
        shutil.copy(made_file("dense", slug), tmp_path / name)
        (tmp_path / f"use_{slug}.py").write_text(formats.get(slug).snippet.replace("{file}", name), encoding="utf-8")
    done = subprocess.run(
        [sys.executable, "-c", RUN, *TARGETS],
        cwd=tmp_path,
        env=clean_environment(),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    answers = dict(line.split() for line in done.stdout.splitlines() if line.startswith(TARGETS))
    assert set(answers) == set(TARGETS)
    assert len({answers[slug] for slug in TARGETS if slug != "saved_model"}) == 1
