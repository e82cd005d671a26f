"""The formats Larder knows: every module of this folder that does not start with an underscore."""

from __future__ import annotations

import dataclasses
import pkgutil
from functools import cache
from importlib import import_module, util

from worker.errors import FormatUnavailable, UnknownTarget
from worker.formats._format import Format, Sample


@cache
def formats() -> dict[str, Format]:
    """Every format by its slug, in the order of the slugs. A module without FORMAT, or a label twice, is an error."""
    found: dict[str, Format] = {}
    for module in sorted(pkgutil.iter_modules(__path__), key=lambda module: module.name):
        if not module.name.startswith("_"):
            declared: Format = import_module(f"{__name__}.{module.name}").FORMAT
            found[module.name] = dataclasses.replace(declared, slug=module.name)
    labels = [item.label for item in found.values()]
    if len(set(labels)) != len(labels):
        raise ValueError(f"two formats share a label: {sorted(labels)}")
    return found


def get(slug: str) -> Format:
    """The format called ``slug``, or UnknownTarget."""
    known = formats()
    if slug not in known:
        raise UnknownTarget(target=slug, known=", ".join(known))
    return known[slug]


def missing(item: Format) -> list[str]:
    """Libraries that this format needs and that are not installed here."""
    return [name for name in item.needs if not _is_installed(name)]


@cache  # a page of offers asks a thousand times
def _is_installed(name: str) -> bool:
    return util.find_spec(name) is not None


def require(item: Format) -> None:
    """Raise FormatUnavailable where a library of this format is missing."""
    if absent := missing(item):
        raise FormatUnavailable(target=item.label, missing=", ".join(absent))


def matches(sample: Sample) -> list[Format]:
    """Every format whose sniffer accepts the sample; detection wants exactly one."""
    return [item for item in formats().values() if item.sniff(sample)]
