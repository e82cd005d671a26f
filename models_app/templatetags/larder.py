"""How pages write sizes, times, hashes, shapes and verdicts: the same everywhere, with the exact value at hand."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

from django import template
from django.template.defaultfilters import filesizeformat
from django.templatetags.static import static
from django.utils import timezone
from django.utils.html import conditional_escape, format_html, format_html_join
from django.utils.safestring import SafeString

from worker.formats import formats
from worker.formats._format import Signature, Summary, TensorSpec
from worker.report import Severity, Verdict
from worker.visible import one_line, shortened

if TYPE_CHECKING:
    from models_app.views.rows import OfferRow

register = template.Library()

VERDICTS: dict[str, tuple[str, str, str]] = {
    Verdict.VERIFIED: ("good", "check", "Verified"),
    Verdict.DIFFERS: ("bad", "cross", "Differs"),
    Verdict.NOT_PROVABLE: ("warn", "question", "Not provable"),
}
SEVERITIES: dict[str, tuple[str, str, str]] = {
    Severity.NOTE: ("", "note", "Note"),
    Severity.WARNING: ("warn", "warning", "Warning"),
    Severity.DANGER: ("bad", "warning", "Danger"),
    Severity.CONSENT: ("warn", "question", "Needs consent"),
    Severity.REFUSE: ("bad", "cross", "Refused"),
}
STEPS = ((60, "minute", 60), (3600, "hour", 24), (86400, "day", 14))  # seconds in one, its name, how many at most


@register.simple_tag
def icon(name: str, extra: str = "") -> SafeString:
    """A decorative icon of icons.svg; the words beside it say what it means."""
    return format_html(
        '<svg class="icon {}" aria-hidden="true" focusable="false"><use href="{}#{}"/></svg>',
        extra,
        static("larder/icons.svg"),
        name,
    )


@register.filter
def size(count: int) -> SafeString:
    """``13.5 MB``, with the exact number of bytes in the title."""
    return format_html('<data value="{}" title="{} bytes">{}</data>', count, f"{count:,}", filesizeformat(count))


@register.filter
def thousands(number: int | None) -> str:
    """``3,538,984``; a dash where the number is not known."""
    return "–" if number is None else f"{number:,}"


@register.filter
def brief(text: str, most: int = 120) -> SafeString:
    """A name of any length: the start and the end of one that is too long, which opens to the whole."""
    if len(text) <= most:
        return conditional_escape(text)
    whole = '<details class="long"><summary>{}</summary>{}</details>'
    return format_html(whole, shortened(one_line(text), most), text)


@register.filter
def listed(names: Sequence[str]) -> SafeString:
    """Names with commas between them, each as ``brief`` has it."""
    return format_html_join(", ", "{}", ((brief(name),) for name in names))


@register.filter
def text(value: object) -> str:
    """Any value of an event as text."""
    return str(value)


@register.filter
def short_hash(digest: str) -> SafeString:
    """The first twelve digits, with the whole hash in the title."""
    return format_html('<code class="nowrap" title="{}">{}</code>', digest, digest[:12])


@register.filter
def ago(moment: datetime | None) -> SafeString | str:
    """``4 minutes ago`` or ``in 6 days``, with the exact UTC time in the title."""
    if moment is None:
        return "–"
    return format_html('<time datetime="{}" title="{}">{}</time>', moment.isoformat(), exact(moment), _relative(moment))


@register.filter
def exact(moment: datetime) -> str:
    """``2026-03-01 09:30:05 UTC``."""
    return f"{moment:%Y-%m-%d %H:%M:%S} UTC"


def _relative(moment: datetime) -> str:
    passed = timezone.now() - moment
    distance = abs(passed)
    if distance < timedelta(minutes=1):
        return "just now" if passed >= timedelta(0) else "in a moment"
    words = _distance(distance)
    if not words:
        return f"{moment.day} {moment:%b %Y}"
    return f"{words} ago" if passed > timedelta(0) else f"in {words}"


def _distance(distance: timedelta) -> str:
    """``4 minutes``; empty for what is better said as a date."""
    for seconds, name, most in STEPS:
        count = round(distance.total_seconds() / seconds)
        if count < most:
            return f"{count} {name}{'' if count == 1 else 's'}"
    return "" if distance > timedelta(days=90) else f"{distance.days} days"


@register.filter
def duration(seconds: float | None) -> str:
    """``0.84 s``, ``12 s``, ``2 min 5 s``."""
    if seconds is None:
        return "–"
    if seconds < 10:
        return f"{seconds:.2f} s" if seconds < 1 else f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s" if minutes else f"{rest} s"


@register.filter
def shape(spec: TensorSpec) -> str:
    """``(?, 224, 224, 3)``: a question mark for what is free, as in the table of layers."""
    if spec.shape is None:
        return "any shape"
    inner = ", ".join("?" if length is None else str(length) for length in spec.shape)
    return f"({inner},)" if len(spec.shape) == 1 else f"({inner})"


@register.filter
def tensors(interface: Signature | Summary) -> list[tuple[str, TensorSpec]]:
    """What a signature, or a whole model, takes, then what it gives, each with which of both it is."""
    return [*(("Input", spec) for spec in interface.inputs), *(("Output", spec) for spec in interface.outputs)]


@register.filter
def sum_command(line: str) -> str:
    """The shell line that checks a download against its ``sha256sum`` line."""
    return f"echo {shlex.quote(line)} | sha256sum -c"


@register.filter
def format_label(slug: str) -> str:
    """The name people know a format by; the slug itself where the format was removed."""
    known = formats()
    return known[slug].label if slug in known else slug


@register.filter
def askable(offers: Sequence[OfferRow]) -> bool:
    """Is there a format left that can be asked for?"""
    return any(offer.askable for offer in offers)


@register.filter
def items(mapping: dict[str, Any]) -> list[tuple[str, Any]]:
    """Pairs in order of their names; templates cannot call ``.items`` on a dict that has such a key."""
    return sorted(mapping.items())


@register.inclusion_tag("_badge.html")
def verdict_badge(verdict: str) -> dict[str, str]:
    """Colour, icon and word, so that colour alone carries nothing."""
    tone, image, label = VERDICTS[verdict]
    return {"tone": tone, "image": image, "label": label}


@register.inclusion_tag("_badge.html")
def severity_badge(severity: str) -> dict[str, str]:
    tone, image, label = SEVERITIES[severity]
    return {"tone": tone, "image": image, "label": label}


@register.filter
def tone(value: str) -> str:
    """The colour class of a verdict or a severity."""
    return (VERDICTS | SEVERITIES)[value][0]


@register.filter
def image(value: str) -> str:
    """The icon of a verdict or a severity."""
    return (VERDICTS | SEVERITIES)[value][1]
