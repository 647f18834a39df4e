"""Files of weights by their ending, and what is wrong with them."""

import io
import struct
import sys
import zipfile

import ml_dtypes
import numpy as np
import pytest
import safetensors.numpy

from paws_jax import errors
from paws_jax.weights import open_file
from tests import odd_files
from tests import torch_archives

ARRAYS = {
  "a": np.arange(6, dtype=np.float32).reshape(2, 3),
  "b": np.array(3.0),
  "empty": np.zeros((0, 2), np.float32),
  "half": np.arange(4).astype(ml_dtypes.bfloat16),
}


def _write(path, arrays):
  if path.suffix == ".safetensors":
    safetensors.numpy.save_file(arrays, path)
  elif path.suffix == ".npz":
    np.savez(path, **arrays)
  else:
    torch_archives.save(path, arrays)


def _read(path):
  with open_file.open_weights(path) as tree:
    return {name: np.asarray(array) for name, array in tree.items()}


@pytest.mark.parametrize("ending", ["safetensors", "npz", "pth", "pth.tar"])
def test_arrays_come_back(ending, tmp_path):
  arrays = dict(ARRAYS)
  if ending != "safetensors":
    # NumPy's own formats do not know it.
    del arrays["half"]
  if ending == "npz":
    arrays["columns"] = np.asfortranarray(ARRAYS["a"])
  path = tmp_path / f"weights.{ending}"
  _write(path, arrays)
  found = _read(path)
  assert set(found) == set(arrays)
  for name, array in arrays.items():
    np.testing.assert_array_equal(found[name], array)
    assert found[name].dtype == array.dtype
    assert found[name].shape == array.shape


def test_an_npz_may_be_packed(tmp_path):
  np.savez_compressed(tmp_path / "a.npz", a=ARRAYS["a"])
  np.testing.assert_array_equal(_read(tmp_path / "a.npz")["a"], ARRAYS["a"])


@pytest.mark.parametrize("ending", ["safetensors", "npz", "pth"])
def test_a_file_that_is_cut_off_or_something_else_is_named(ending, tmp_path):
  path = tmp_path / f"weights.{ending}"
  _write(path, {"a": ARRAYS["a"]})
  content = path.read_bytes()
  for part in (content[:-7], content[:20], b"", b"<html>404</html>"):
    path.write_bytes(part)
    with pytest.raises(
      errors.WeightsError, match=rf"weights\.{ending} is not used: it"
    ):
      _read(path)


def test_safetensors_are_known_by_their_content(tmp_path):
  _write(tmp_path / "a.safetensors", ARRAYS)
  for name in ("model.pth", "blob", "a.bin"):
    (tmp_path / "a.safetensors").rename(tmp_path / name)
    (tmp_path / "a.safetensors").symlink_to(tmp_path / name)
    for path in (tmp_path / name, tmp_path / "a.safetensors"):
      np.testing.assert_array_equal(_read(path)["a"], ARRAYS["a"])


def test_integers_of_safetensors_have_their_dtype(tmp_path):
  path = tmp_path / "a.safetensors"
  for kind in ("u1", "i1", "u2", "i2", "u4", "i4", "u8", "i8", "?"):
    safetensors.numpy.save_file({"a": np.ones(3, kind)}, path)
    with open_file.open_weights(path) as arrays:
      assert arrays["a"].dtype == kind


def test_a_file_that_is_not_there_is_named(tmp_path):
  with pytest.raises(FileNotFoundError, match=r"absent\.pth: there is no"):
    _read(tmp_path / "absent.pth")
  with pytest.raises(FileNotFoundError, match="local disk"):
    _read(tmp_path)


def test_a_safetensors_file_that_lies_is_refused(tmp_path):
  path = tmp_path / "a.safetensors"
  header = b'{"a":{"dtype":"F32","shape":[1099511627776],"data_offsets":[0,8]}}'
  path.write_bytes(struct.pack("<Q", len(header)) + header + bytes(8))
  with pytest.raises(errors.WeightsError, match="it is damaged"):
    _read(path)
  path.write_bytes(struct.pack("<Q", 2**60) + header)
  with pytest.raises(errors.WeightsError, match="it is damaged"):
    _read(path)


def test_without_the_package_safetensors_it_is_asked_for(tmp_path, monkeypatch):
  path = tmp_path / "a.safetensors"
  _write(path, ARRAYS)
  monkeypatch.setitem(sys.modules, "safetensors", None)
  with pytest.raises(errors.WeightsError, match="pip install safetensors"):
    _read(path)


def _npz(path, entries, *, packing=zipfile.ZIP_STORED):
  with zipfile.ZipFile(path, "w", packing) as archive:
    for name, content in entries.items():
      archive.writestr(name, content)


def _npy(array, *, shape=None):
  file = io.BytesIO()
  header = {
    "descr": np.lib.format.dtype_to_descr(array.dtype),
    "fortran_order": False,
    "shape": array.shape if shape is None else shape,
  }
  np.lib.format.write_array_header_1_0(file, header)
  return file.getvalue() + array.tobytes()


def test_an_npz_that_lies_is_refused(tmp_path):
  path = tmp_path / "a.npz"
  _npz(path, {"a.npy": _npy(ARRAYS["a"], shape=(2**20, 2**20))})
  with pytest.raises(errors.WeightsError, match=r"a\.npy claims .* 24 "):
    _read(path)
  _npz(path, {"a.npy": _npy(np.array([None, {}], object)[:0])})
  with pytest.raises(errors.WeightsError, match="object"):
    _read(path)
  for shape in ((-2, -3), (True, 6), (0, 2**40, 2**40), (2**63,) * 2):
    content = ARRAYS["a"] if 0 not in shape else ARRAYS["a"][:0]
    _npz(path, {"a.npy": _npy(content, shape=shape)})
    with pytest.raises(errors.WeightsError, match=r"a\.npy claims"):
      _read(path)
  for header in (b"(" * 5000, b"{[]: 1}", b"-" * 5000 + b"1", b"{'shape': 1}"):
    length = len(header).to_bytes(2, "little")
    _npz(path, {"a.npy": b"\x93NUMPY\x01\x00" + length + header})
    with pytest.raises(errors.WeightsError, match=r"a\.npy is not an array"):
      _read(path)
  _npz(path, {"a": _npy(ARRAYS["a"]), "a.npy": _npy(ARRAYS["a"])})
  with pytest.raises(errors.WeightsError, match="two of its entries are call"):
    _read(path)
  _npz(path, {"a.npy": _npy(ARRAYS["a"])}, packing=zipfile.ZIP_LZMA)
  with pytest.raises(errors.WeightsError, match="packed as numpy does not"):
    _read(path)
  _npz(path, {"a.npy": b"text"})
  with pytest.raises(errors.WeightsError, match=r"a\.npy is not an array"):
    _read(path)


def test_an_npz_that_unpacks_to_a_thousand_times_its_size_is_refused(
  tmp_path, monkeypatch
):
  monkeypatch.setattr(open_file, "_FREE_BYTES", 1000)
  path = tmp_path / "a.npz"
  np.savez_compressed(path, a=np.zeros(10**5, np.float32))
  with pytest.raises(errors.WeightsError, match="claims to unpack to 4"):
    _read(path)


def test_nothing_of_a_pickle_in_an_npz_is_run(tmp_path):
  path = tmp_path / "a.npz"
  np.savez(path, a=np.array([{"a": 1}], object))
  with pytest.raises(errors.WeightsError, match="object"):
    _read(path)


@pytest.mark.parametrize("kind", ["pipe", "socket", "device", "directory"])
@pytest.mark.parametrize("ending", ["pth", "npz", "safetensors"])
def test_what_is_no_regular_file_is_not_read(tmp_path, ending, kind):
  path = odd_files.make(tmp_path / f"a.{ending}", kind)
  with pytest.raises(
    errors.MissingFileError, match="pipes and devices are not"
  ):
    _read(path)
