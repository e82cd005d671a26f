"""What the functions in a Lambda layer compute, as operations of Keras 3 on symbolic tensors and plain constants.

Arguments and defaults are those of TensorFlow 1.4 to 2.21, ``keras.backend`` of Keras 2 and ``keras.ops`` of Keras 3;
where Keras 3 would change a type on the way and TensorFlow does not, the function is refused. ``_lambda_names`` says
which names stand for these functions. Nothing here imports Keras before a function is called.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from worker.formats._marshalled import NotUnderstood

DTYPES = frozenset(
    "float16 bfloat16 float32 float64 int8 int16 int32 int64 uint8 uint16 uint32 uint64 bool".split()  # noqa: SIM905
)
LARGEST = 100_000  # of a size that a function is given: how often to repeat, how many classes


class Free:
    """A size that is only known while the model runs, such as that of the batch."""

    def __repr__(self) -> str:
        return "a size that is only known while the model runs"


FREE = Free()


def is_tensor(value: Any) -> bool:
    """Is this symbolic, as opposed to a constant? Constants are plain Python and NumPy arrays."""
    return hasattr(value, "dtype") and type(value).__name__ == "KerasTensor"


def _keras_ops() -> Any:
    from keras import ops

    return ops


# Single values --------------------------------------------------------------------------------------------------


def unary_operation(operation: str) -> Callable[..., Any]:
    def apply(x: Any) -> Any:
        if is_tensor(x):
            return getattr(_keras_ops(), operation)(x)
        return of_number(operation, x)

    return apply


OF_NUMBERS: dict[str, Callable[[float], float]] = {
    **{name: getattr(math, name) for name in ("sqrt", "exp", "log", "sin", "cos", "tanh", "floor", "ceil")},
    "square": lambda x: x * x,
    "abs": abs,
}


def of_number(operation: str, x: Any) -> Any:
    if operation not in OF_NUMBERS or isinstance(x, bool) or not isinstance(x, (int, float)):
        raise NotUnderstood(f"{operation} of a constant")
    try:
        return OF_NUMBERS[operation](x)
    except (ValueError, OverflowError) as error:
        raise NotUnderstood(f"{operation} of {x!r}") from error


def binary_operation(operation: str) -> Callable[..., Any]:
    return lambda x, y: combined(operation, x, y)


_ARITHMETIC = {"+": "add", "-": "subtract", "*": "multiply", "/": "true_divide", "//": "floor_divide"}
_ARITHMETIC |= {"%": "mod", "**": "power", "@": "matmul", "&": "logical_and", "|": "logical_or"}
_ARITHMETIC |= {
    "<": "less",
    "<=": "less_equal",
    "==": "equal",
    "!=": "not_equal",
    ">": "greater",
    ">=": "greater_equal",
}
_TRUTHS = frozenset({"less", "less_equal", "equal", "not_equal", "greater", "greater_equal"})


def operator(sign: str, first: Any, second: Any) -> Any:
    """What stands on both sides of an operator, put together as TensorFlow does."""
    if sign not in _ARITHMETIC:
        raise NotUnderstood(f"the operator {sign}")
    if not is_tensor(first) and not is_tensor(second):
        return _of_numbers(sign, first, second)
    return combined(_ARITHMETIC[sign], first, second)


def combined(operation: str, x: Any, y: Any) -> Any:
    """A binary operation on a tensor and a tensor or constant. TensorFlow never changes a type on the way."""
    if not is_tensor(x) and not is_tensor(y):
        raise NotUnderstood(f"{operation} of two constants")
    dtype = str((x if is_tensor(x) else y).dtype)
    first, second = (item if is_tensor(item) else _as_operand(item, dtype) for item in (x, y))
    if is_tensor(x) and is_tensor(y) and str(x.dtype) != str(y.dtype):
        raise NotUnderstood(f"{operation} of tensors of two types")
    if operation in ("true_divide", "power") and "int" in dtype:
        raise NotUnderstood(f"{operation} of whole numbers")
    if operation.startswith("logical") != (dtype == "bool") and operation not in ("equal", "not_equal"):
        raise NotUnderstood(f"{operation} of {dtype}")
    result = getattr(_keras_ops(), operation)(first, second)
    if operation not in _TRUTHS and str(result.dtype) != dtype:
        raise NotUnderstood(f"{operation} of {dtype}")
    return result


def _as_operand(value: Any, dtype: str) -> Any:
    """A constant beside a tensor takes the tensor's type, as TensorFlow does it."""
    if isinstance(value, (list, tuple)):
        return array(value, dtype)
    if dtype == "bool" and isinstance(value, bool):
        return value
    whole = isinstance(value, int) and not isinstance(value, bool)
    if whole or (isinstance(value, float) and "float" in dtype):
        return value
    if isinstance(value, _array_type()):
        return value.astype(dtype)
    raise NotUnderstood(f"{value!r} beside a tensor of {dtype}")


def _array_type() -> Any:
    import numpy as np

    return np.ndarray


def array(value: Any, dtype: Any = None) -> Any:
    """A list of numbers as an array of a type; a single number stays one."""
    import numpy as np

    if is_tensor(value) or isinstance(value, Free):
        raise NotUnderstood("a constant that is none")
    if isinstance(value, (bool, int, float)):
        return value
    try:
        found = np.asarray(value)
    except (ValueError, OverflowError) as error:
        raise NotUnderstood("a list that is no table of numbers") from error
    if found.dtype.kind not in "iuf" or found.size > LARGEST:
        raise NotUnderstood("a list that is no table of numbers")
    return _of_type(found, dtype or ("float32" if found.dtype.kind == "f" else "int32"))


def _of_type(found: Any, dtype: str) -> Any:
    """The array in another type; TensorFlow makes no whole numbers of fractions, and none that the type cannot hold."""
    made = found.astype(dtype)
    changed = made.dtype.kind in "iu" and (found.dtype.kind == "f" or bool((made != found).any()))
    if changed or made.dtype.kind not in "iufV":
        raise NotUnderstood(f"{_shown(found.tolist())} as {dtype}")
    return made


def _of_numbers(sign: str, first: Any, second: Any) -> Any:
    """Arithmetic on constants, in bounds: a size twice as large, a half of pi."""
    numbers = all(isinstance(item, (int, float)) and not isinstance(item, bool) for item in (first, second))
    if not numbers or sign not in _OF_TWO or (sign == "**" and abs(second) > 64):
        raise NotUnderstood(f"{_shown(first)} {sign} {_shown(second)}")
    try:
        value = _OF_TWO[sign](first, second)
    except (ZeroDivisionError, OverflowError) as error:
        raise NotUnderstood(f"{first!r} {sign} {second!r}") from error
    if not isinstance(value, (int, float)) or (isinstance(value, int) and abs(value) > 2**63):
        raise NotUnderstood(f"{first!r} {sign} {second!r}")
    return value


_OF_TWO: dict[str, Callable[[Any, Any], Any]] = {
    "+": lambda first, second: first + second,
    "-": lambda first, second: first - second,
    "*": lambda first, second: first * second,
    "/": lambda first, second: first / second,
    "//": lambda first, second: first // second,
    "%": lambda first, second: first % second,
    "**": lambda first, second: first**second,
}


def _shown(value: Any) -> str:
    return repr(value)[:60]


def unary(sign: str, value: Any) -> Any:
    """What stands behind a sign."""
    if is_tensor(value):
        if sign == "-" and str(value.dtype) != "bool":
            return _keras_ops().negative(value)
        if sign == "+":
            return value
    elif isinstance(value, (int, float)) and not isinstance(value, bool) and sign in "+-":
        return -value if sign == "-" else value
    raise NotUnderstood(f"the sign {sign}")


# Many values ----------------------------------------------------------------------------------------------------


def _axis(axis: Any) -> Any:
    """One axis, several, or None for all of them."""
    if isinstance(axis, (list, tuple)):
        return tuple(_whole(item) for item in axis)
    return None if axis is None else _whole(axis)


def _whole(value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int):
        raise NotUnderstood(f"{_shown(value)} where a whole number stands")
    return value


def _size(value: Any) -> int:
    if not 0 <= _whole(value) <= LARGEST:
        raise NotUnderstood(f"the size {value}")
    return int(value)


def _tensor(value: Any) -> Any:
    if not is_tensor(value):
        raise NotUnderstood("a constant where a tensor stands")
    return value


def _tensors(values: Any) -> list[Any]:
    if not isinstance(values, (list, tuple)) or not values:
        raise NotUnderstood("a tensor where several stand")
    found = [_tensor(value) for value in values]
    if len({str(value.dtype) for value in found}) > 1:
        raise NotUnderstood("tensors of several types put together")
    return found


def reduction(operation: str) -> Callable[..., Any]:
    def reduce(x: Any, axis: Any = None, keepdims: bool = False) -> Any:
        truths = operation in ("any", "all")
        if truths != (str(_tensor(x).dtype) == "bool") or ("int" in str(x.dtype) and operation not in ("max", "min")):
            raise NotUnderstood(f"{operation} of {x.dtype}")
        return getattr(_keras_ops(), operation)(x, axis=_axis(axis), keepdims=bool(keepdims))

    return reduce


def arg(operation: str, default: Any) -> Callable[..., Any]:
    """TensorFlow answers with int64, and looks along the first axis where none is named."""

    def find(x: Any, axis: Any = default) -> Any:
        ops = _keras_ops()
        return ops.cast(getattr(ops, operation)(_tensor(x), axis=0 if axis is None else _whole(axis)), "int64")

    return find


def concatenate(default: Any) -> Callable[..., Any]:
    def concatenate(values: Any, axis: Any = default) -> Any:
        return _keras_ops().concatenate(_tensors(values), axis=_whole(axis))

    return concatenate


def stack(values: Any, axis: Any = 0) -> Any:
    return _keras_ops().stack(_tensors(values), axis=_whole(axis))


def add_n(values: Any) -> Any:
    first, *rest = _tensors(values)
    for value in rest:
        first = combined("add", first, value)
    return first


def unstack(x: Any, num: Any = None, axis: Any = 0) -> Any:
    return list(_keras_ops().unstack(_tensor(x), num if num is None else _size(num), _whole(axis)))


def split(x: Any, parts: Any, axis: Any = 0) -> Any:
    """TensorFlow takes the sizes of the parts, keras.ops the places where they begin."""
    if isinstance(parts, (list, tuple)):
        sizes = [_size(item) for item in parts]
        places: Any = [sum(sizes[:count]) for count in range(1, len(sizes))]
    else:
        places = _size(parts)
    return list(_keras_ops().split(_tensor(x), places, _whole(axis)))


# Shapes ---------------------------------------------------------------------------------------------------------


def shape_of(x: Any) -> tuple[Any, ...]:
    return tuple(FREE if size is None else int(size) for size in _tensor(x).shape)


def static_shape(x: Any) -> tuple[Any, ...]:
    """``int_shape``: None where a size is free."""
    return tuple(_tensor(x).shape)


def rank(x: Any) -> int:
    return len(_tensor(x).shape)


def reshape(x: Any, shape: Any) -> Any:
    """One free size can be found from all others."""
    if not isinstance(shape, (list, tuple)):
        raise NotUnderstood("a shape that is only known while it runs")
    sizes = [-1 if item is None or isinstance(item, Free) else _whole(item) for item in shape]
    if sizes.count(-1) > 1:
        raise NotUnderstood("a shape with two sizes that are only known while it runs")
    return _keras_ops().reshape(_tensor(x), tuple(sizes))


def expand_dims(default: Any) -> Callable[..., Any]:
    def expand(x: Any, axis: Any = default) -> Any:
        return _keras_ops().expand_dims(_tensor(x), _axis(axis if axis is not None else default))

    return expand


def squeeze(x: Any, axis: Any = None) -> Any:
    if axis is None or axis == []:
        raise NotUnderstood("a squeeze of whatever axis is 1 while it runs")
    return _keras_ops().squeeze(_tensor(x), _axis(axis))


def transpose(x: Any, axes: Any = None) -> Any:
    return _keras_ops().transpose(_tensor(x), None if axes is None else _axis(list(axes)))


def batch_flatten(x: Any) -> Any:
    sizes = _tensor(x).shape[1:]
    if None in sizes:
        raise NotUnderstood("a flattening of sizes that are only known while it runs")
    return _keras_ops().reshape(x, (-1, math.prod(sizes)))


def flatten(x: Any) -> Any:
    return _keras_ops().reshape(_tensor(x), (-1,))


def tile(x: Any, repeats: Any) -> Any:
    if not isinstance(repeats, (list, tuple)) or len(repeats) != len(_tensor(x).shape):
        raise NotUnderstood("how often it is repeated")
    return _keras_ops().tile(x, [_size(item) for item in repeats])


def repeat(x: Any, repeats: Any, axis: Any = None) -> Any:
    return _keras_ops().repeat(_tensor(x), _size(repeats), axis=_whole(axis))


def repeat_vector(x: Any, repeats: Any) -> Any:
    """``K.repeat``: a row becomes a sequence of itself."""
    return _keras_ops().repeat(_keras_ops().expand_dims(_tensor(x), 1), _size(repeats), axis=1)


def reverse(x: Any, axis: Any) -> Any:
    return _keras_ops().flip(_tensor(x), axis=_axis(axis))


def roll(x: Any, shift: Any, axis: Any) -> Any:
    return _keras_ops().roll(_tensor(x), _axis(shift), axis=_axis(axis))


def gather(x: Any, indices: Any, *, axis: Any = 0) -> Any:
    """TensorFlow has another argument before the axis."""
    if not is_tensor(indices):
        indices = array(indices, "int32")
    return _keras_ops().take(_tensor(x), indices, axis=_whole(axis))


def cut(x: Any, begin: Any, size: Any) -> Any:
    """``tf.slice``: from, and how many; -1 is all that is left."""
    if not isinstance(begin, (list, tuple)) or not isinstance(size, (list, tuple)) or len(begin) != len(size):
        raise NotUnderstood("a slice that is only known while it runs")
    pairs = [(_whole(start), _whole(count)) for start, count in zip(begin, size, strict=True)]
    return indexed(x, tuple(slice(start, None if count == -1 else start + count) for start, count in pairs))


def indexed(x: Any, key: Any) -> Any:
    """What stands between square brackets: whole numbers, slices of them, new axes."""
    keys = key if isinstance(key, tuple) else (key,)
    for item in keys:
        parts = (item.start, item.stop, item.step) if isinstance(item, slice) else (item,)
        if not all(part is None or part is Ellipsis or type(part) is int for part in parts):
            raise NotUnderstood("an index that is only known while it runs")
    return _keras_ops().get_item(_tensor(x), key)


def pad(x: Any, paddings: Any, mode: Any = "CONSTANT", constant_values: Any = 0) -> Any:
    kind = str(mode).lower()
    if kind not in ("constant", "reflect", "symmetric") or not isinstance(paddings, (list, tuple)):
        raise NotUnderstood("how it is padded")
    widths = [[_size(item) for item in pair] for pair in paddings]
    return _keras_ops().pad(_tensor(x), widths, kind, constant_values if kind == "constant" else None)


# Other arguments ------------------------------------------------------------------------------------------------


def _dtype(value: Any) -> str:
    if value not in DTYPES:
        raise NotUnderstood(f"the type {_shown(value)}")
    return str(value)


def cast(x: Any, dtype: Any) -> Any:
    """TensorFlow gives a tensor of the type itself back. A constant is a float32 or an int32 before it is cast."""
    if not is_tensor(x):
        return _constant_cast(array(x), _dtype(dtype))
    return x if str(x.dtype) == _dtype(dtype) else _keras_ops().cast(x, _dtype(dtype))


def _constant_cast(value: Any, dtype: str) -> Any:
    """What is cut off is towards zero; a single number stays one of Python."""
    import numpy as np

    plain = np.asarray(value, "float32" if np.asarray(value).dtype.kind == "f" else None)
    if isinstance(value, bool) or plain.dtype.kind not in "iuf" or dtype not in _CASTS or not np.isfinite(plain).all():
        raise NotUnderstood(f"{_shown(value)} as {dtype}")
    made = _of_type(np.trunc(plain.astype("float64")).astype("int64"), dtype) if "int" in dtype else plain.astype(dtype)
    return made if isinstance(value, np.ndarray) else made.item()


_CASTS = DTYPES - {"bool", "float16", "bfloat16"}


def constant(value: Any, dtype: Any = None) -> Any:
    found = array(value, None if dtype is None else _dtype(dtype))
    if dtype is None or not isinstance(found, (bool, int, float)):
        return found
    if isinstance(value, bool) or dtype not in _CASTS or (isinstance(value, float) and "float" not in dtype):
        raise NotUnderstood(f"{_shown(value)} as {dtype}")
    return float(value) if "float" in dtype else _constant_cast(value, dtype)


def matmul(x: Any, y: Any, transpose_a: Any = False, transpose_b: Any = False) -> Any:
    return combined("matmul", _turned(x, transpose_a), _turned(y, transpose_b))


def _turned(x: Any, transpose: Any) -> Any:
    if not isinstance(transpose, bool):
        raise NotUnderstood(f"{_shown(transpose)} where true or false stands")
    return _keras_ops().swapaxes(_tensor(x), -1, -2) if transpose else _tensor(x)


def dot(x: Any, y: Any) -> Any:
    if len(getattr(y, "shape", ())) != 2 or len(_tensor(x).shape) < 2:
        raise NotUnderstood("a dot product of tensors of more than two axes")
    return combined("matmul", x, y)


def batch_dot(x: Any, y: Any, axis: Any = None) -> Any:
    """As the layer Dot does it, which is made of the same function."""
    if {len(_tensor(x).shape), len(_tensor(y).shape)} - {2, 3}:
        raise NotUnderstood("a product of tensors of more than three axes")
    from keras import layers

    inner = len(y.shape) - (1 if len(y.shape) == 2 else 2)
    return layers.Dot(axes=(len(x.shape) - 1, inner) if axis is None else _axis(axis))([x, y])


def l2_normalize(x: Any, axis: Any = None, epsilon: Any = 1e-12) -> Any:
    """TensorFlow clamps the squared norm from below, not the norm."""
    ops = _keras_ops()
    total = ops.sum(ops.square(_tensor(x)), axis=_axis(axis), keepdims=True)
    return ops.multiply(x, ops.rsqrt(ops.maximum(total, float(epsilon))))


def norm(x: Any, ord: Any = "euclidean", axis: Any = None, keepdims: Any = False) -> Any:
    if ord not in ("euclidean", 2, None) or isinstance(axis, (list, tuple)):
        raise NotUnderstood("a norm other than that of vectors")
    ops = _keras_ops()
    return ops.sqrt(ops.sum(ops.square(_tensor(x)), axis=_axis(axis), keepdims=bool(keepdims)))


def softmax(operation: str, none: Any = None) -> Callable[..., Any]:
    """``none``: the axis that None stands for; without one, None is over all of them, and refused."""

    def apply(x: Any, axis: Any = -1) -> Any:
        return getattr(_keras_ops(), operation)(_tensor(x), axis=_whole(none if axis is None else axis))

    return apply


def clip(x: Any, low: Any, high: Any) -> Any:
    ops = _keras_ops()
    if "float" not in str(_tensor(x).dtype):
        raise NotUnderstood(f"a clip of {x.dtype}")
    x = x if high is None else ops.minimum(x, float(high))  # in the order of TensorFlow, for a low above the high
    return x if low is None else ops.maximum(x, float(low))


def relu(x: Any, slope: Any = 0.0, max_value: Any = None, threshold: Any = 0.0) -> Any:
    """``K.relu`` and the activation of that name."""
    ops = _keras_ops()
    if threshold:
        raise NotUnderstood("a relu with a threshold")
    if max_value is not None and (max_value < 0 or slope < 0):
        raise NotUnderstood("a relu with a limit or a slope below zero")
    x = ops.leaky_relu(_tensor(x), float(slope)) if slope else ops.relu(_tensor(x))
    return x if max_value is None else ops.minimum(x, float(max_value))


def positive_sqrt(x: Any) -> Any:
    """``K.sqrt`` takes nothing below zero."""
    return _keras_ops().sqrt(_keras_ops().maximum(x, 0.0)) if is_tensor(x) else of_number("sqrt", x)


def leaky_relu(default: float) -> Callable[..., Any]:
    return lambda x, slope=default: _keras_ops().leaky_relu(_tensor(x), float(slope))


def elu(x: Any, slope: Any = 1.0) -> Any:
    return _keras_ops().elu(_tensor(x), float(slope))


def gelu(x: Any, approximate: Any = False) -> Any:
    return _keras_ops().gelu(_tensor(x), bool(approximate))


def hard_sigmoid(x: Any) -> Any:
    """That of Keras 2: 0.2 x + 0.5. Keras 3 has another slope, and no ``keras.backend.hard_sigmoid``."""
    ops = _keras_ops()
    return ops.clip(ops.add(ops.multiply(_tensor(x), 0.2), 0.5), 0.0, 1.0)


def one_hot(indices: Any, count: Any) -> Any:
    return _keras_ops().one_hot(_tensor(indices), _size(count), dtype="float32")


def where(condition: Any, x: Any, y: Any) -> Any:
    if str(_tensor(condition).dtype) != "bool" or not (is_tensor(x) or is_tensor(y)):
        raise NotUnderstood("a choice between constants")
    if any(is_tensor(item) and len(item.shape) > len(condition.shape) for item in (x, y)):
        raise NotUnderstood("a choice of rows, or of columns, by the release of TensorFlow")
    dtype = str((x if is_tensor(x) else y).dtype)
    if any(is_tensor(item) and str(item.dtype) != dtype for item in (x, y)):
        raise NotUnderstood("a choice between tensors of two types")
    return _keras_ops().where(condition, *(item if is_tensor(item) else _as_operand(item, dtype) for item in (x, y)))


def squared_difference(x: Any, y: Any) -> Any:
    return _keras_ops().square(combined("subtract", x, y))


def cumsum(x: Any, axis: Any = 0) -> Any:
    return _keras_ops().cumsum(_tensor(x), axis=_whole(axis))


def resize(x: Any, size: Any, method: Any = "bilinear") -> Any:
    """Bilinear is always computed, and given, in float32."""
    ops = _keras_ops()
    if method not in ("nearest", "bilinear"):
        raise NotUnderstood(f"the way to resize {_shown(method)}")
    sizes = tuple(_size(item) for item in size) if isinstance(size, (list, tuple)) else ()
    x = cast(_tensor(x), "float32") if method == "bilinear" else _tensor(x)
    return ops.image.resize(x, sizes, interpolation=method, data_format="channels_last")


def resize_by_any(x: Any, size: Any, method: Any = "bilinear") -> Any:
    """``resize`` where TensorFlow 1 may be meant, whose centres of pixels are others: what is the same in both."""
    sizes, known = tuple(size) if isinstance(size, (list, tuple)) else (), tuple(_tensor(x).shape[-3:-1])
    pairs = zip(known, sizes, strict=False)
    grows = len(sizes) == len(known) and all(old and type(new) is int and new % old == 0 for old, new in pairs)
    if not grows or (method != "nearest" and (known != sizes or str(x.dtype) != "float32")):
        raise NotUnderstood("tf.image.resize, which TensorFlow 1 and 2 do in two ways, and the file may be of either")
    return resize(x, size, method)
