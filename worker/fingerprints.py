"""The fingerprint of a weight tensor: what is left of it however a format stores it. Runs inside jobs; NumPy alone.

It is plain JSON of about a kilobyte. Its digest of the sorted values survives names, transposes and reshapes; its
quantiles lie no further from those of a rounded tensor than one value does from its rounded one; and what it says of
each axis survives that every channel of that axis is multiplied by a number of its own, as converters fold a
BatchNormalization into the layer before it. ``worker.verify.prints`` reads it again, as data from a stranger.
"""

from __future__ import annotations

import hashlib
import math
import re
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy.typing as npt

    from worker.formats._format import Scales

    Array = npt.NDArray[Any]

Json = dict[str, Any]
QUANTILES = 33
BLOCK = 2**16  # values that are looked at together, in float64
MOST_AXES = 6
LONG_AXIS = 2**16  # an axis beyond this is looked at where what is kept of it is small beside the tensor
PROJECTIONS = 2
DIRECTIONS = 8445 * 2**40  # where the hashes begin: the first ones of both directions lie well apart
DIGITS = 9  # of a float32
SINGLE = 1e-6  # relative: what some operations in float32 make of a number
SAMPLE = 8  # different values that are kept of a tensor, always the same ones where it has them
SPREADING = 0x9E3779B1  # what the bits of a value are multiplied with, so that no kind of value is kept rather


def fingerprint(name: str, array: Any, step: float = 0.0) -> Json:
    """One tensor as plain JSON. ``step``: the distance between two numbers that its format can store, where that is
    the same everywhere. Takes the memory of the tensor once more; float64 stays float64, all other floats are told
    as float32, so that float16 and what was made of it exactly are the same.
    """
    import numpy as np

    plain = np.ascontiguousarray(array)
    own: Json = {"name": name, "dtype": str(array.dtype), "shape": list(array.shape), "count": int(array.size)}
    own |= {
        "sha256": hashlib.sha256(
            plain.view(np.uint8).data if plain.ndim and plain.size else plain.tobytes()
        ).hexdigest()
    }
    values = _canonical(plain)
    shape = [size for size in array.shape if size != 1] if values.size == array.size else []
    axes = _axes(values.reshape(shape or -1))
    values.sort()
    return own | _sorted(values) | axes | {"step": float(step)}


def of_weights(weights: Iterable[tuple[str, Any]], steps: Mapping[str, float], scales: Scales | None = None) -> Json:
    """All that is told of a model's weights, one tensor at a time; of short vectors, what normalisations become.

    ``scales``: None for a result, of which nothing becomes anything."""
    tensors: list[Json] = []
    vectors: list[tuple[str, Any]] = []
    for name, array in weights:
        tensors.append(fingerprint(name, array, steps.get(name, 0.0)))
        vectors.append((name, array if array.ndim == 1 and array.size <= LONG_AXIS else None))
    if scales is None:
        return {"tensors": tensors, "normalisations": [], "factors": []}
    norms = list(normalisations(vectors, scales))
    return {"tensors": tensors, "normalisations": norms, "factors": list(scales.factors)}


def of_model(weights: Iterable[tuple[str, Any]]) -> str:
    """One digest of all weights that are numbers with a point and more than one: the same for the same model in every
    format that keeps them whole. Empty where there are none."""
    found = sorted(f"{count}:{digest}" for count, digest in _digests(weights))
    return hashlib.sha256("\n".join(found).encode()).hexdigest() if found else ""


def _digests(weights: Iterable[tuple[str, Any]]) -> Iterator[tuple[int, str]]:
    for _, array in weights:
        if array.dtype.kind in "fV" and array.size > 1:
            values = _canonical(array)
            values.sort()
            yield int(array.size), _digest(values)


def _canonical(array: Any) -> Array:
    """A flat copy in float32, or in the type that its values need; one zero, and complex numbers as two."""
    import numpy as np

    kind = array.dtype.kind
    if kind in "fV":
        values: Array = np.array(array, "float64" if array.dtype == np.float64 else "float32").reshape(-1)
        return np.add(values, 0.0, out=values)  # makes -0.0 what it is equal to
    if kind == "c":
        return _canonical(array.reshape(-1).view(array.real.dtype))
    return np.array(array, "int64" if kind in "iub" else array.dtype).reshape(-1)


# The values, wherever they stand -----------------------------------------------------------------------------------


def _sorted(values: Array) -> Json:
    """Of sorted values: their digest, their quantiles, and the largest magnitude."""
    import numpy as np

    places = np.linspace(0, max(values.size - 1, 0), QUANTILES).round().astype("int64")
    numbers = values[places] if values.size and values.dtype.kind in "fi" else np.zeros(QUANTILES)
    finite = bool(np.isfinite(numbers[[0, -1]]).all())  # sorted: what is not a number stands at the ends
    ends = np.abs(numbers[[0, -1]].astype("float64")).max() if finite else 0.0
    return {
        "values": _digest(values),
        "finite": finite,
        "quantiles": _short(numbers if finite else np.zeros(QUANTILES)),
        "largest": float(ends),
    } | _sampled(values)


def _sampled(values: Array) -> Json:
    """How many different values there are, and the marks of a few: those with the smallest of all marks, so that two
    tensors that have most of their values in common have most of these in common."""
    import numpy as np

    if values.dtype.kind not in "fi" or not values.size:
        return {"different": 0, "sample": []}
    first = np.ones(values.size, bool)
    np.not_equal(values[1:], values[:-1], out=first[1:])
    bits = values[first].view({4: "uint32", 8: "uint64"}[values.itemsize])
    marks = (bits ^ (bits >> np.uint64(32))).astype("uint32") if bits.itemsize == 8 else bits
    marks = marks * np.uint32(SPREADING)
    least = np.partition(marks, SAMPLE)[:SAMPLE] if marks.size > SAMPLE else marks
    return {"different": int(marks.size), "sample": np.sort(least).tolist()}


def _digest(values: Array) -> str:
    import numpy as np

    if values.dtype.kind == "f" and values.size and np.isnan(values[-1]):  # sorted to the end, with whatever bits
        values[np.isnan(values)] = np.nan
    digest = hashlib.sha256(values.dtype.char.encode())
    digest.update(values.data if values.dtype.kind in "fi" else values.tobytes())
    return digest.hexdigest()


def _short(numbers: Any) -> list[float]:
    """Rounded to the digits of a float32; nothing for what is no number, which JSON does not have."""
    return [float(f"{number:.{DIGITS}g}") if math.isfinite(number) else 0.0 for number in map(float, numbers)]


# Where they stand --------------------------------------------------------------------------------------------------


def _axes(values: Array) -> Json:
    """What survives a transpose: of every axis longer than one, sums over the others; and of neighbours together, as a
    reshape joins them. ``total`` is the sum of one hash for each value: that of tensors that are joined is the sum of
    theirs."""
    import numpy as np

    if values.dtype.kind not in "fi" or not values.size or values.ndim > MOST_AXES:
        return {"total": "", "axes": [], "merged": []}
    single = [(axis,) for axis, size in enumerate(values.shape) if size <= max(LONG_AXIS, values.size // 8)]
    pairs = [(axis, axis + 1) for axis in range(values.ndim - 1) if 3 <= values.ndim <= 4]
    pairs = [pair for pair in pairs if math.prod(values.shape[axis] for axis in pair) <= LONG_AXIS]
    with np.errstate(all="ignore"):
        hashes, first = _sums(values, [(), *single, *pairs], _hashed), _sums(values, [*single, *pairs], _wide)
        second, fourth = _sums(values, single, _squared), _sums(values, single, lambda block: _squared(block) ** 2)
        axes = [_axis(hashes[key], first[key], second[key], fourth[key], values.size) for key in single]
        for (axis,), told in zip(single, axes, strict=True):
            told["shares"] = _shares(values, axis, single, second[axis,])
        merged = [_place(hashes[pair], first[pair], values.size) for pair in pairs]
    return {"total": f"{int(hashes[()]):016x}", "axes": axes, "merged": merged}


def _wide(block: Array) -> Array:
    wide: Array = block.astype("float64")
    return wide


def _squared(block: Array) -> Array:
    squares: Array = _wide(block) ** 2
    return squares


def _sums(values: Array, keys: list[Any], of: Callable[[Array], Array]) -> dict[tuple[int, ...], Array]:
    """What ``of`` makes of each value, summed over all axes but those of each key."""
    import numpy as np

    found: dict[tuple[int, ...], Array] = {}
    for start, block in _blocks(values, (0,) * values.ndim):
        for key, summed in _summed(of(block), keys):
            if key not in found:
                found[key] = np.zeros([values.shape[axis] for axis in key], summed.dtype)
            found[key][tuple(slice(start[axis], start[axis] + block.shape[axis]) for axis in key)] += summed
    return found


def _summed(made: Array, keys: Iterable[tuple[int, ...]]) -> Iterator[tuple[tuple[int, ...], Array]]:
    """For each key the sum over all axes but its own: as far as possible from the sums over the first half of the axes
    and over the second, since summing over one axis of two is many times faster than over axes in between."""
    import numpy as np

    half, every = made.ndim // 2, range(made.ndim)
    flat = made.reshape(math.prod(made.shape[:half]), -1)
    front: Array = np.add.reduce(flat, axis=1).reshape(made.shape[:half])
    back: Array = np.add.reduce(flat, axis=0).reshape(made.shape[half:])
    for key in keys:
        left = tuple(axis for axis in every if axis not in key)
        if all(axis < half for axis in key):
            yield key, np.add.reduce(front, axis=tuple(axis for axis in left if axis < half))
        elif all(axis >= half for axis in key):
            yield key, np.add.reduce(back, axis=tuple(axis - half for axis in left if axis >= half))
        else:
            yield key, np.add.reduce(made, axis=left)


def _blocks(values: Array, start: tuple[int, ...], axis: int = 0) -> Iterator[tuple[tuple[int, ...], Array]]:
    """Parts of at most ``BLOCK`` values with all their axes, and where each begins."""
    length = values.shape[axis]
    rows = max(1, BLOCK * length // values.size)
    for first in range(0, length, rows):
        part = values[(slice(None),) * axis + (slice(first, first + rows),)]
        place = (*start[:axis], first, *start[axis + 1 :])
        if part.size > BLOCK and axis + 1 < values.ndim:
            yield from _blocks(part, place, axis + 1)
        else:
            yield place, part


def _shares(values: Array, axis: int, single: list[tuple[int]], squares: Array) -> list[list[float]]:
    """How the squares of an axis's slices, each divided by its sum, spread along the other axes: length and projections
    of each. A number for every slice changes nothing of it, another order within the slices does."""
    import numpy as np

    found = {key: np.zeros(values.shape[key[0]]) for key in single if key != (axis,)}
    weights = np.divide(1, squares, out=np.zeros_like(squares), where=squares > 0)
    for start, block in _blocks(values, (0,) * values.ndim) if found else ():
        own = weights[start[axis] : start[axis] + block.shape[axis]]
        parts = _squared(block) * own.reshape([-1 if place == axis else 1 for place in range(block.ndim)])
        for (other,), summed in _summed(parts, found):
            sums = found[other,]
            sums[start[other] : start[other] + block.shape[other]] += summed
    return [[len(sums), *_short(_projected(sums * len(sums) / values.shape[axis]))] for sums in found.values()]


def _hashed(values: Array) -> Array:
    """64 bits for each value, by the finaliser of SplitMix64 (https://doi.org/10.1145/2660193.2660195)."""
    import numpy as np

    bits = {4: "uint32", 8: "uint64"}[values.itemsize]
    mixed: Array = np.ascontiguousarray(values).view(bits).astype("uint64")
    mixed += np.uint64(0x9E3779B97F4A7C15)
    for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):
        mixed ^= mixed >> np.uint64(shift)
        mixed *= np.uint64(factor)
    mixed ^= mixed >> np.uint64(31)
    return mixed


def _axis(hashes: Array, first: Array, second: Array, fourth: Array, count: int) -> Json:
    """What is kept of an axis beside its place. It does not change where each slice is multiplied by a number:
    ``lean``, how far its mean is from zero; ``side``, the same without its sign; ``peak``, its fourth moment. To
    ``size``, the logarithm of its norm, that of the number is added."""
    import numpy as np

    many = count // len(hashes)
    lean = np.divide(first, np.sqrt(second), out=np.zeros_like(first), where=second > 0)
    peak = np.divide(many * fourth, second * second, out=np.zeros_like(first), where=second > 0)
    size = np.log(second, out=np.zeros_like(second), where=second > 0) / 2
    numbers = {"lean": lean, "side": np.abs(lean), "peak": peak, "size": size}
    return _place(hashes, first, count) | {name: _short(_projected(vector)) for name, vector in numbers.items()}


def _place(hashes: Array, first: Array, count: int) -> Json:
    """Of one axis, or of two that are taken together: a digest of its slices in their order, and ``mean``, what their
    means show, which hardly changes where every value is rounded."""
    digest = hashlib.sha256(hashes.tobytes()).hexdigest()[:16]
    means = first.reshape(-1) * (first.size / count)
    return {"length": int(hashes.size), "digest": digest, "mean": _short(_projected(means))}


def _projected(vector: Array) -> Array:
    """The vector seen from two directions that are always the same: of the size of one of its values."""
    import numpy as np

    rows = np.arange(PROJECTIONS, dtype="int64")[:, np.newaxis] * 2**32 + DIRECTIONS
    places = rows + np.arange(vector.size, dtype="int64")
    directions = (_hashed(places) >> np.uint64(11)).astype("float64") * 2.0**-52 - 1  # from -1 to 1
    projected: Array = directions @ np.nan_to_num(vector) * np.sqrt(3 / vector.size)
    return projected


# What converters make of a normalisation ---------------------------------------------------------------------------

EPSILONS = (1e-2, 1e-3, 1e-4, 2e-5, 1.001e-5, 1e-5, 1e-6, 0.0)  # those that libraries and published models have
MOST_BIASES = 4  # before a normalisation; branches of a model stand side by side
STATISTICS = ("moving_mean", "moving_variance")
LAST = re.compile(r"[/.]?([A-Za-z_]+?)(_\d+)?(:0)?$")


def normalisations(weights: Iterable[tuple[str, Any]], scales: Scales) -> Iterator[Json]:
    """What becomes of each BatchNormalization in a finished graph: a scale and a shift, told for every epsilon that it
    may have; ``certain`` where one of those given is its own. Of a Normalization, the root of its variance. Keeps the
    vectors of one layer at a time. A layer that multiplies the inputs of the one before it goes into the scale too."""
    layer: dict[str, tuple[str, Array]] = {}
    biases: deque[tuple[str, Array]] = deque(maxlen=MOST_BIASES)
    place = ""
    for name, array in weights:
        kind, scope = _kind(name)
        if scope != place or kind in layer:
            yield from _of_layer(layer, biases, scales)
            biases.extend(vector for kind_before, vector in layer.items() if kind_before == "bias")
            layer, place = {}, scope
        if array is not None and array.ndim == 1 and array.dtype.kind == "f":
            layer[kind] = name, array.astype("float64")
    yield from _of_layer(layer, biases, scales)


def _kind(name: str) -> tuple[str, str]:
    """``conv/norm/gamma:0`` as its last word and what stands before it."""
    found = LAST.search(name)
    return (found[1].lower(), name[: found.start()]) if found else (name, "")


def _of_layer(layer: dict[str, tuple[str, Array]], biases: Iterable[tuple[str, Array]], told: Scales) -> Iterator[Json]:
    import numpy as np

    vectors = {kind: array for kind, (_, array) in layer.items()}
    names = [name for kind, (name, _) in layer.items() if kind != "bias"]
    if all(kind in vectors for kind in STATISTICS) and len({len(array) for array in vectors.values()}) == 1:
        mean, variance = (vectors[kind] for kind in STATISTICS)
        gamma, beta = vectors.get("gamma", np.ones_like(mean)), vectors.get("beta", np.zeros_like(mean))
        added = {name: bias for name, bias in biases if len(bias) == len(mean)}  # of the layers before it
        with np.errstate(all="ignore"):
            scales = [gamma / np.sqrt(variance + epsilon) for epsilon in told.epsilons or EPSILONS]
            shifts = [[beta + (bias - mean) * scale for bias in (0, *added.values())] for scale in scales]
            pairs = list(zip(scales, shifts, strict=True))
            forms = [_form(factor * scale, shift) for factor in (1.0, *told.factors) for scale, shift in pairs]
        about = {"members": names, "biases": list(added), "length": len(mean), "certain": bool(told.epsilons)}
        yield {**about, "forms": forms}
    elif "variance" in vectors and "mean" in vectors:
        with np.errstate(all="ignore"):
            root = np.sqrt(vectors["variance"])
            forms = [_form(scale, []) for scale in (root, 1 / root, 1 / np.maximum(root, 1e-7))]
        about = {"members": [layer["variance"][0]], "biases": [], "length": len(root), "certain": True}
        yield {**about, "forms": forms}


def _form(scale: Array, shifts: list[Array]) -> Json:
    """A scale and what may be added after it; ``slack`` is how far rounding may move that."""
    import numpy as np

    size = np.log(np.abs(scale), out=np.zeros_like(scale), where=scale != 0)
    terms = max(
        (float(np.abs(scale).max(initial=1.0) * np.abs(shift).max(initial=1.0)) for shift in shifts), default=0.0
    )
    return {
        "size": _short(_projected(size)),
        "scale": _vector(scale),
        "shifts": [_vector(shift) for shift in shifts],
        "slack": float(np.nan_to_num(terms * SINGLE)),
    }


def _vector(vector: Array) -> list[float]:
    """Two projections, then the least, the middle and the greatest value."""
    import numpy as np

    found = np.nan_to_num(vector)
    middle = np.sort(found)[round((len(found) - 1) / 2)]
    return _short(np.nan_to_num([*_projected(found), found.min(), middle, found.max()]))
