"""How much a name that a pickle imports could do. A pickle calls what it imports, with arguments of its own choice."""

from __future__ import annotations

from worker.report import Severity


def _names(text: str) -> frozenset[str]:
    return frozenset(text.split())


# Modules whose functions start programs, run code, reach the network or change files
DANGEROUS = _names(
    """
    os posix nt posixpath ntpath subprocess sys shutil pathlib tempfile glob io.open socket ssl http urllib
    urllib2 ftplib smtplib telnetlib xmlrpc socketserver requests aiohttp httpx webbrowser importlib imp runpy
    pkgutil zipimport code codeop pty pdb bdb timeit trace profile cProfile doctest ctypes _ctypes cffi mmap
    multiprocessing asyncio threading signal pickle _pickle cPickle cloudpickle dill _dill
    joblib.numpy_pickle.load marshal shelve types operator _operator functools.reduce inspect ast gc venv
    ensurepip pip site sqlite3 logging.config torch.hub torch.load numpy.testing numpy.f2py numpy.distutils
    numpy.load numpy.save numpy.fromfile numpy.memmap commands keras.src.utils.python_utils keras.utils.get_file
    keras.src.utils.file_utils tensorflow.io tensorflow.python.lib.io tensorflow.python.framework.load_library
    tensorflow.load_library tensorflow.load_op_library copyreg
    """
)
# What the built-in functions may be called with safely; getattr, eval, exec, open and the rest may not
HARMLESS_BUILTINS = _names(
    """
    set frozenset list dict tuple bytes bytearray str int float complex bool slice range object NotImplemented
    Ellipsis Exception ValueError TypeError KeyError
    """
)
BUILTINS = ("builtins", "__builtin__", "__builtins__")
# What honest pickles of arrays and of Keras models name
EXPECTED = _names(
    """
    numpy.ndarray numpy.dtype numpy.core.multiarray._reconstruct numpy.core.multiarray.scalar
    numpy._core.multiarray._reconstruct numpy._core.multiarray.scalar numpy.core.numeric._frombuffer
    numpy._core.numeric._frombuffer _codecs.encode collections.OrderedDict collections.defaultdict
    collections.deque _io.BytesIO io.BytesIO joblib.numpy_pickle.NumpyArrayWrapper copy_reg._reconstructor
    copyreg._reconstructor datetime.datetime datetime.date decimal.Decimal fractions.Fraction uuid.UUID
    """
)
KERAS = ("keras.", "tf_keras.", "tensorflow.python.keras.", "tensorflow.keras.")

# What puts functions and classes into a pickle as code, not by name
CODE_CARRIERS = frozenset(
    {
        *(f"cloudpickle.cloudpickle.{name}" for name in ("_make_function", "_make_skeleton_class", "_make_skel_func")),
        *("cloudpickle.cloudpickle._fill_function", "cloudpickle._make_skel_func", "dill._dill._create_function"),
        *("dill._dill._create_code", "dill._dill._create_type", "dill.dill._create_function", "types.CodeType"),
        *("types.FunctionType", "marshal.loads", "_marshal.loads"),
    }
)

WHY = {
    Severity.DANGER: "it can start programs, run code, or read and write files",
    Severity.WARNING: "Larder does not know what it does",
    Severity.NOTE: "a pickle of a model or of arrays usually does",
}


def severity_of(name: str) -> Severity:
    """DANGER for what can do harm, NOTE for what honest model pickles name, WARNING for everything else."""
    module, _, rest = name.partition(".")
    if module in BUILTINS:
        return Severity.NOTE if rest in HARMLESS_BUILTINS else Severity.DANGER
    if name in EXPECTED:
        return Severity.NOTE
    if "?" in name or _reaches_danger(name):
        return Severity.DANGER
    return Severity.NOTE if name.startswith(KERAS) else Severity.WARNING


def _reaches_danger(name: str) -> bool:
    """A dangerous module by its own name, or reached through another one (keras.src.os.system)."""
    parts = name.split(".")
    starts = {".".join(parts[:count]) for count in range(1, len(parts) + 1)}
    return bool(starts & DANGEROUS) or any(part in DANGEROUS or part in BUILTINS for part in parts[1:-1])
