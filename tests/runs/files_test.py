"""Files are replaced in one step; what a user made is kept; what is read."""

import os
import pathlib
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
  with pytest.raises(errors.WorkdirError, match=f"{path} cannot.*{problem}"):
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


def test_a_file_that_says_too_little_is_not_read_for_long(
  monkeypatch, tmp_path
):
  path = tmp_path / "file"
  path.write_bytes(b"12345")
  empty = os.stat_result([stat.S_IFREG, *[0] * 9])
  monkeypatch.setattr(files, "check_regular", lambda *_, **unused: None)
  monkeypatch.setattr(os, "fstat", lambda _: empty)
  monkeypatch.setattr(files, "_MOST_MORE", 4)
  with pytest.raises(OSError, match="no end after 4 bytes"):
    files.read_bytes(path)
  monkeypatch.setattr(files, "_MOST_MORE", 5)
  assert files.read_bytes(path) == b"12345"


@pytest.mark.skipif(
  not os.path.exists("/proc/self/pagemap"), reason="a file of Linux"
)
def test_a_file_of_the_kernel_without_end():
  with pytest.raises(OSError, match=r"no end after|Permission"):
    files.read_bytes("/proc/self/pagemap")


def test_what_was_written_is_replaced(tmp_path, capsys):
  path = tmp_path / "table.csv"
  for text in ("one", b"two", "three"):
    files.replace_output(path, text)
  assert path.read_text() == "three"
  files.remove_output(path)
  files.remove_output(path)
  assert [p.name for p in tmp_path.iterdir()] == [files.RECORD]
  assert capsys.readouterr().out == ""


@pytest.mark.parametrize("record", ["as it is", "lost", "damaged"])
def test_what_somebody_has_changed_is_kept(tmp_path, capsys, record):
  path = tmp_path / "table.csv"
  files.replace_output(path, "one")
  if record != "as it is":
    (tmp_path / files.RECORD).write_text("?")
  if record == "lost":
    (tmp_path / files.RECORD).unlink()
  for i, name in enumerate(("table.old.csv", "table.old-1.csv")):
    path.write_text(f"mine {i}")
    files.replace_output(path, "two")
    assert path.read_text() == "two"
    assert (tmp_path / name).read_text() == f"mine {i}"
    assert f"before is kept as {name}\n" in capsys.readouterr().out
  path.write_text("mine")
  files.remove_output(path)
  assert not path.exists()
  assert (tmp_path / "table.old-2.csv").read_text() == "mine"


def test_a_link_to_a_file_elsewhere_leaves_the_file(tmp_path):
  (tmp_path / "mine.csv").write_text("mine")
  path = tmp_path / "out" / "table.csv"
  path.parent.mkdir()
  path.symlink_to("../mine.csv")
  files.replace_output(path, "one")
  assert (tmp_path / "mine.csv").read_text() == "mine"
  assert path.read_text() == "one"


@pytest.mark.parametrize(
  ("text", "kept"),
  [
    ('{"hash": "a"}', False),
    ("{}", False),
    ('{"hash": "a", "note": "mine"}', True),
    ('{"train": [1, 2]}', True),
    ("[1, 2]", True),
    ("notes", True),
  ],
)
def test_an_object_with_other_fields_is_kept(tmp_path, text, kept):
  path = tmp_path / "split.json"
  path.write_text(text)
  files.replace_object(path, {"hash": "b", "ids": [1]})
  assert files.read_object(path) == {"hash": "b", "ids": [1]}
  old = tmp_path / "split.old.json"
  assert old.exists() is kept
  assert not kept or old.read_text() == text


def test_whether_a_file_can_be_written_is_tried(tmp_path):
  files.check_writable(tmp_path / "new" / "deep" / "a.csv", "choose another")
  assert not list(tmp_path.iterdir())
  (tmp_path / "file").write_text("")
  for path, reason in (
    (tmp_path, "it is a directory"),
    (tmp_path / "file" / "a.csv", "Not a directory"),
    (pathlib.Path("/proc/a.csv"), "No such file"),
  ):
    with pytest.raises(errors.WorkdirError, match=f"{reason}.*: choose anot"):
      files.check_writable(path, "choose another")


@pytest.mark.parametrize("kind", odd_files.KINDS)
def test_what_is_no_file_is_not_written_to(tmp_path, kind):
  path = odd_files.make(tmp_path / "odd", kind)
  if kind == "huge":
    files.check_writable(path, "choose another")
    return
  with pytest.raises(
    errors.WorkdirError, match=r"odd cannot be written \(it is"
  ):
    files.check_writable(path, "choose another")


def test_links_to_nowhere_are_refused_before_the_work(tmp_path):
  (tmp_path / "file").write_text("")
  for target in ("absent/file", "file/below", "loop"):
    link = tmp_path / "loop"
    link.unlink(missing_ok=True)
    link.symlink_to(tmp_path / target)
    with pytest.raises(errors.WorkdirError, match=r"link to .*nowhere"):
      files.check_writable(link, "choose another")
  link.unlink()
  link.symlink_to("new")
  files.check_writable(link, "choose another")


def test_a_file_behind_a_link_is_replaced_and_the_link_stays(tmp_path):
  target = tmp_path / "disk" / "results.json"
  target.parent.mkdir()
  target.write_text("old")
  link = tmp_path / "results.json"
  link.symlink_to(target)
  files.replace_text(link, "new")
  assert link.is_symlink()
  assert target.read_text() == "new"
  assert [path.name for path in target.parent.iterdir()] == ["results.json"]


def test_a_directory_in_the_place_of_an_output_is_kept(tmp_path, capsys):
  path = tmp_path / "table.csv"
  path.mkdir()
  (path / "mine").write_text("")
  (tmp_path / "table.old.csv").symlink_to("nowhere")
  files.replace_output(path, "new")
  assert path.read_text() == "new"
  assert (tmp_path / "table.old-1.csv" / "mine").exists()
  assert (tmp_path / "table.old.csv").is_symlink()
  assert "is kept as table.old-1.csv" in capsys.readouterr().out


@pytest.mark.parametrize(
  ("given", "problem"),
  [
    ("http://host/run", "neither a path on a disk nor in a bucket"),
    ("file:///run", "neither a path on a disk nor in a bucket"),
    ("a\0b", "zero byte"),
    ("~nobody-of-this-name/run", "home directory of a user that is not there"),
  ],
)
def test_what_is_no_path_is_refused(given, problem):
  with pytest.raises(errors.InputError, match=problem):
    files.resolve(given)


def test_paths_may_be_bytes_and_begin_with_a_tilde(tmp_path, monkeypatch):
  monkeypatch.chdir(tmp_path)
  (tmp_path / "~nobody-of-this-name").mkdir()
  assert files.resolve(b"run") == tmp_path / "run"
  assert files.resolve("~nobody-of-this-name").is_dir()
  monkeypatch.setenv("HOME", str(tmp_path / "home"))
  assert files.resolve("~/run") == tmp_path / "home" / "run"


def test_a_record_that_may_have_no_end_is_not_read(tmp_path):
  odd_files.make(tmp_path / files.RECORD, "pipe")
  (tmp_path / "table.csv").write_text("mine")
  assert files.is_recorded(tmp_path / "table.csv") is None
