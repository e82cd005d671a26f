"""People's own layers and functions, run where they asked for it: inside a job, never anywhere else."""

from __future__ import annotations

import importlib.util
import sys
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any

from worker.errors import ModelError
from worker.translation import first_line

MODULE = "custom_objects"


@cache
def register(path: Path) -> None:
    """Run the Python file once, and make the classes and functions it defines known to Keras 3 and to tf_keras."""
    import keras
    import tf_keras

    defined = _definitions(_execute(path))
    for registry in (keras.saving.get_custom_objects(), tf_keras.utils.get_custom_objects()):
        for name, value in defined.items():
            registry.setdefault(name, value)


def _execute(path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(MODULE, path)
    if spec is None or spec.loader is None:
        raise ModelError(problem=f"{path.name} is not a Python file")
    module = importlib.util.module_from_spec(spec)
    sys.modules[MODULE] = module
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        problem = f"{path.name} fails when it runs ({type(error).__name__}: {first_line(str(error))})"
        raise ModelError(problem=problem) from error
    return module


def _definitions(module: ModuleType) -> dict[str, Any]:
    """What the file itself defines, without what it imports."""
    return {
        name: value
        for name, value in vars(module).items()
        if callable(value) and getattr(value, "__module__", None) == MODULE and not name.startswith("_")
    }
