"""Lambda layers whose Python code a person has agreed to run. Here, and nowhere else, Keras is let run any of it.

Only in jobs: a step says once for its process that there is consent (``allow``). What can be read as a formula is still
rebuilt from operations and not run. Byte code belongs to one release of Python; of another it may compute something
else, so that it is looked at before it runs.
"""

from __future__ import annotations

import dis
import opcode
import sys
from collections.abc import Mapping
from itertools import pairwise
from pathlib import Path
from types import CodeType, FunctionType
from typing import Any

from worker.errors import LambdaRefused
from worker.formats import _lambdas
from worker.formats._marshalled import NotUnderstood, read_code
from worker.report import Severity, declare
from worker.translation import first_line

RUN = declare(
    "lambda-run",
    Severity.WARNING,
    "The Lambda layer {layer} was not understood ({problem}). Its Python code was run, in the sandbox alone, for "
    "somebody agreed to that.",
)
CODE_MODULE = "custom_objects"  # what came with the upload, once it has run here
LAYOUT = "3.11"  # how the Pythons that Larder runs on write a function
_state = {"allowed": False}


def allow() -> None:
    """From now on, in this process."""
    _state["allowed"] = True


def allowed() -> bool:
    return _state["allowed"]


def load_model(path: Path, *, compiled: bool = False) -> Any:
    """As Keras 3 itself loads a file, which the caller has read before: in safe mode, but where there is consent."""
    import keras

    return keras.saving.load_model(str(path), compile=compiled, safe_mode=not allowed())


def layer(name: str, config: Mapping[str, Any], dtype: Any) -> Any:
    """The Lambda layer with its own function; LambdaRefused where it is not of this Python, or not to be had."""
    import keras

    function = _stored(name, config)
    shape = _lambdas.declared_shape(dict(config))
    arguments = config.get("arguments")
    given = {"name": name, "dtype": dtype, "function": function, "arguments": arguments if arguments else {}}
    try:
        made = keras.layers.Lambda.from_config(
            given | ({"output_shape": list(shape)} if shape else {}), safe_mode=False
        )
    except Exception as error:  # whatever unmarshalling meets, or looking a name up
        raise LambdaRefused(names=name, problem=f"its function cannot be had: {first_line(str(error))}") from error
    if isinstance(function, dict) and function["class_name"] == "__lambda__":
        made.function = _at_home(name, made.function)
    return made


def _stored(name: str, config: Mapping[str, Any]) -> Any:
    """The function as Keras 3 stores it: byte code, or the name of one that came with the upload."""
    stored = config.get("function")
    if isinstance(stored, dict) and stored.get("class_name") == "function":
        return stored
    if isinstance(stored, str) and config.get("function_type") == "function":
        return {"class_name": "function", "config": stored, "registered_name": stored, "module": None}
    if isinstance(stored, dict) and stored.get("class_name") == "__lambda__":
        inner = stored.get("config")
        parts = [inner.get(key) for key in _PARTS] if isinstance(inner, dict) else [inner, None, None]
    else:
        parts = (
            list(stored) if isinstance(stored, (list, tuple)) and len(stored) == len(_PARTS) else [stored, None, None]
        )
    _check_layout(name, parts[0])
    defaults = tuple(parts[1]) if isinstance(parts[1], list) else parts[1]
    return {"class_name": "__lambda__", "config": dict(zip(_PARTS, (parts[0], defaults, parts[2]), strict=True))}


_PARTS = ("code", "defaults", "closure")


def _check_layout(name: str, code: Any) -> None:
    try:
        layouts = [each.layout for each in read_code(_lambdas.code_bytes(code))]
    except NotUnderstood:  # a function in a function, say: Python itself will tell
        return
    if LAYOUT not in layouts:
        raise _of_another_python(name)


def _at_home(name: str, function: Any) -> Any:
    """The function among the names that people's scripts have, with no path of theirs in it."""
    import keras
    import numpy as np
    import tensorflow as tf
    import tf_keras

    if not _is_of_this_python(function.__code__):
        raise _of_another_python(name)
    own = vars(sys.modules[CODE_MODULE]) if CODE_MODULE in sys.modules else {}
    known = {"tf": tf, "tensorflow": tf, "keras": keras, "K": tf_keras.backend, "ops": keras.ops, "np": np, "numpy": np}
    code = function.__code__.replace(co_filename="<lambda>")
    return FunctionType(code, {**known, **own}, function.__name__, function.__defaults__, function.__closure__)


def _is_of_this_python(code: CodeType) -> bool:
    """Are its instructions all some of this Python, each with as much behind it as it has here?"""
    names = list(_instructions(code))
    calls = pairwise(names)
    prepared = "PRECALL" not in dis.opmap or all(before == "PRECALL" for before, name in calls if name == "CALL")
    inner = [each for each in code.co_consts if isinstance(each, CodeType)]
    known = "RESUME" in names and not any(name == "CACHE" or name.startswith("<") for name in names)
    return known and prepared and all(map(_is_of_this_python, inner))


def _instructions(code: CodeType) -> list[str]:
    caches: Any = getattr(opcode, "_inline_cache_entries", {})
    names, place = [], 0
    while place < len(code.co_code):
        number = code.co_code[place]
        names.append(dis.opname[number])
        entries = caches.get(names[-1], 0) if isinstance(caches, dict) else caches[number]
        place += 2 + 2 * entries
    return names


def _of_another_python(name: str) -> LambdaRefused:
    return LambdaRefused(
        names=name, problem="its byte code is of another release of Python than the one that runs here"
    )
