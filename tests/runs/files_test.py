"""A file is replaced in one step; only regular files are read."""

import os
import stat

import pytest

from paws_jax import errors
from paws_jax.runs import files
from tests import odd_files


def test_a_crash_while_replacing_leaves_the_old_text(tmp_path, monkeypatch):
  path = tmp_path / "file"
  files.replace_text(path, "old")

  def crash(*unused):
    raise OSError("power cut")

  monkeypatch.setattr(files.os, "replace", crash)
  with pytest.raises(OSError, match="power cut"):
    files.replace_text(path, "new")
  assert path.read_text() == "old"


@pytest.mark.parametrize("kind", odd_files.KINDS)
def test_what_may_have_no_end_is_not_read(tmp_path, kind):
  path = odd_files.make(tmp_path / "odd", kind)
  problem = odd_files.KINDS[kind]
  with pytest.raises(OSError, match=problem):
    files.check_regular(path)
  with pytest.raises(OSError, match=problem):
    files.read_bytes(str(path))
  with pytest.raises(errors.InputError, match=f"the list cannot.*{problem}"):
    files.read_table(path, "the list")
  with pytest.raises(OSError, match=problem):
    files.read_object(path)


def test_a_file_of_the_allowed_size_is_read(tmp_path):
  path = tmp_path / "file"
  path.write_bytes(b"12345")
  assert files.read_bytes(path, most=5) == b"12345"
  with pytest.raises(OSError, match="5 bytes, and no more than 4 are read"):
    files.read_bytes(path, most=4)


def test_a_file_that_grows_while_it_is_read_has_a_bound(monkeypatch, tmp_path):
  path = tmp_path / "file"
  path.write_bytes(b"12345")
  # As those of the kernel, it says that it is empty.
  empty = os.stat_result([stat.S_IFREG, *[0] * 9])
  monkeypatch.setattr(files, "check_regular", lambda *_, **unused: None)
  monkeypatch.setattr(os, "fstat", lambda _: empty)
  monkeypatch.setattr(files, "_PIECE", 2)
  assert files.read_bytes(path, most=5) == b"12345"
  with pytest.raises(OSError, match="no end after 4 bytes"):
    files.read_bytes(path, most=4)
