"""People's own inputs to try a model on, for what stands above the formats."""

from __future__ import annotations

from worker.formats._samples import read_samples

__all__ = ["read_samples"]
