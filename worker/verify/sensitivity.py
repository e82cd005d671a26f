"""Would the inputs have shown a fault? The share of weight tensors in which a planted fault moved the outputs."""

from __future__ import annotations

import math
import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from worker.report import Check

BAR = 0.99  # the share of tensors whose faults have to show
# Where every weight is accounted for by itself: a tensor that matters to nothing, as a bias that a softmax takes out
# again, may stay unseen; a layer that sleeps is more than one in ten
KNOWN_BAR = 0.9
TIMES = 2  # a fault shows where it moves an output by more than so many times what is allowed
DOUBT = 0.05  # one minus the confidence of a bound
FEW = 5  # names in a sentence
MOST_ROWS, LONGEST_NAME = 100_000, 300  # of what a job says about a stranger's file
# The bias of the keys of an attention adds the same number to all scores of a query, and a softmax takes it out again
CANCELS = re.compile(r"(?P<scope>^|.*/)(?P<layer>key|k_proj|key_dense|k_lin)/bias(:0)?")
QUERIES = {"key": "query", "k_proj": "q_proj", "key_dense": "query_dense", "k_lin": "q_lin"}  # beside such keys


@dataclass(frozen=True)
class Row:
    """What a job says of one weight tensor: how far a fault in it moved the outputs, relative to their scale, and
    whether it reaches none of them, whatever it holds."""

    layer: str
    tensor: str
    moved: float
    moved_gross: float | None = None
    unread: bool = False

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Row:
        """ValueError, KeyError and TypeError for anything else."""
        gross = data.get("moved_gross")
        return cls(
            layer=str(data["layer"])[:LONGEST_NAME],
            tensor=str(data["tensor"])[:LONGEST_NAME],
            moved=_share(data["moved"]),
            moved_gross=None if gross is None else _share(gross),
            unread=data.get("unread") is True and data["moved"] == 0,
        )


def _share(number: Any) -> float:
    value = float(number)
    if not math.isfinite(value) or value < 0:
        raise ValueError("not how far something moved")
    return value


def rows_from_json(data: Sequence[Mapping[str, Any]]) -> list[Row]:
    """Rows as they came over the pipe."""
    if len(data) > MOST_ROWS:
        raise ValueError("more weight tensors than a model has")
    return [Row.from_json(item) for item in data]


def sensitivity_check(
    rows: Sequence[Row], total: int, allowed: float, coarse: bool = False, known: bool = False
) -> Check:
    """Passed where faults show in at least 0.99 of the tensors that were tried, of ``total`` that there are; None where
    they do not, or where none could be tried.

    ``allowed``: the gap of values that the terms allow, relative to the output's scale. ``coarse``: the format rounds
    so much that only a gross fault has to show, and the weights check has to tell the rest. ``known``: it does, of all
    weights, so that nine tensors of ten are enough.
    """
    if not rows:
        sentence = "Whether these inputs would show a fault is not known: no weight of the source could be changed."
        return Check("sensitivity", None, sentence, _data([], [], [], total, allowed))
    missed = [row for row in rows if not _is_seen(row, allowed, coarse)]
    layers = {row.tensor.rpartition("/")[0] for row in rows}
    idle = [row for row in missed if row.unread or _cancels(row, layers)]
    unseen = [row for row in missed if row not in idle]
    seen = [row for row in rows if row not in missed]
    data = _data(seen, unseen, idle, total, allowed)
    passed = data["share"] >= (KNOWN_BAR if known else BAR)
    sentence = _told(seen, unseen, total, data, coarse) if passed else _warned(seen, unseen, coarse)
    return Check("sensitivity", passed or None, sentence + _excused(idle), data)


def _cancels(row: Row, layers: Collection[str]) -> bool:
    """Is it the bias of an attention's keys? Other layers are called ``key`` too: the queries have to be beside it."""
    found = CANCELS.fullmatch(row.tensor)
    return found is not None and found["scope"] + QUERIES[found["layer"]] in layers


def _is_seen(row: Row, allowed: float, coarse: bool) -> bool:
    found = max(row.moved, row.moved_gross or 0.0) if coarse else row.moved
    return found > TIMES * allowed


def _data(
    seen: Sequence[Row], unseen: Sequence[Row], idle: Sequence[Row], total: int, allowed: float
) -> dict[str, Any]:
    tried, of = len(seen) + len(unseen), max(total - len(idle), 0)
    share = len(seen) / tried if tried else 1.0 if idle else 0.0
    return {
        "seen": len(seen),
        "tried": tried,
        "total": of,
        "share": share,
        "confidence": share if tried >= of else at_least(len(seen), tried),
        "needed": TIMES * allowed,
        "unseen": [[row.layer, row.tensor] for row in unseen],
        "idle": [[row.layer, row.tensor] for row in idle],
    }


def at_least(seen: int, tried: int, doubt: float = DOUBT) -> float:
    """The lower bound of a share of which ``seen`` of ``tried`` were found in a random sample: the exact one of Clopper
    and Pearson, one-sided."""
    if not seen:
        return 0.0
    low, high = 0.0, 1.0
    for _ in range(50):
        middle = (low + high) / 2
        low, high = (middle, high) if _chance(seen, tried, middle) < doubt else (low, middle)
    return low


def _chance(seen: int, tried: int, share: float) -> float:
    """That a sample shows so many or more, where the share is this."""
    if not 0 < share < 1:
        return float(share >= 1)
    logs = (
        math.lgamma(tried + 1) - math.lgamma(count + 1) - math.lgamma(tried - count + 1)
        + count * math.log(share) + (tried - count) * math.log1p(-share)
        for count in range(seen, tried + 1)
    )  # fmt: skip
    return min(1.0, math.fsum(map(math.exp, logs)))


# Sentences --------------------------------------------------------------------------------------------------------


def _told(seen: Sequence[Row], unseen: Sequence[Row], total: int, data: Mapping[str, Any], coarse: bool) -> str:
    layers = len({row.layer for row in seen})
    tried = f"{len(seen)} of {data['tried']} weight tensors tried"
    if unseen:
        return f"{_fault(coarse)} would have shown nearly everywhere: {tried}, all but {_listed(unseen)}."
    if data["tried"] < data["total"]:
        sure = f"in at least {math.floor(100 * data['confidence'])} % of all {data['total']}, with 95 % confidence"
        return f"{_fault(coarse)} would have shown in each of {len(seen)} weight tensors drawn at random: {sure}."
    where = f"any of the {layers} layers" if layers > 1 else "the only layer with weights"
    return f"{_fault(coarse)} in {where} would have shown: {tried}."


def _warned(seen: Sequence[Row], unseen: Sequence[Row], coarse: bool) -> str:
    kind = "Gross faults" if coarse else "Faults of 1 %"
    tried = len(seen) + len(unseen)
    return f"{kind} in {_listed(unseen)} would not have shown on these inputs: {len(unseen)} of {tried} tensors tried."


def _fault(coarse: bool) -> str:
    return "A gross fault (a sign turned, a statistic lost)" if coarse else "A fault of 1 %"


def _listed(rows: Sequence[Row]) -> str:
    """The layers, a few by name."""
    layers = list(dict.fromkeys(row.layer for row in rows))
    more = f" and {len(layers) - FEW} more layers" if len(layers) > FEW else ""
    return ", ".join(layers[:FEW]) + more


def _excused(idle: Sequence[Row]) -> str:
    cancelling = [row.tensor for row in idle if not row.unread]
    unread = [row.tensor for row in idle if row.unread]
    said = f" What cancels in every softmax cannot show, whatever it holds: {_few(cancelling)}." if cancelling else ""
    return said + (f" What the model does not read cannot show either: {_few(unread)}." if unread else "")


def _few(names: Sequence[str]) -> str:
    return ", ".join(names[:FEW]) + (f" and {len(names) - FEW} more" if len(names) > FEW else "")
