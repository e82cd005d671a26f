"""Arrays, headers and pickles that promise more than is there, or that are programs."""

from __future__ import annotations

import json
import pickle
import struct
import zipfile
from collections.abc import Callable, Iterator
from typing import Any

from tests.attacks._attack import FINE, NEVER_OPENED, REFUSE, Attack, dense, keras, model, old, old_model, zipped

ARCHITECTURE = json.dumps({**old_model(old("Dense", name="dense", units=2)), "keras_version": "2.15.0"})


def attacks() -> Iterator[Attack]:
    for slug, make in NPZ.items():
        yield Attack(f"npz-{slug}", "model.zip", lambda make=make: _pair("w.npz", make()), REFUSE)  # type: ignore[misc]
    for slug, make in SAFETENSORS.items():
        yield Attack(
            f"safetensors-{slug}",
            "model.zip",
            lambda make=make: _pair("w.safetensors", make()),  # type: ignore[misc]
            REFUSE,
        )
    for slug, make in TFJS.items():
        yield Attack(f"tfjs-{slug}", "model.zip", make, REFUSE)
    for slug, make in PICKLES.items():
        yield Attack(f"pickle-{slug}", "model.pkl", make, NEVER_OPENED)
    yield Attack("pickle-beside", "model.keras", _beside, REFUSE)
    yield Attack("npz-honest", "model.zip", lambda: _pair("w.npz", _npz(_npy(), _npy("(2,)", 8))), FINE)
    yield Attack("tfjs-honest", "model.zip", lambda: _tfjs(), FINE)


def _pair(name: str, content: bytes) -> bytes:
    """Weights beside an architecture."""
    return zipped({"architecture.json": ARCHITECTURE, name: content})


def _npy(
    shape: str = "(4, 2)", size: int = 32, descr: str = "'<f4'", more: str = "", length: int | None = None
) -> bytes:
    header = f"{{'descr': {descr}, 'fortran_order': False, 'shape': {shape}, {more}}}".ljust(117) + "\n"
    said = len(header) if length is None else length
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", said) + header.encode() + bytes(size)


def _npz(*arrays: bytes, compression: int = zipfile.ZIP_STORED) -> bytes:
    return zipped({f"arr_{number}.npy": array for number, array in enumerate(arrays)}, compression)


def _objects() -> bytes:
    return _npy("(2,)", 0, "'|O'") + pickle.dumps(Exits())


NPZ: dict[str, Callable[[], bytes]] = {
    "objects": lambda: _npz(_objects()),
    "objects-inside": lambda: _npz(_npy("(2,)", 0, "[('a', '<f4'), ('b', '|O')]") + pickle.dumps(Exits())),
    "objects-deep": lambda: _npz(_npy("(2,)", 0, "[('a', [('b', [('c', '|O8')])])]") + pickle.dumps(Exits())),
    "giant": lambda: _npz(_npy("(1000000000, 1000000000)")),
    "negative": lambda: _npz(_npy("(-4, -2)")),
    "overflow": lambda: _npz(_npy("(4294967296, 4294967296, 0, 4)", 0), _npy("(18446744073709551616,)")),
    "bool-shape": lambda: _npz(_npy("(True, 8)")),
    "long-header": lambda: _npz(_npy(length=60000)),
    "expression": lambda: _npz(_npy("__import__('os').system('true')")),
    "power": lambda: _npz(_npy("(10**10**10,)")),
    "deep": lambda: _npz(_npy("(" * 40 + "1," + ")" * 40)),
    "more-keys": lambda: _npz(_npy(more="'x': 1, ")),
    "bomb": lambda: _npz(_npy("(20000000,)", 80_000_000), compression=zipfile.ZIP_DEFLATED),
    "pickle-beside": lambda: zipped({"arr_0.npy": _npy(), "arr_1.npy": pickle.dumps(Exits())}),
}


def _tensors(header: Any, size: int = 32, length: int | None = None) -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text) if length is None else length) + text + bytes(size)


def _entry(shape: Any = (4, 2), start: Any = 0, end: Any = 32, dtype: Any = "F32") -> dict[str, Any]:
    return {"kernel": {"dtype": dtype, "shape": list(shape), "data_offsets": [start, end]}}


SAFETENSORS: dict[str, Callable[[], bytes]] = {
    "giant": lambda: _tensors(_entry((10**9, 10**9))),
    "beyond": lambda: _tensors(_entry((8, 2), 0, 64)),
    "overlap": lambda: _tensors({**_entry(), "other": {"dtype": "F32", "shape": [8], "data_offsets": [0, 32]}}),
    "hole": lambda: _tensors(_entry((4, 2), 8, 40), 40),
    "negative": lambda: _tensors(_entry((-4, -2))),
    "header-length": lambda: _tensors(_entry(), length=2**62),
    "key-twice": lambda: _tensors(b'{"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]},' * 1 + b'"a":{}}', 1),
    "kind": lambda: _tensors(_entry(dtype="PICKLE")),
    "nan": lambda: _tensors(b'{"a":{"dtype":"U8","shape":[NaN],"data_offsets":[0,1]}}', 1),
    "deep": lambda: _tensors(b'{"a":' + b"[" * 100_000 + b"]" * 100_000 + b"}"),
}


def _tfjs(paths: Any = ("shard.bin",), shape: Any = (4, 2), more: str = "", **weight: Any) -> bytes:
    weights = [
        {"name": "dense/kernel", "shape": list(shape), "dtype": "float32", **weight},
        {"name": "dense/bias", "shape": [2], "dtype": "float32"},
    ]
    root = {
        "format": "layers-model",
        "modelTopology": {"model_config": old_model(old("Dense", name="dense", units=2)), "keras_version": "2.15.0"},
        "weightsManifest": [{"paths": list(paths), "weights": weights}],
    }
    return zipped({"model.json": json.dumps(root)[:-1] + more + "}", "shard.bin": bytes(40)})


TFJS: dict[str, Callable[[], bytes]] = {
    "climbs": lambda: _tfjs(["../../../etc/passwd"]),
    "absolute": lambda: _tfjs(["/etc/passwd"]),
    "remote": lambda: _tfjs(["http://127.0.0.1:9/shard.bin"]),
    "many-times": lambda: _tfjs(["shard.bin"] * 100_000),
    "giant": lambda: _tfjs(shape=(10**9, 10**9)),
    "negative": lambda: _tfjs(shape=(-4, -2)),
    "key-twice": lambda: _tfjs(more=', "weightsManifest": []'),
    "nan": lambda: _tfjs(more=', "x": NaN'),
    "quantised": lambda: _tfjs(quantization={"dtype": "object", "scale": 1, "min": 0}),
}


class Exits:
    """What a pickle calls when it is opened: harmless, and nothing a model needs."""

    def __reduce__(self) -> Any:
        import os

        return os.getcwd, ()


def _beside() -> bytes:
    return keras(model(dense()), more={"assets/extra.pkl": pickle.dumps(Exits())})


def _gzipped_often(data: bytes, times: int) -> bytes:
    import gzip

    for _ in range(times):
        data = gzip.compress(data)
    return data


def _memo_bomb() -> bytes:
    """A list of itself doubled sixty times."""
    return b"(lp0\n" + b"".join(b"(lp%d\ng%d\nag%d\na" % (n, n - 1, n - 1) for n in range(1, 60)) + b"."


PICKLES: dict[str, Callable[[], bytes]] = {
    "call": lambda: pickle.dumps({"weights": [1.0], "x": Exits()}),
    "build": lambda: b"csite\n_Printer\n)\x81}(U\x04nameU\x02idub.",
    "extension": lambda: b"\x80\x02\x82\x01.",
    "persistent": lambda: b"Pmodule\n.",
    "second-stream": lambda: pickle.dumps([1]) + pickle.dumps(Exits()),
    "long-string": lambda: b"\x80\x04\x8e" + struct.pack("<Q", 2**62) + b"x.",
    "long-integer": lambda: b"\x80\x02\x8b" + struct.pack("<L", 2**31 - 1) + b"\x01.",
    "memo": _memo_bomb,
    "memo-number": lambda: b"\x80\x04Nr\xff\xff\xff\x7f.",
    "gzip-in-gzip": lambda: _gzipped_often(pickle.dumps(Exits()), 6),
}
