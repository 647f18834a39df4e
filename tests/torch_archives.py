"""Writes files as `torch.save` does, without PyTorch, for tests.

torch_archives.save(path, {"encoder": {"conv1.weight": array}})
"""

import collections
import io
import pickle
import struct
import sys
import types
import unittest.mock
import zipfile

import numpy as np

_NAMES = {"float32": "FloatStorage", "float64": "DoubleStorage"}
_NAMES |= {"int64": "LongStorage"}


def save(path, tree):
  """Writes arrays of a tree of dicts and lists as tensors, in a zip."""
  storages = {}
  write(path, _pickled(tree, storages), storages)


def write(path, pickled, storages, *, packing=zipfile.ZIP_STORED):
  """Writes a zip archive with this pickle and storages, {key: bytes}."""
  with zipfile.ZipFile(path, "w", packing) as archive:
    archive.writestr("archive/data.pkl", pickled)
    archive.writestr("archive/byteorder", "little")
    for key, content in storages.items():
      archive.writestr(f"archive/data/{key}", content)
    archive.writestr("archive/version", "3\n")


def tensor(
  storage="0", kind="FloatStorage", *, count, offset, size, stride, also=None
):
  """The pickle of {"encoder": {"w": one tensor}}, whatever it claims.

  `also`: claims of a second tensor, "v".
  """
  claims = {"w": (storage, kind, count, offset, size, stride)}
  if also is not None:
    second = {"storage": "0", "kind": "FloatStorage"} | also
    order = ("storage", "kind", "count", "offset", "size", "stride")
    claims["v"] = tuple(second[name] for name in order)
  with _torch() as torch:
    views = {
      name: _Tensor(_Storage(kind, key, count), *view, torch)
      for name, (key, kind, count, *view) in claims.items()
    }
    return _dump({"encoder": views}, torch)


def legacy(pickled, storages):
  """A file before PyTorch 1.6; storages are {key: (elements, bytes)}."""
  system = {"protocol_version": 1001, "little_endian": True}
  parts = [
    *(pickle.dumps(x, 2) for x in (0x1950A86A20F9469CFC6C, 1001, system)),
    pickled,
    pickle.dumps(list(storages), 2),
  ]
  for count, content in storages.values():
    parts += [struct.pack("<q", count), content]
  return b"".join(parts)


def _pickled(tree, storages):
  with _torch() as torch:

    def convert(node):
      if isinstance(node, dict):
        return collections.OrderedDict((k, convert(v)) for k, v in node.items())
      if isinstance(node, list):
        return [convert(v) for v in node]
      if not isinstance(node, np.ndarray):
        return node
      key = str(len(storages))
      storages[key] = node.tobytes()
      stride = [s // node.itemsize for s in np.empty_like(node).strides]
      storage = _Storage(_NAMES[node.dtype.name], key, node.size)
      return _Tensor(storage, 0, node.shape, tuple(stride), torch)

    return _dump(convert(tree), torch)


class _Storage:
  def __init__(self, kind, key, count):
    self.id = (kind, key, "cpu", count)


class _Tensor:
  def __init__(self, storage, offset, size, stride, torch):
    self.parts, self.torch = (storage, offset, size, stride), torch

  def __reduce__(self):
    rest = (False, collections.OrderedDict())
    return self.torch._utils._rebuild_tensor_v2, (*self.parts, *rest)


def _torch():
  """A module of that name, as long as its names are being pickled."""
  torch, utils = types.ModuleType("torch"), types.ModuleType("torch._utils")

  def _rebuild_tensor_v2():
    raise AssertionError("is only named")

  _rebuild_tensor_v2.__module__ = "torch._utils"
  _rebuild_tensor_v2.__qualname__ = "_rebuild_tensor_v2"
  utils._rebuild_tensor_v2, torch._utils = _rebuild_tensor_v2, utils
  for name in (*_NAMES.values(), "OddStorage"):
    setattr(torch, name, type(name, (), {"__module__": "torch"}))
  modules = {"torch": torch, "torch._utils": utils}
  patch = unittest.mock.patch.dict(sys.modules, modules)

  class Patched:
    def __enter__(self):
      patch.start()
      return torch

    def __exit__(self, *unused):
      patch.stop()

  return Patched()


def _dump(tree, torch):

  class Pickler(pickle.Pickler):
    def persistent_id(self, value):
      if not isinstance(value, _Storage):
        return None
      kind, *rest = value.id
      return ("storage", getattr(torch, kind), *rest)

  file = io.BytesIO()
  Pickler(file, protocol=2).dump(tree)
  return file.getvalue()
