"""Inputs and outputs by name, shape and dtype: which of the result stands for which of the source."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

from worker.formats._format import TensorSpec
from worker.report import Check
from worker.verify.seen import Seen, Shape, Terms


def pair(source: Sequence[TensorSpec], result: Sequence[TensorSpec]) -> dict[str, str] | None:
    """Which name of the result stands for which of the source: the same names, else the same places, else None.

    By place only where count, shapes and dtypes agree, because two inputs that are swapped go unnoticed otherwise.
    """
    if len(source) != len(result):
        return None
    names = [spec.name for spec in source]
    if set(names) == {spec.name for spec in result}:
        return {name: name for name in names}
    both = list(zip(source, result, strict=True))
    if all(_same_shape(a.shape, b.shape) and a.dtype == b.dtype for a, b in both):
        return {a.name: b.name for a, b in both}
    return None


def _same_shape(source: Shape, result: Shape) -> bool:
    """Does the result accept every shape that the source does?"""
    if source is None or result is None:
        return True
    return len(source) == len(result) and all(b is None or a == b for a, b in zip(source, result, strict=True))


def pair_outputs(source: Seen, result: Seen) -> dict[str, str] | None:
    """The same of what two models give."""
    return pair(_settled(source), result.outputs)


def _settled(source: Seen) -> tuple[TensorSpec, ...]:
    """The outputs of the source, with a size for each free one that all of its answers had: a converter that follows
    the operations finds sizes that the source leaves open. Whether inputs stay free is asked of them."""
    shown = {
        spec.name: [draw[spec.name].shape for draw in source.values if spec.name in draw] for spec in source.outputs
    }
    return tuple(replace(spec, shape=_with_sizes(spec.shape, shown[spec.name])) for spec in source.outputs)


def _with_sizes(declared: Shape, shown: Sequence[tuple[int, ...]]) -> Shape:
    if declared is None or len(shown) < 2 or any(len(shape) != len(declared) for shape in shown):
        return declared
    sizes = [set(place) for place in zip(*shown, strict=True)]
    return tuple(
        min(found) if size is None and len(found) == 1 else size for size, found in zip(declared, sizes, strict=True)
    )


def interface_checks(source: Seen, result: Seen, terms: Terms) -> Iterator[Check]:
    inputs, outputs = pair(source.inputs, result.inputs), pair_outputs(source, result)
    yield _names_check(source, result, terms, inputs, outputs)
    if inputs is None or outputs is None:
        return
    pairs = [*_specs(source.inputs, result.inputs, inputs), *_specs(source.outputs, result.outputs, outputs)]
    known = [*source.inputs, *_settled(source)]
    fine = [
        _same_shape(a.shape, _any_rows(b.shape) if terms.one_row else b.shape)
        for a, (_, b) in zip(known, pairs, strict=True)
    ]
    unlike = [both for both, same in zip(pairs, fine, strict=True) if not same]
    shapes = [f"{a.name} was {show(a.shape)} and is {show(b.shape)}" for a, b in unlike]
    changed = [(a, b) for a, b in pairs if b.dtype not in (a.dtype, terms.narrows.get(a.dtype))]
    dtypes = [f"{a.name} was {a.dtype} and is {b.dtype}" for a, b in changed]
    if terms.one_row and not shapes:
        yield Check("shapes", True, "The result takes one row at a time; apart from that all shapes are the same.")
    else:
        yield _agreement("shapes", shapes)
    yield _agreement("dtypes", dtypes)


def further_check(source: Seen, result: Seen) -> Check | None:
    """None unless the result can be called in a way that the source has nothing like."""
    names = [name for name in result.further if name not in source.further]
    if not names:
        return None
    listed = ", ".join(names)
    sentence = f"The result has further signatures, which the source has not and nothing was compared with: {listed}."
    return Check("signatures", None, sentence, {"further": names})


def _any_rows(shape: Shape) -> Shape:
    """The shape of one row as a shape of any number of rows."""
    return (None, *shape[1:]) if shape and shape[0] == 1 else shape


def _specs(
    source: Sequence[TensorSpec], result: Sequence[TensorSpec], names: Mapping[str, str]
) -> Iterator[tuple[TensorSpec, TensorSpec]]:
    by_name = {spec.name: spec for spec in result}
    yield from ((spec, by_name[names[spec.name]]) for spec in source)


def _names_check(
    source: Seen,
    result: Seen,
    terms: Terms,
    inputs: Mapping[str, str] | None,
    outputs: Mapping[str, str] | None,
) -> Check:
    if inputs is None or outputs is None:
        before = ", ".join(spec.name for spec in (*source.inputs, *source.outputs))
        after = ", ".join(spec.name for spec in (*result.inputs, *result.outputs))
        return Check("names", False, f"Inputs and outputs do not correspond: {before} became {after}.")
    moved = _moved(source.outputs, result.outputs) or _moved(source.inputs, result.inputs)
    if moved and terms.in_order:
        return Check("names", False, f"They stand in another order, which people go by: {moved}.")
    renamed = {old: new for old, new in (*inputs.items(), *outputs.items()) if old != new}
    if not renamed:
        return Check("names", True, "All inputs and outputs have the same names.")
    listed = ", ".join(f"{old} is now {new}" for old, new in renamed.items())
    return Check("names", True, f"Renamed, and matched by place: {listed}.", {"renamed": renamed})


def _moved(source: Sequence[TensorSpec], result: Sequence[TensorSpec]) -> str:
    """The names in both orders, where the same names stand in another one; Keras calls and fits models by order."""
    before, after = [spec.name for spec in source], [spec.name for spec in result]
    if before == after or set(before) != set(after):
        return ""
    return f"{', '.join(before)} became {', '.join(after)}"


def _agreement(name: str, disagreements: list[str]) -> Check:
    if disagreements:
        return Check(name, False, f"The {name} differ: {'; '.join(disagreements)}.")
    return Check(name, True, f"All inputs and outputs have the same {name}.")


def show(shape: Shape) -> str:
    return (
        "of any rank" if shape is None else "×".join("?" if size is None else str(size) for size in shape) or "a scalar"
    )
