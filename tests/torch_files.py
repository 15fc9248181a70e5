"""Files in PyTorch's two forms, written without PyTorch, for tests of the reader."""

from __future__ import annotations

import collections
import io
import pickle
import struct
import sys
import types
import zipfile

import numpy as np

MAGIC = 0x1950A86A20F9469CFC6C
STORAGES = {
    "float32": "FloatStorage",
    "float64": "DoubleStorage",
    "float16": "HalfStorage",
    "bfloat16": "BFloat16Storage",
    "int64": "LongStorage",
    "uint8": "ByteStorage",
    "bool": "BoolStorage",
}


class Tensor:
    """A tensor to be written; the storage may be larger than what is seen of it."""

    def __init__(self, array, *, offset=0, size=None, stride=None, parameter=False):
        self.array = np.asarray(array, order="C")
        self.offset = offset
        self.size = self.array.shape if size is None else size
        steps = tuple(s // self.array.itemsize for s in self.array.strides)
        self.stride = steps if stride is None else stride
        self.parameter = parameter


class _Named:
    """Pickles as a global name of a module that is not here."""

    def __init__(self, module, name):
        self.module, self.name = module, name


class _Pickler(pickle._Pickler):  # pyright: ignore - the C pickler cannot write foreign names
    def __init__(self, file, storages, view=False):
        super().__init__(file, protocol=2)
        self.storages = storages
        self.view = view

    def save(self, obj, save_persistent_id=True):
        if isinstance(obj, _Named):
            self.write(b"c" + f"{obj.module}\n{obj.name}\n".encode())
        elif isinstance(obj, Tensor):
            self._save_tensor(obj)
        else:
            super().save(obj, save_persistent_id)

    def _call(self, module, name, arguments):
        self.save(_Named(module, name))
        self.save(arguments)
        self.write(pickle.REDUCE)

    def _save_tensor(self, tensor):
        key = str(self.storages.setdefault(id(tensor.array), (len(self.storages), tensor.array))[0])
        kind = _Named("torch", STORAGES[tensor.array.dtype.name])
        rest = (None,) if self.view else ()
        pid = _Persistent(("storage", kind, key, "cpu", tensor.array.size, *rest))
        arguments = (pid, tensor.offset, tensor.size, tensor.stride, False, {})
        if tensor.parameter:
            inner = Tensor(tensor.array, offset=tensor.offset, size=tensor.size)
            self._call("torch._utils", "_rebuild_parameter", (inner, True, {}))
        else:
            self._call("torch._utils", "_rebuild_tensor_v2", arguments)

    def persistent_id(self, obj):
        return obj.pid if isinstance(obj, _Persistent) else None


class _Persistent:
    def __init__(self, pid):
        self.pid = pid


def _pickled(value, storages, **options):
    file = io.BytesIO()
    _Pickler(file, storages, **options).dump(value)
    return file.getvalue()


def archive(value, *, compression=zipfile.ZIP_STORED, order="little", drop=()) -> bytes:
    """The form since 1.6."""
    storages: dict = {}
    content = _pickled(value, storages)
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", compression) as members:
        members.writestr("net/data.pkl", content)
        members.writestr("net/byteorder", order)
        members.writestr("net/version", "3\n")
        for number, array in storages.values():
            if number not in drop:
                data = array if order == "little" else array.byteswap()
                members.writestr(f"net/data/{number}", data.tobytes())
    return file.getvalue()


def sequence(value) -> bytes:
    """The form before 1.6."""
    storages: dict = {}
    content = _pickled(value, storages, view=True)
    parts = [pickle.dumps(MAGIC, 2), pickle.dumps(1001, 2)]
    parts.append(pickle.dumps({"protocol_version": 1001, "little_endian": True}, 2))
    parts.append(content)
    parts.append(pickle.dumps([str(number) for number, _ in storages.values()], 2))
    for _, array in storages.values():
        parts.append(struct.pack("<q", array.size) + array.tobytes())
    return b"".join(parts)


def state_dict(arrays) -> collections.OrderedDict:
    """Name -> array as what is written."""
    return collections.OrderedDict((name, Tensor(array)) for name, array in arrays.items())


def evil(module: str, name: str, *arguments) -> object:
    """A value that calls a function when an ordinary unpickler reads it."""

    class Evil:
        def __reduce__(self):
            holder = sys.modules.get(module) or types.ModuleType(module)
            return getattr(holder, name), arguments

    return Evil()
