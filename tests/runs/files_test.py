"""A file is replaced in one step."""

import pytest

from paws_jax.runs import files


def test_a_crash_while_replacing_leaves_the_old_text(tmp_path, monkeypatch):
  path = tmp_path / "file"
  files.replace_text(path, "old")

  def crash(*unused):
    raise OSError("power cut")

  monkeypatch.setattr(files.os, "replace", crash)
  with pytest.raises(OSError, match="power cut"):
    files.replace_text(path, "new")
  assert path.read_text() == "old"
