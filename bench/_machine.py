"""What this machine says about itself."""

from __future__ import annotations

import os
from pathlib import Path


def processors() -> float:
    """Seconds that this machine has computed, all of it: nobody waits for a job's processes, so they are in nobody's
    sum. It should do nothing else meanwhile."""
    user, nice, system = map(int, Path("/proc/stat").read_text(encoding="ascii").split()[1:4])
    return (user + nice + system) / os.sysconf("SC_CLK_TCK")
