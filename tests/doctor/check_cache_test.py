"""A second call of the doctor reads what has changed, and nothing else."""

import io
import os
import pathlib
import sqlite3
import time

import numpy as np
import pytest
from PIL import Image

from paws_jax.data.sources import catalog
from paws_jax.doctor import check_cache
from paws_jax.doctor import inspect
from paws_jax.doctor import measure


def png(seed, side=8):
  pixels = np.random.default_rng(seed).integers(
    0, 256, (side, side, 3), np.uint8
  )
  encoded = io.BytesIO()
  Image.fromarray(pixels).save(encoded, "PNG")
  return encoded.getvalue()


class CountedFiles(catalog.Files):
  """Files that note which of them are read."""

  def read(self, index):
    READ.append(self.paths[index])
    return super().read(index)


READ = []


@pytest.fixture
def files(tmp_path):
  root = tmp_path / "images"
  root.mkdir()
  names = ("a.png", "b.png", "c\udcff.png", "d.png")
  for seed, name in enumerate(names):
    (root / name).write_bytes(png(seed))
  READ.clear()
  return CountedFiles(str(root), names)


@pytest.fixture
def path(tmp_path):
  return tmp_path / "cache" / "doctor.sqlite3"


def check(files, path, *, canvas_size=4, eval_resize=0):
  """Returns the results and the names of the files that were read."""
  READ.clear()
  group = inspect.Group(
    "labelled",
    files,
    np.arange(len(files)),
    np.zeros(len(files), np.int32),
    len(files),
  )
  decode = measure.file_size_in_pixels(max_pixels=999, canvas_size=canvas_size)
  with check_cache.CheckCache(path, canvas_size=canvas_size) as cache:
    checks = inspect.check_images(
      [group],
      decode,
      progress=lambda *_: None,
      cache=cache,
      eval_resize=eval_resize,
    )
  assert cache.num_known == len(files) - len(READ)
  return checks["labelled"], sorted(READ)


def test_files_are_read_once(files, path):
  first, read = check(files, path)
  assert len(read) == 4
  again, read = check(files, path)
  assert read == []
  assert again == first
  assert [type(a) for a in again[0]] == [type(a) for a in first[0]]


def test_a_file_is_known_by_any_spelling_of_its_path(files, path, monkeypatch):
  check(files, path)
  root = pathlib.Path(files.root)
  monkeypatch.chdir(root.parent)
  assert check(CountedFiles("images/../images", files.paths), path)[1] == []
  # Another reader of the same image, as from a manifest.
  (name, *_) = files.paths
  assert check(CountedFiles("/", (str(root / name)[1:],)), path)[1] == []


@pytest.mark.parametrize("change", ["size", "time", "content", "replaced"])
def test_a_file_that_has_changed_is_read_again(files, path, change):
  first, _ = check(files, path)
  changed = pathlib.Path(files.path(1))
  before = changed.stat()
  # Clocks of file systems have ticks.
  time.sleep(0.05)
  new = png(9, side=12) if change == "size" else png(1)
  if change in ("content", "replaced"):
    # Of the same length and time: only the time of the inode tells.
    new = bytearray(png(1))
    new[-20] ^= 1
  if change == "replaced":
    (changed.parent / "new").write_bytes(new)
    os.utime(
      changed.parent / "new", ns=(before.st_atime_ns, before.st_mtime_ns)
    )
    os.replace(changed.parent / "new", changed)
  else:
    changed.write_bytes(new)
  if change == "content":
    os.utime(changed, ns=(before.st_atime_ns, before.st_mtime_ns))
  second, read = check(files, path)
  assert read == ["b.png"]
  assert (second[1] == first[1]) == (change == "time")


def test_a_file_that_is_gone_is_not_known(files, path):
  check(files, path)
  os.remove(files.path(2))
  results, read = check(files, path)
  assert read == [files.paths[2]]
  assert "it cannot be read" in results[2].reason


def test_images_with_a_fault_are_read_each_time(files, path):
  pathlib.Path(files.path(0)).write_bytes(b"<html>")
  for _ in range(2):
    results, _ = check(files, path)
  assert READ == ["a.png"]
  assert "it is text" in results[0].reason


def test_other_settings_read_all_again(files, path):
  check(files, path)
  assert len(check(files, path, canvas_size=5)[1]) == 4
  # What depends on the evaluation is found without reading.
  results, read = check(files, path, canvas_size=5, eval_resize=2**18)
  assert read == []
  assert all("too narrow" in result.reason for result in results)
  assert check(files, path, canvas_size=5)[0][0].reason == ""


def test_other_code_reads_all_again(files, path, monkeypatch):
  check(files, path)
  monkeypatch.setattr(check_cache.provenance, "code_hash", lambda: "other")
  assert len(check(files, path)[1]) == 4


def damage_header(path):
  path.write_bytes(b"no database" * 999)


def damage_middle(path):
  content = bytearray(path.read_bytes())
  content[4096:] = os.urandom(len(content) - 4096)
  path.write_bytes(content)


def cut(path):
  path.write_bytes(path.read_bytes()[:5000])


def other_table(path):
  path.unlink()
  with sqlite3.connect(path) as database:
    database.execute("CREATE TABLE checks (x)")


def other_fields(path):
  with sqlite3.connect(path) as database:
    database.execute("UPDATE checks SET fields = '[1, 2]'")


def directory(path):
  path.unlink()
  path.mkdir()


def locked(path):
  database = sqlite3.connect(path, isolation_level=None)
  database.execute("BEGIN EXCLUSIVE")
  HELD.append(database)


HELD = []


@pytest.mark.parametrize(
  ("harm", "recovers"),
  [
    (damage_header, True),
    (damage_middle, True),
    (cut, True),
    (other_table, False),
    (other_fields, True),
    (directory, False),
    (locked, False),
  ],
  ids=lambda value: getattr(value, "__name__", None),
)
def test_a_cache_that_is_damaged_is_as_good_as_none(
  files, path, monkeypatch, harm, recovers
):
  monkeypatch.setattr(check_cache, "_SECONDS", 0.05)
  first, _ = check(files, path)
  harm(path)
  results, read = check(files, path)
  assert results == first
  assert len(read) == 4
  for _ in range(2):
    results, read = check(files, path)
    assert results == first
  assert (read == []) == recovers
  while HELD:
    HELD.pop().close()


def test_where_nothing_can_be_written_nothing_is_kept(files, tmp_path):
  (tmp_path / "file").write_text("")
  for _ in range(2):
    results, read = check(files, tmp_path / "file" / "x")
    assert len(read) == 4
    assert not any(result.reason for result in results)


def test_a_cache_that_cannot_be_written_still_serves(files, path):
  first, _ = check(files, path)
  path.chmod(0o444)
  path.parent.chmod(0o555)
  try:
    assert check(files, path) == (first, [])
    # New images are read, whether or not they can be kept.
    assert len(check(files, path, canvas_size=5)[1]) == 4
  finally:
    path.parent.chmod(0o755)


def test_a_large_cache_begins_anew(files, path, monkeypatch):
  check(files, path)
  monkeypatch.setattr(check_cache, "_MOST_BYTES", 100)
  assert len(check(files, path)[1]) == 4


def test_the_place_is_the_cache_of_the_user(monkeypatch):
  monkeypatch.setenv("XDG_CACHE_HOME", "/somewhere")
  expected = pathlib.Path("/somewhere/paws_jax/doctor.sqlite3")
  assert check_cache.default_path() == expected
  monkeypatch.delenv("XDG_CACHE_HOME")
  expected = pathlib.Path.home() / ".cache/paws_jax/doctor.sqlite3"
  assert check_cache.default_path() == expected

  def no_home():
    raise RuntimeError("no home")

  monkeypatch.setattr(pathlib.Path, "home", no_home)
  assert check_cache.default_path() is None
