"""Files of torch.save: real ones, damaged ones, ones that lie."""

import contextlib
import io
import pickle
import re
import struct
import zipfile

import ml_dtypes
import numpy as np
import pytest

from paws_jax import errors
from paws_jax.weights import pickles
from paws_jax.weights import torch_file
from tests import golden_reference
from tests import torch_archives

# Both written by PyTorch, of the same tree; tests/golden/README.md says how.
ZIP = golden_reference.DIRECTORY / "torch_zip.pth.tar"
LEGACY = golden_reference.DIRECTORY / "torch_legacy.pth"


def _opened(content):
  return torch_file.open_torch(io.BytesIO(content))


def _refused(content, message):
  with (
    pytest.raises(errors.WeightsError, match=message),
    _opened(content) as tree,
  ):
    np.asarray(tree["encoder"]["w"])


@pytest.mark.parametrize("path", [ZIP, LEGACY], ids=["zip", "legacy"])
def test_files_of_pytorch_are_read(path):
  with open(path, "rb") as file, torch_file.open_torch(file) as tree:
    encoder = {name: np.asarray(v) for name, v in tree["encoder"].items()}
    views = {name: np.asarray(v) for name, v in tree["views"].items()}
    momentum = tree["opt"]["state"][0]["momentum_buffer"]
    assert momentum.shape == (4, 3, 3, 3)
  assert list(encoder) == [
    "module.conv1.weight",
    *(
      f"module.bn1.{leaf}"
      for leaf in ("weight", "bias", "running_mean", "running_var")
    ),
    "module.bn1.num_batches_tracked",
    "module.fc.weight",
    "module.fc.bias",
  ]
  assert encoder.pop("module.bn1.num_batches_tracked") == 7
  for name, array in encoder.items():
    wanted = golden_reference.fill(name.removeprefix("module."), array.shape)
    np.testing.assert_array_equal(array, wanted, err_msg=name)
    assert array.dtype == np.float32
  base = golden_reference.fill("base", (6, 5))
  expected = {
    "transposed": base.T,
    "columns": base[:, 1:4:2],
    "row": base[2],
    "parameter": base[0],
    "half": base.astype(np.float16),
    "bfloat16": base.astype(ml_dtypes.bfloat16),
    "double": base.astype(np.float64),
    "long": np.arange(3),
    "bool": np.array([True, False]),
    "empty": np.zeros((0, 3), np.float32),
    "scalar": np.float32(2.5),
  }
  assert set(views) == set(expected)
  for name, array in views.items():
    np.testing.assert_array_equal(array, expected[name], err_msg=name)
    assert array.dtype == expected[name].dtype
  assert tree["epoch"] == 3
  assert tree["amp"] is None
  assert isinstance(tree["loss"], pickles.Inert)


def _read_all(content):
  with _opened(content) as tree:
    for array in tree["encoder"].values():
      np.asarray(array)


@pytest.mark.parametrize("path", [ZIP, LEGACY], ids=["zip", "legacy"])
def test_files_that_are_cut_off_are_refused_wherever_it_is(path):
  content = path.read_bytes()
  for end in (0, 3, 40, len(content) // 2, len(content) - 1):
    with pytest.raises(errors.WeightsError):
      _read_all(content[:end])


def test_a_flipped_bit_in_an_archive_is_seen():
  content = bytearray(ZIP.read_bytes())
  weights = golden_reference.fill("conv1.weight", (4, 3, 3, 3)).tobytes()
  content[content.index(weights) + 5] ^= 16
  with (
    pytest.raises(errors.WeightsError, match=r"archive is damaged.*CRC"),
    _opened(bytes(content)) as tree,
  ):
    np.asarray(tree["encoder"]["module.conv1.weight"])


@pytest.mark.parametrize(
  ("content", "message"),
  [
    (b"<html>404 Not Found</html>", "neither of the formats"),
    (b"\x80\x02\x8a\x01\x07.", "damaged or truncated"),
    (b"\x80\x02\x8a\x01\x07." * 3, "neither of the formats"),
  ],
)
def test_other_files_are_refused(content, message):
  _refused(content, message)


def _archive(pickled, storages, **options):
  file = io.BytesIO()
  torch_archives.write(file, pickled, storages, **options)
  return file.getvalue()


GOOD = {"count": 6, "offset": 0, "size": (2, 3), "stride": (3, 1)}


def test_the_writer_of_these_tests_writes_what_is_read():
  content = _archive(
    torch_archives.tensor(**GOOD), {"0": np.arange(6, dtype="f4").tobytes()}
  )
  with _opened(content) as tree:
    np.testing.assert_array_equal(
      np.asarray(tree["encoder"]["w"]), np.arange(6).reshape(2, 3)
    )


@pytest.mark.parametrize(
  ("changes", "message"),
  [
    ({"size": (2, 4)}, "does not fit into storage 0 of 6"),
    ({"offset": 1}, "does not fit"),
    ({"stride": (4, 1)}, "does not fit"),
    # One number, repeated a million million times.
    ({"size": (10**6, 10**6), "stride": (0, 0)}, "does not fit"),
    # Without an element, but of axes whose product numpy cannot hold.
    ({"size": (0, 2**40, 2**40), "stride": (0, 0, 0)}, "does not fit"),
    ({"size": (0, 2**70), "stride": (0, 0)}, "does not fit"),
    ({"size": (2, 3), "stride": (2**62, 1)}, "does not fit"),
    ({"size": (2**40,), "stride": (1,)}, "does not fit"),
    ({"size": (-2, -3)}, "no valid shape"),
    ({"stride": (-3, -1)}, "no valid shape"),
    ({"offset": -1}, "no valid shape"),
    ({"size": (2.0, 3)}, "no valid shape"),
    ({"size": (2,)}, "no valid shape"),
    ({"size": (1,) * 40, "stride": (1,) * 40}, "no valid shape"),
    ({"count": 2**40}, "should have 4398046511104 bytes, but has 24"),
    ({"count": 5}, "should have 20 bytes, but has 24"),
    ({"count": -6}, "unknown way"),
    ({"kind": "DoubleStorage"}, "should have 48 bytes, but has 24"),
    ({"kind": "OddStorage"}, "asks for torch.OddStorage"),
    ({"storage": "1"}, "archive/data/1 is missing"),
    ({"storage": "../version"}, "is missing"),
  ],
)
def test_tensors_that_are_not_there_are_refused(changes, message):
  pickled = torch_archives.tensor(**GOOD | changes)
  _refused(_archive(pickled, {"0": bytes(24)}), message)


@pytest.mark.parametrize(
  ("size", "stride"),
  [
    ((1, 6), (2**62, 1)),
    ((1, 6, 1), (2**63, 1, 10**40)),
    ((0, 3), (2**62, 2**62)),
    ((2**40, 0), (1, 1)),
  ],
)
def test_strides_of_short_axes_may_be_anything(size, stride):
  pickled = torch_archives.tensor(**GOOD | {"size": size, "stride": stride})
  content = _archive(pickled, {"0": np.arange(6, dtype="f4").tobytes()})
  with _opened(content) as tree:
    array = np.asarray(tree["encoder"]["w"])
  assert array.shape == size
  np.testing.assert_array_equal(array.ravel(), np.arange(6.0)[: array.size])


def test_a_storage_is_read_once_for_all_its_tensors(monkeypatch):
  claims = {**GOOD, "also": GOOD}
  content = _archive(torch_archives.tensor(**claims), {"0": bytes(24)})
  read = []
  original = zipfile.ZipFile.read

  def count(archive, name, *rest):
    read.append(name)
    return original(archive, name, *rest)

  monkeypatch.setattr(zipfile.ZipFile, "read", count)
  with _opened(content) as tree:
    for array in tree["encoder"].values():
      np.asarray(array)
  assert read.count("archive/data/0") == 1


@pytest.mark.parametrize("path", [ZIP, LEGACY], ids=["zip", "legacy"])
def test_damage_anywhere_is_an_error_for_users(path):
  content = path.read_bytes()
  random = np.random.default_rng(0)
  end = len(content)
  places = random.integers(0, end, 100).tolist() + list(range(end - 120, end))
  for place in places:
    for value in (0, 255, content[place] ^ 1 << int(random.integers(8))):
      damaged = bytearray(content)
      damaged[place] = value
      with contextlib.suppress(errors.WeightsError):
        _read_all(bytes(damaged))


def test_packed_and_overlapping_entries_are_refused():
  pickled = torch_archives.tensor(**GOOD)
  _refused(
    _archive(pickled, {"0": bytes(24)}, packing=zipfile.ZIP_DEFLATED),
    "compressed",
  )
  content = bytearray(_archive(pickled, {"0": bytes(24)}))
  # The size of the last entry in the archive's directory, and so on.
  entry = content.rindex(b"PK\x01\x02")
  content[entry + 20 : entry + 28] = struct.pack("<II", 2**30, 2**30)
  _refused(bytes(content), "entries claim 10737.* bytes")


@pytest.mark.parametrize(
  ("names", "message"),
  [
    (["a/data.txt"], "0 entries data.pkl"),
    (["a/data.pkl", "b/data.pkl"], "2 entries data.pkl"),
  ],
)
def test_other_archives_are_refused(names, message):
  file = io.BytesIO()
  with zipfile.ZipFile(file, "w") as archive:
    for name in names:
      archive.writestr(name, b"")
  _refused(file.getvalue(), message)


def test_big_endian_numbers_are_refused():
  content = _archive(torch_archives.tensor(**GOOD), {"0": bytes(24)})
  _refused(_with_big_endian(content), "big-endian")


def _with_big_endian(content):
  file = io.BytesIO()
  with (
    zipfile.ZipFile(io.BytesIO(content)) as old,
    zipfile.ZipFile(file, "w") as new,
  ):
    for name in old.namelist():
      big = name.endswith("byteorder")
      new.writestr(name, b"big" if big else old.read(name))
  return file.getvalue()


def test_storages_of_the_old_format_are_checked():
  content = LEGACY.read_bytes()
  # conv1.weight has 108 elements, the number before them.
  weights = golden_reference.fill("conv1.weight", (4, 3, 3, 3)).tobytes()
  place = content.index(weights) - 8
  assert struct.unpack("<q", content[place : place + 8]) == (108,)
  wrong = content[:place] + struct.pack("<q", 2**50) + content[place + 8 :]
  _refused(wrong, re.escape(f"has {2**50} elements, but 108"))
  # In the pickle: a storage of another size than that of its other tensors.
  encoded = b"K\x6c"
  assert content.count(encoded) >= 1
  _refused(content.replace(encoded, b"K\x6d", 1), "cut off|elements")


def test_a_storage_has_one_size_in_the_old_format():
  claims = {"also": {**GOOD, "count": 2, "size": (2,), "stride": (1,)}}
  pickled = torch_archives.tensor(**GOOD, **claims)
  content = torch_archives.legacy(pickled, {"0": (2, bytes(8))})
  _refused(content, "storage 0 should have 8 bytes, but has 24")
  # The same with one size is fine.
  content = torch_archives.legacy(
    torch_archives.tensor(**GOOD), {"0": (6, np.ones(6, "f4").tobytes())}
  )
  with _opened(content) as tree:
    np.testing.assert_array_equal(
      np.asarray(tree["encoder"]["w"]), np.ones((2, 3))
    )


def test_a_file_that_shrinks_while_it_is_read_is_refused():
  file = io.BytesIO(
    torch_archives.legacy(torch_archives.tensor(**GOOD), {"0": (6, bytes(24))})
  )
  with torch_file.open_torch(file) as tree:
    file.truncate(len(file.getvalue()) - 4)
    with pytest.raises(errors.WeightsError, match="0 is truncated"):
      np.asarray(tree["encoder"]["w"])


@pytest.mark.parametrize("kind", [b"]\x85", b")", b"U\x01a\x85"])
def test_storages_of_an_unknown_kind_are_refused(kind):
  # ("storage", kind, "0", "cpu", 6)
  pickled = b"\x80\x02(U\x07storage" + kind + b"U\x010U\x03cpuK\x06tQ."
  _refused(_archive(pickled, {"0": bytes(24)}), "storages in an unknown way")


def test_a_list_of_storages_that_holds_lists_is_refused():
  pickled = torch_archives.tensor(**GOOD)
  content = torch_archives.legacy(pickled, {"0": (6, bytes(24))})
  listed, lists = (pickle.dumps(keys, 2) for keys in (["0"], [[]]))
  assert content.count(listed) == 1
  _refused(content.replace(listed, lists), "list of storages is damaged")


def test_a_list_of_storages_that_lacks_one_is_refused():
  pickled = torch_archives.tensor(**GOOD)
  _refused(torch_archives.legacy(pickled, {}), "list of storages is damaged")
