"""The weights of source and result: every tensor found once, and where values cannot be had, in its place.

Formats of layers keep weights bit for bit. Formats of finished graphs transpose, round, and fold one tensor into
another; there each tensor of the source is looked for in that order, and those that were not found are named.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import combinations, islice
from typing import Any

from worker.report import Check
from worker.verify.naming import is_in_place, misplaced
from worker.verify.prints import (
    Axis,
    Form,
    Norm,
    Print,
    Weights,
    folded_axes,
    folding,
    in_order,
    is_mostly,
    is_nearly,
    is_rounded,
    is_vector,
)
from worker.verify.seen import Seen, Terms

MOST_NAMES = 20  # that are kept with the report
SHOWN_NAMES = 3  # that the sentence has
MOST_TRIES = 2_000  # of tensors that may be the parts of one
MOST_PAIRS = 2_000_000  # that one pass looks at: what is left after those, the values have to prove
MOST_FOLDS = 500_000  # the same where a look at a pair takes longer
MOST_WHOLES = 200  # tensors whose parts are looked for
NEARLY = 0.1  # of the largest value: closer than that, two tensors are the same one with and without a fault
PARTS = (2, 3, 4, 6, 8)
WORKINGS = ("kernel", "embeddings", "weights")  # tensors that nothing is ever added to
TABLE = "embeddings"  # looked up row by row, so that no converter gives the rows another order
Scaling = tuple[Axis, Axis, Print]  # an axis of the source, that of the result with its slices scaled, and the result
APART = "The weights are compared through the values, because the formats store them apart."


def weights_check(source: Seen, result: Seen, terms: Terms) -> Check:
    """Every tensor of the source is found in the result exactly once, under whatever name."""
    if terms.exact_weights:
        return _bit_for_bit(source, result, terms)
    return compare(source.prints, result.prints)


def _bit_for_bit(source: Seen, result: Seen, terms: Terms) -> Check:
    missing, extra = Counter(source.weights), Counter(result.weights)
    missing, extra = missing - extra, extra - missing
    unmatched = [name for digest, name in zip(source.weights, source.names, strict=False) if digest in missing]
    data: dict[str, Any] = {"tensors": len(source.weights), "missing": missing.total(), "extra": extra.total()}
    data |= {"unmatched": unmatched[:MOST_NAMES]} if unmatched else {}
    if terms.weights_alone and extra and not missing:  # a graph need not use all that its checkpoint holds
        sentence = f"All {len(source.weights)} weight tensors are there, bit for bit, and {extra.total()} more."
        return _under_its_name(source, result, terms, Check("weights", True, sentence, data))
    if missing or extra:
        shown = [*unmatched[:SHOWN_NAMES], *(["…"] if len(unmatched) > SHOWN_NAMES else [])]
        named = f" ({', '.join(shown)})" if shown else ""
        lost = f"{missing.total()} of {len(source.weights)} tensors are not there bit for bit{named}"
        counts = f"{lost}, {extra.total()} {'is' if extra.total() == 1 else 'are'} new"
        return Check("weights", False, f"The weights differ: {counts}.", data)
    sentence = f"All {len(source.weights)} weight tensors are the same, bit for bit."
    return _under_its_name(source, result, terms, Check("weights", True, sentence, data))


def _under_its_name(source: Seen, result: Seen, terms: Terms, check: Check) -> Check:
    """The check of tensors that are all there, unless some of them have changed places.

    In weights alone a name is all that says what a tensor is. In a model its layer says it: there the names may have
    been given anew, as long as the tensors follow each other as before."""
    names = misplaced(source, result) if terms.named else None
    if names and (terms.weights_alone or not is_in_place(source, result)):
        sentence = f"The weights differ: {_listed(names)} {_is(names)} there under other names."
        return replace(check, passed=False, sentence=sentence, data=check.data | {"misplaced": names[:MOST_NAMES]})
    if names is None and terms.given and (terms.weights_alone or not is_in_place(source, result)):
        sentence = f"{check.sentence} What they are called does not say which of them is which."
        return replace(check, passed=None, sentence=sentence)
    return check


# Finished graphs --------------------------------------------------------------------------------------------------


def compare(before: Weights, after: Weights) -> Check:
    """What became of each tensor of the source in a finished graph.

    True where all are accounted for; None, with the names, where the values have to prove the others; False only where
    a kernel has visibly been changed.
    """
    if not before.prints or not after.prints:
        return Check("weights", None, APART)
    book = Book(list(before.prints), list(after.prints))
    book.match("exact", lambda print: print.sha256)
    book.match("rearranged", lambda print: print.values, in_order)
    book.share()
    book.match_nearest("rounded")
    book.fold(before.norms)
    book.match_nearest("folded", before.factors)
    book.split()
    book.join()
    book.match("reordered", lambda print: print.values)
    book.set_aside_neutral()
    return _said(book)


@dataclass
class Book:
    """The tensors of the source that are still to be found, those of the result that are still nobody's, and what has
    been found: how, and the names."""

    waiting: list[Print]
    free: list[Print]
    found: dict[str, list[str]] = field(default_factory=lambda: defaultdict(list))
    used: list[Print] = field(default_factory=list)
    unexplained: set[int] = field(default_factory=set)  # lengths of axes that an unknown number may have scaled

    def match(self, how: str, key: Callable[[Print], str], alike: Callable[[Print, Print], bool] | None = None) -> None:
        """Give each tensor of the source one of the result that has as many values, the same key and is alike: the
        first of its lengths, else the first."""
        by_key: defaultdict[tuple[int, str], list[Print]] = defaultdict(list)
        for each in self.free:
            by_key[each.count, key(each)].append(each)
        tries = Tries()
        for source in list(self.waiting):
            same = by_key.get((source.count, key(source)), [])
            alikes = (result for result in tries.of(same) if alike is None or alike(source, result))
            best = _first_of_its_lengths(source, alikes)
            if best is not None:
                same.remove(best)
                self._take(how, source, best)

    def share(self) -> None:
        """Tensors of the same values, of which a converter keeps one: those whose twin was found."""
        kept = {(print.values, print.count) for print in self.used if not print.is_uniform}
        self.set_aside("shared", lambda source: (source.values, source.count) in kept)

    def match_nearest(self, how: str, factors: Sequence[float] = (1.0,)) -> None:
        """Give each tensor of the source the result that it is, rounded, once it is multiplied by one of the factors.
        Where rounding explains more than one pair, the nearest comes first."""
        by_count, tries = _by_count(self.free), Tries()
        for source in list(self.waiting):
            scaled = [source.times(factor) for factor in factors]
            free = list(tries.of(by_count[source.count])) if scaled else []
            same = [(each, result) for result in free for each in scaled if is_rounded(each, result)]
            if same:
                _, best = min(same, key=lambda pair: _distance(*pair))
                by_count[source.count].remove(best)
                self._take(how, source, best)

    def split(self) -> None:
        """Tensors that were cut into equal parts: the gates of a recurrent layer."""
        for source in self.waiting[:MOST_WHOLES]:
            for parts in _parts_of(source, self.free):
                self._take("split", source, *parts)
                break

    def join(self) -> None:
        """Tensors that were put together into one."""
        for result in self.free[:MOST_WHOLES]:
            for parts in _parts_of(result, self.waiting):
                self.free.remove(result)
                self._took("joined", parts)
                break

    def fold(self, norms: Sequence[Norm]) -> None:
        """Kernels whose channels were multiplied by numbers, and the normalisations that those numbers came from."""
        turned = any(min(form.scale[-3:], default=0.0) < 0 for norm in norms for form in norm.forms)
        scales = list(self._fold_kernels(norms, turned))
        names, by_count, tries = {print.name: print for print in self.waiting}, _by_count(self.free), Tries(MOST_FOLDS)
        for norm in norms:
            members = [names[name] for name in norm.members if name in names]
            became = (
                _became(form, norm.length, scales, by_count[norm.length])
                for form in norm.forms
                if members and tries.allow(len(scales) + len(by_count[norm.length]) * (1 + len(form.shifts)))
            )
            vectors = next((found for found in became if found is not None), None)
            if vectors is None and members and (not norm.certain or tries.left < 0):
                self.unexplained.add(norm.length)
            if vectors is not None:
                bias = _bias_in(norm, vectors)
                self._took("folded", [*members, *([names[bias]] if bias in names else [])])
                names.pop(bias, None)
                for vector in set(vectors):
                    self.free.remove(vector)
                    by_count[norm.length].remove(vector)

    def _fold_kernels(self, norms: Sequence[Norm], turned: bool) -> Iterator[Scaling]:
        """Only those whose numbers a normalisation explains: by anything else a kernel must not have grown."""
        by_count, tries, forms = _by_count(self.free), Tries(MOST_FOLDS), _forms(norms)
        for source in list(self.waiting):
            if forms.keys().isdisjoint(axis.length for axis in source.axes):
                continue
            for result in tries.of(by_count[source.count]):
                axes = ((first, second, result) for first, second in folded_axes(source, result, turned))
                if explained := [scaling for scaling in axes if _is_explained(scaling, forms, tries)]:
                    by_count[source.count].remove(result)
                    self._take("folded", source, result)
                    yield from explained
                    break

    def set_aside_neutral(self) -> None:
        """Zeros and ones, unless a tensor of their shape is in the result that is nobody's, and could be they with a
        fault."""
        faulty = {result.lengths for result in self.free if not result.is_uniform}
        self.set_aside("neutral", lambda source: source.is_neutral and source.lengths not in faulty)

    def set_aside(self, how: str, which: Callable[[Print], bool]) -> None:
        self._took(how, [source for source in self.waiting if which(source)])

    def _take(self, how: str, source: Print, *results: Print) -> None:
        self._took(how, [source])
        for result in results:
            self.free.remove(result)
        self.used.extend(results)

    def _took(self, how: str, sources: Sequence[Print]) -> None:
        for source in sources:
            self.waiting.remove(source)
            self.found[how].append(source.name)


@dataclass
class Tries:
    """How many pairs one pass may still look at: very many tensors of one size would take hours."""

    left: int = MOST_PAIRS

    def allow(self, pairs: int = 1) -> bool:
        self.left -= pairs
        return self.left >= 0

    def of(self, prints: Sequence[Print]) -> Iterator[Print]:
        """These, as long as pairs are left."""
        return (each for each in prints if self.allow())


def _first_of_its_lengths(source: Print, alikes: Iterator[Print]) -> Print | None:
    first = None
    for result in alikes:
        if result.lengths == source.lengths:
            return result
        first = first or result
    return first


def _by_count(prints: Sequence[Print]) -> defaultdict[int, list[Print]]:
    found: defaultdict[int, list[Print]] = defaultdict(list)
    for each in prints:
        found[each.count].append(each)
    return found


def _distance(source: Print, result: Print) -> float:
    return sum(abs(a - b) for a, b in zip(source.quantiles, result.quantiles, strict=False))


def _parts_of(whole: Print, prints: Sequence[Print]) -> Iterator[tuple[Print, ...]]:
    """Equally large tensors that together hold the values of this one."""
    if whole.total is None or whole.is_uniform or whole.is_coarse:
        return
    for number in PARTS:
        same = [(print, print.total) for print in prints if print.count * number == whole.count]
        known = [(print, total) for print, total in same if total is not None]
        for parts in islice(combinations(known, number), MOST_TRIES):
            if sum(total for _, total in parts) % 2**64 == whole.total:
                yield tuple(print for print, _ in parts)


def _became(form: Form, length: int, scales: Sequence[Scaling], free: Sequence[Print]) -> list[Print] | None:
    """The tensors that hold both parts of a normalisation: its scale, unless a kernel has it, and its shift, unless it
    has none. None where one is missing."""
    vectors = [print for print in free if print.count == length]
    inside = any(_scaled_by(form, first, second, result) for first, second, result in scales if first.length == length)
    scale = [vector for vector in vectors if is_vector(form.scale, vector)]
    shifts = [shift for shift in form.shifts if any(shift[-3:])]
    added = [vector for vector in vectors if any(is_vector(shift, vector, form.slack) for shift in shifts)]
    if not (inside or scale) or (shifts and not added):
        return None
    return scale[: not inside] + added[:1]


def _bias_in(norm: Norm, vectors: Sequence[Print]) -> str:
    """The name of the bias that went into the shift, where one did."""
    told = (
        (name, shift, form) for form in norm.forms for name, shift in zip(norm.biases, form.shifts[1:], strict=False)
    )
    found = (name for name, shift, form in told if any(is_vector(shift, vector, form.slack) for vector in vectors))
    return next(found, "")


def _forms(norms: Sequence[Norm]) -> dict[int, list[Form]]:
    """What normalisations of each length may have become."""
    found: defaultdict[int, list[Form]] = defaultdict(list)
    for norm in norms:
        found[norm.length] += norm.forms
    return dict(found)


def _is_explained(scaling: Scaling, forms: Mapping[int, Sequence[Form]], tries: Tries) -> bool:
    some = forms.get(scaling[0].length, ())
    return any(_scaled_by(form, *scaling) for form in some if tries.allow())


def _scaled_by(form: Form, source: Axis, result: Axis, holder: Print) -> bool:
    """Has the norm of every slice grown by the scale? Logarithms, so that projections of them can be subtracted. A
    scale that is nowhere negative turns no sign."""
    near = folding(holder) * max(1.0, *map(abs, source.lean))
    turns = any(abs(a - b) > near for a, b in zip(source.lean, result.lean, strict=False))
    if turns and min(form.scale[-3:], default=0.0) >= 0:
        return False
    grown = [after - before for before, after in zip(source.size, result.size, strict=False)]
    allowed = folding(holder) * max(1.0, *map(abs, (*source.size, *result.size)))
    return len(grown) == len(form.size) and all(abs(a - b) <= allowed for a, b in zip(grown, form.size, strict=True))


# What is said -----------------------------------------------------------------------------------------------------


def _said(book: Book) -> Check:
    tensors = len(book.waiting) + sum(map(len, book.found.values()))
    counts = {how: len(names) for how, names in book.found.items() if names}
    changed = _changed(book)
    left = [*book.found.pop("reordered", []), *(print.name for print in book.waiting)]
    data: dict[str, Any] = {"tensors": tensors, **counts, "unmatched": left[:MOST_NAMES], "extra": len(book.free)}
    if changed:
        sentence = f"The weights differ: {_listed(changed)} {_is(changed)} there with other values."
        return Check("weights", False, sentence, data)
    told = ", ".join(f"{counts[how]} {words}" for how, words in HOW.items() if how in counts and how != "reordered")
    if not left:
        return Check("weights", True, f"All {tensors} weight tensors are accounted for: {told}.", data)
    known = f" ({told})" if told else ""
    sentence = (
        f"{tensors - len(left)} of {tensors} weight tensors are accounted for{known}. The values must prove"
        f" {_listed(left)}, which {_is(left)} not there as such."
    )
    return Check("weights", None, sentence, data)


HOW = {
    "exact": "bit for bit",
    "rearranged": "transposed or reshaped",
    "shared": "stored once for several",
    "rounded": "rounded",
    "split": "cut into parts",
    "joined": "joined with others",
    "folded": "folded into others",
    "neutral": "of zeros or ones, which nothing keeps",
}


def _listed(names: Sequence[str]) -> str:
    more = f" and {len(names) - SHOWN_NAMES} more" if len(names) > SHOWN_NAMES else ""
    return ", ".join(names[:SHOWN_NAMES]) + more


def _is(names: Sequence[str]) -> str:
    return "is" if len(names) == 1 else "are"


def _changed(book: Book) -> list[str]:
    """The tensors that are in the result with a fault for certain: those of which most values are there bit for bit and
    some are not, tables whose rows have another order, and kernels where one tensor of the result, and no other of the
    source, has their shape."""
    mostly = [source for source in book.waiting if any(is_mostly(source, result) for result in _like(source, book))]
    tables = [name for name in book.found.get("reordered", ()) if TABLE in name.lower()]
    return list(dict.fromkeys([*tables, *(source.name for source in mostly), *_nearly(book)]))


def _like(source: Print, book: Book) -> Iterator[Print]:
    """The tensors of the result that are nobody's and have as many values."""
    return (result for result in book.free if result.count == source.count)


def _nearly(book: Book) -> list[str]:
    """The kernels with values that are nearly their own."""
    others = Counter(source.lengths for source in book.waiting)
    same: defaultdict[tuple[int, tuple[int, ...]], list[Print]] = defaultdict(list)
    for result in book.free:
        same[result.count, result.lengths].append(result)
    alone = [(source, same[source.count, source.lengths]) for source in book.waiting if others[source.lengths] == 1]
    known = [(source, results[0]) for source, results in alone if len(results) == 1]
    known = [(source, result) for source, result in known if book.unexplained.isdisjoint(source.lengths)]
    return [source.name for source, result in known if _is_changed(source, result)]


def _is_changed(source: Print, result: Print) -> bool:
    """Nothing but scaling is ever done to a kernel; and yet its values are nearly its own. What a format rounds
    coarsely is left to the values, and so is a sign: where a sum became a difference, a converter may turn it."""
    if len(source.lengths) < 2 or not source.finite or not result.finite:
        return False
    if not any(word in source.name.lower() for word in WORKINGS) or source.is_uniform:
        return False
    if result.is_coarse or source.is_coarse:
        return False
    return is_nearly(source, result, NEARLY)


def architecture_check(source: Seen, result: Seen) -> Check:
    """Values follow from layers, connections and weights; running a large model would take more than it shows."""
    if source.architecture != result.architecture:
        sentence = "The layers are described in other words, and the model is too large to compare its values."
        return Check("architecture", None, sentence)
    if source.weights != result.weights:
        return Check("architecture", False, "The weights are not in the same places of the layers.")
    sentence = "The layers and their connections are the same. The model is too large to compute values for the proof."
    return Check("architecture", True, sentence, {"sha256": source.architecture})


def bits_check(source: Seen, result: Seen, values: Check, given: bool) -> Check | None:
    """None unless layers that Keras reads on both sides, with the same weights, are described in other words, and give
    values that are only nearly the same: a number among their settings may be another one. Where somebody else made the
    file (``given``) the words are enough, since values show a setting only where an input reaches it."""
    nearly = any(item["max_abs"] for item in values.data.get("outputs", ()))
    if not values.passed or not source.layers or not result.layers or source.layers == result.layers:
        return None
    said = "The layers are described in other words, and "
    if nearly:
        said += "their values are not the same to the last bit, as they should be where Keras computes both with the"
        return Check("architecture", None, f"{said} same weights.")
    if not given:
        return None
    return Check("architecture", None, f"{said}that their values are the same is known of these inputs alone.")
