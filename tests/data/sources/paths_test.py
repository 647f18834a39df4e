"""Paths of a recipe: relative to the current directory, once to data.dir."""

import dataclasses
import json
import os

import pytest

from paws_jax import config as config_lib
from paws_jax.data import load_dataset
from paws_jax.data.sources import paths
from paws_jax.runs import recipe as recipe_lib

# Fields of section `data` whose meaning has changed: of images and of a table.
FIELDS = ("unlabelled_dir", "test_dir", "manifest")


@pytest.fixture
def photos(tmp_path, monkeypatch):
  """Two directories: the shell is in the first, the images in the second."""
  shell, data = tmp_path / "shell", tmp_path / "photos"
  for name in ("cat/1.jpg", "dog/2.jpg"):
    _write(data / "labelled" / name)
  shell.mkdir()
  monkeypatch.chdir(shell)
  return shell, data


def _write(path, text=""):
  path.parent.mkdir(parents=True, exist_ok=True)
  path.write_text(text)


def _fill(field, place, number):
  """Puts images, or a table that lists some, where a field may point."""
  if field == "manifest":
    row = ("cat/1.jpg,cat\n", "dog/2.jpg,dog\n")[number]
    _write(place, f"path,label\n{row}")
  else:
    _write(place / "cat" / f"{number}.jpg")


def _section(field, path, data):
  return config_lib.base().data.to_dict() | {
    "source": "folder",
    "pipeline": "host",
    "dir": os.fspath(data / "labelled"),
    field: path,
  }


def _found(section):
  """Names of the images that are not listed without the field."""
  listing = load_dataset.open_catalog(config_lib.Data(**section))
  parts = [part for part in (listing.train, listing.test) if part is not None]
  return [name for part in parts for name in part.images.paths]


@pytest.mark.parametrize("field", FIELDS)
def test_relative_to_the_current_directory(field, photos, capsys):
  shell, data = photos
  _fill(field, shell / "given", 0)
  found = _found(_section(field, "given", data))
  assert found == _found(_section(field, os.fspath(shell / "given"), data))
  if field == "manifest":
    assert found == ["cat/1.jpg"]
  else:
    assert len(found) == 3
  assert capsys.readouterr().err == ""


@pytest.mark.parametrize("field", FIELDS)
@pytest.mark.parametrize("path", ["given", "../given"])
def test_relative_to_data_dir_as_formerly(field, path, photos, capsys):
  shell, data = photos
  place = data / "labelled" / path
  _fill(field, place, 1)
  section = _section(field, path, data)
  found = _found(section)
  # However often the data is read, it is said once.
  assert found == _found(section)
  (line,) = capsys.readouterr().err.splitlines()
  assert line == (
    f"warning: data.{field}: {os.path.abspath(shell / path)} does not exist, "
    f"so {os.path.abspath(place)} is used: give the path relative to the "
    "current directory, no longer to data.dir"
  )
  absolute = _section(field, os.path.abspath(place), data)
  assert found == _found(absolute)


@pytest.mark.parametrize("field", FIELDS)
def test_the_current_directory_comes_first(field, photos, capsys):
  shell, data = photos
  _fill(field, shell / "given", 0)
  _fill(field, data / "labelled" / "given", 1)
  section = _section(field, "given", data)
  found = _found(section)
  assert any(name.endswith(("1.jpg", "0.jpg")) for name in found)
  line = capsys.readouterr().err
  assert f"{shell / 'given'} is used and {data / 'labelled' / 'given'}" in line
  # The other folder, inside data.dir, is one of labelled images.
  assert found == _found(_section(field, os.fspath(shell / "given"), data))


@pytest.mark.parametrize("field", FIELDS)
def test_a_path_that_is_in_neither_is_refused(field, photos):
  _, data = photos
  with pytest.raises(FileNotFoundError, match=f"data.{field} = '.*absent'"):
    _found(_section(field, "absent", data))


def test_the_same_place_by_both_needs_no_warning(photos, monkeypatch, capsys):
  _, data = photos
  monkeypatch.chdir(data / "labelled")
  _fill("test_dir", data / "test", 0)
  assert len(_found(_section("test_dir", "../test", data))) == 3
  assert capsys.readouterr().err == ""


def test_data_dir_is_relative_to_the_current_directory(photos):
  _, data = photos
  section = _section("manifest", "", data) | {"dir": "../photos/labelled"}
  assert _found(section) == ["cat/1.jpg", "dog/2.jpg"]


def test_an_empty_path_stays_empty(photos, capsys):
  _, data = photos
  assert paths.resolve("data.manifest", "", data_dir=os.fspath(data)) == ""
  assert capsys.readouterr().err == ""


@pytest.mark.parametrize("path", ["../unlabelled", "inside"])
def test_a_stored_path_works_from_elsewhere(path, photos, monkeypatch):
  shell, data = photos
  _fill("unlabelled_dir", data / "labelled" / path, 0)
  config = config_lib.base()
  config.data.update(_section("unlabelled_dir", path, data))
  (shell / "run").mkdir()
  (shell / "run" / recipe_lib.RECIPE).write_text(config.to_json())
  found = _found(dataclasses.asdict(recipe_lib.load("run").data))
  monkeypatch.chdir("/")
  stored = dataclasses.asdict(recipe_lib.load(shell / "run").data)
  assert json.loads(config.to_json())["data"]["unlabelled_dir"] == path
  assert stored["unlabelled_dir"] == path
  assert _found(stored) == found


@pytest.mark.parametrize("where", ["current", "data"])
def test_lists_of_labels_are_in_the_current_directory(where, photos):
  shell, data = photos
  place = shell if where == "current" else data / "labelled"
  _write(place / "list.txt", "cat/1.jpg\ndog/2.jpg\n")
  section = _section("labels_file", "list.txt", data) | {"labels_per_class": 0}
  views = config_lib.base().views.to_dict()

  def load():
    return load_dataset.load(
      config_lib.Data(**section), config_lib.build_views(views)
    )

  if where == "current":
    assert load().split.labelled_ids.tolist() == [0, 1]
  else:
    with pytest.raises(FileNotFoundError, match=r"labels_file = 'list\.txt'"):
      load()
