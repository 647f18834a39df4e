"""Files of embeddings: what is read back, and what is refused."""

import sys

import numpy as np
import pytest

from paws_jax import errors
from paws_jax.predict import embeddings

NAMES = (
  "a.png",
  'quote".png',
  "no utf-8 \udcff.png",
  "line\nend.png",
  "e,\\xff",
)


@pytest.fixture(params=embeddings.SUFFIXES)
def path(tmp_path, request):
  if request.param == ".parquet":
    pytest.importorskip("pyarrow")
  return tmp_path / f"e{request.param}"


def write(path, *, names=NAMES, labels=None):
  vectors = np.random.default_rng(0).normal(size=(len(names), 3))
  vectors = vectors.astype(np.float32)
  with embeddings.EmbeddingsFile(
    path, {}, images=names, labels=labels or {}, metadata={"layer": "x"}
  ) as file:
    file.write(embeddings.rows(names, vectors))
    file.finish()
  return vectors


@pytest.mark.parametrize("block", [2, 4096])
def test_any_name_and_every_bit_is_read_back(path, block, monkeypatch):
  monkeypatch.setattr(embeddings, "_ROWS_AT_ONCE", block)
  vectors = write(path, labels={NAMES[1]: "caf\u00e9"})
  got = embeddings.read(path)
  assert got.names == NAMES
  assert got.embeddings.tobytes() == vectors.tobytes()
  assert got.labels == ("", "caf\u00e9", "", "", "")
  assert got.metadata == {"layer": "x", "dimension": 3}
  assert len(got) == len(NAMES)


def test_what_is_no_such_file_is_refused(path):
  with pytest.raises(errors.MissingFileError, match="there is no such file"):
    embeddings.read(path)
  write(path)
  for content in (b"", b"text", path.read_bytes()[:-30]):
    path.write_bytes(content)
    with pytest.raises(errors.InputError, match="is no file of embeddings"):
      embeddings.read(path)
  path.unlink()
  path.mkdir()
  with pytest.raises(errors.InputError, match="it is a directory"):
    embeddings.read(path)
  text = path.with_suffix(".txt")
  text.touch()
  with pytest.raises(errors.InputError, match=r"neither \.npz nor \.parquet"):
    embeddings.read(text)


@pytest.mark.parametrize(
  ("changes", "problem"),
  [
    ({"names": np.array(["a"])}, "different lengths"),
    ({"embeddings": np.zeros((2, 3))}, "not float32"),
    ({"embeddings": np.zeros(2, np.float32)}, "not float32"),
    ({"names": None}, "names is not a file"),
    ({"metadata": np.array("[1]")}, "is no file of embeddings"),
    ({"names": np.array([], str), "embeddings": np.zeros((0, 3))}, "empty"),
    ({"names": np.array([{}, {}])}, "allow_pickle=False"),
  ],
)
def test_arrays_of_others_are_refused(tmp_path, changes, problem):
  path = tmp_path / "e.npz"
  arrays = {
    "names": np.array(["a", "b"]),
    "embeddings": np.zeros((2, 3), np.float32),
    "metadata": np.array("{}"),
  } | changes
  np.savez(path, **{k: v for k, v in arrays.items() if v is not None})
  with pytest.raises(errors.InputError, match=problem):
    embeddings.read(path)


def test_parquet_needs_pyarrow(tmp_path, monkeypatch):
  path = tmp_path / "e.parquet"
  path.touch()
  monkeypatch.setitem(sys.modules, "pyarrow", None)
  with pytest.raises(errors.MissingPackageError, match="needs pyarrow"):
    embeddings.read(path)
  with pytest.raises(
    errors.MissingPackageError, match=r"paws_jax\[parquet\]', or write \.npz"
  ):
    embeddings.rows_file.check_path(str(path), embeddings.SUFFIXES)
