"""HDF5 files that reach elsewhere, that declare more than they hold, or that want code to be loaded."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterator
from typing import Any

from tests.attacks._attack import FINE, REFUSE, Attack, dense, h5, keras, model, old, old_model, plain_weights


def attacks() -> Iterator[Attack]:
    for slug, fill in FILLS.items():
        yield Attack(f"hdf5-{slug}-keras", "model.keras", lambda fill=fill: _in_keras(fill), REFUSE)  # type: ignore[misc]
        yield Attack(f"hdf5-{slug}-h5", "model.h5", lambda fill=fill: _in_h5(fill), REFUSE)  # type: ignore[misc]
    for size in (512, 4096):
        yield Attack(f"hdf5-behind-{size}", "model.keras", lambda size=size: _behind(size), REFUSE)  # type: ignore[misc]
    yield Attack("hdf5-honest", "model.h5", lambda: _in_h5(_honest), FINE)


def _in_keras(fill: Callable[[Any], None]) -> bytes:
    return keras(model(dense()), plain_weights(fill))


def _behind(size: int) -> bytes:
    """The numbers elsewhere, in a file that begins with something else."""
    return keras(model(dense()), plain_weights(_external_storage, size))


def _in_h5(fill: Callable[[Any], None]) -> bytes:
    return h5(old_model(old("Dense", name="dense", units=2, activation="linear")), fill)


def _honest(file: Any) -> None:
    """What real files have: packed chunks, texts, an empty array, a group without anything."""
    import numpy as np

    file.create_dataset("extra/packed", data=np.zeros((100, 100), "float32"), compression="gzip", shuffle=True)
    file.create_dataset("extra/fast", data=np.arange(1000.0), compression="lzf")
    file["extra/words"] = ["a", "b"]
    file["extra/nothing"] = np.zeros((0, 4))
    file["extra/kind"] = np.dtype("float32")  # a type with a name of its own
    file.create_group("extra/empty").attrs["words"] = [b"x", b"y"]


def _external_link(file: Any) -> None:
    import h5py

    file["elsewhere"] = h5py.ExternalLink("/etc/passwd", "/x")


def _soft_link(file: Any) -> None:
    import h5py

    file["elsewhere"] = h5py.SoftLink("/no/such/place")


def _soft_cycle(file: Any) -> None:
    import h5py

    file["a"], file["b"] = h5py.SoftLink("/b"), h5py.SoftLink("/a")


def _external_storage(file: Any) -> None:
    file.create_dataset("elsewhere", (16,), "u1", external=[("/etc/passwd", 0, 16)])


def _virtual(file: Any) -> None:
    import h5py

    layout = h5py.VirtualLayout((16,), "u1")
    layout[:] = h5py.VirtualSource("/tmp/larder_other_user.h5", "x", (16,))
    file.create_virtual_dataset("elsewhere", layout)


def _references(file: Any) -> None:
    import h5py

    file.create_dataset("pointers", data=[file.ref], dtype=h5py.ref_dtype)


def _regions(file: Any) -> None:
    import h5py

    place = file.create_dataset("held", data=[1.0, 2.0])
    found = file.create_dataset("regions", (1,), h5py.regionref_dtype)
    found[0] = place.regionref[0:1]


def _vlen(file: Any) -> None:
    import h5py
    import numpy as np

    found = file.create_dataset("ragged", (2,), h5py.vlen_dtype(np.dtype("float32")))
    found[0] = np.ones(3, "float32")


def _compound_with_references(file: Any) -> None:
    import h5py
    import numpy as np

    file.create_dataset("rows", (1,), np.dtype([("n", "i4"), ("to", h5py.ref_dtype)]))


def _never_written(file: Any) -> None:
    """Four terabytes in no bytes at all."""
    file.create_dataset("huge", (10**6, 10**6), "float32", chunks=(1000, 1000))


def _never_written_in_one(file: Any) -> None:
    import h5py

    space = h5py.h5s.create_simple((2 * 10**9,))
    settings = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    settings.set_alloc_time(h5py.h5d.ALLOC_TIME_LATE)
    h5py.h5d.create(file.id, b"huge", h5py.h5t.IEEE_F32LE, space, settings)


def _packed_bomb(file: Any) -> None:
    """A gibibyte of zeros in about a mebibyte, each chunk as large as it says."""
    found = file.create_dataset("zeros", (256, 1024, 1024), "float32", chunks=(16, 1024, 1024), compression="gzip")
    block = zlib.compress(bytes(16 * 4 * 1024 * 1024), 9)
    for start in range(0, 256, 16):
        found.id.write_direct_chunk((start, 0, 0), block)


def _chunk_bomb(file: Any) -> None:
    """A chunk of four kibibytes that unpacks to 64 MiB: HDF5 makes its buffer longer until all of it is there."""
    found = file.create_dataset("zeros", (1024,), "float32", chunks=(1024,), compression="gzip")
    found.id.write_direct_chunk((0,), zlib.compress(bytes(64 * 1024 * 1024), 9))


def _plugin(file: Any) -> None:
    """A filter that HDF5 would look for in folders of shared libraries."""
    import h5py

    settings = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    settings.set_chunk((16,))
    settings.set_filter(32015, h5py.h5z.FLAG_OPTIONAL, (3,))
    space = h5py.h5s.create_simple((16,))
    h5py.h5d.create(file.id, b"packed", h5py.h5t.IEEE_F32LE, space, settings)


def _many_attributes(file: Any) -> None:
    group = file.create_group("noted", track_order=True)
    for number in range(20_000):
        group.attrs[f"a{number}"] = number


def _deep(file: Any) -> None:
    group = file
    for _ in range(600):
        group = group.create_group("g")


def _many_dimensions(file: Any) -> None:
    file.create_dataset("many", (2,) * 31, "float64", chunks=(1,) * 31)


def _user_defined(file: Any) -> None:
    """An attribute of references."""
    import h5py

    file.attrs.create("pointer", file.ref, dtype=h5py.ref_dtype)


FILLS: dict[str, Callable[[Any], None]] = {
    "external-link": _external_link,
    "soft-link": _soft_link,
    "soft-cycle": _soft_cycle,
    "external-storage": _external_storage,
    "virtual": _virtual,
    "references": _references,
    "regions": _regions,
    "vlen": _vlen,
    "compound": _compound_with_references,
    "never-written": _never_written,
    "never-written-in-one": _never_written_in_one,
    "packed-bomb": _packed_bomb,
    "chunk-bomb": _chunk_bomb,
    "plugin": _plugin,
    "many-attributes": _many_attributes,
    "deep": _deep,
    "many-dimensions": _many_dimensions,
    "reference-attribute": _user_defined,
}
