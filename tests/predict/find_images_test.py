"""What --images may be."""

import csv
import io
import os

import pytest

from paws_jax.predict import find_images
from paws_jax.predict import table
from tests import odd_files


@pytest.fixture
def folder(tmp_path):
  for name in ("b.JPG", "a/2.png", "a/1.png", "a/.hidden.png", ".git/x.png"):
    path = tmp_path / "images" / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch()
  (tmp_path / "images" / "a" / "phone.heic").touch()
  (tmp_path / "images" / "notes.txt").touch()
  return tmp_path / "images"


def find(path):
  return find_images.find("--images", str(path))


def test_a_directory_is_read_at_any_depth_and_in_order(folder):
  os.symlink(folder, folder / "a" / "loop")
  found = find(folder)
  assert found.names == ("a/1.png", "a/2.png", "b.JPG")
  assert found.path("a/1.png") == str(folder / "a" / "1.png")
  assert found.notices == (
    "1 .heic file is ignored: to use it, convert to JPEG or PNG",
  )
  assert found.given == str(folder)


def test_folders_that_cannot_be_read_are_told(folder, monkeypatch):
  closed = {str(folder / "a")}
  scan = os.scandir

  def scandir(path):
    if str(path) in closed:
      raise PermissionError(13, "Permission denied", str(path))
    return scan(path)

  # Root may read anything.
  monkeypatch.setattr(os, "scandir", scandir)
  found = find(folder)
  assert found.names == ("b.JPG",)
  (notice,) = found.notices
  assert notice.startswith(f"folder {folder / 'a'} cannot be read (Permission")
  closed.add(str(folder))
  with pytest.raises(ValueError, match=r"that is seen: folder .* cannot be"):
    find(folder)


def test_one_image(folder):
  found = find(folder / "b.JPG")
  assert os.path.samefile(found.path(found.names[0]), folder / "b.JPG")
  assert len(found) == 1


@pytest.mark.parametrize("column", ["path", "Image", "file", "filename"])
def test_a_table_names_paths_relative_to_itself(folder, column):
  table = folder / "list.csv"
  table.write_text(f"id,{column}\n1,a/2.png\n\n2,b.JPG\n3,a/2.png\n,\n")
  found = find(table)
  assert found.names == ("a/2.png", "b.JPG")
  assert found.path("b.JPG") == str(folder / "b.JPG")
  assert found.notices == ("paths listed more than once: 1",)
  assert found.given == str(table)


@pytest.mark.parametrize(
  ("content", "problem"),
  [
    (b"label\nx\n", r"has no column path or .*\['label'\]: name the columns"),
    (b"", "has no column"),
    (b"path\n", "lists no image"),
    (b"id,path\n1,a.png\n2, \n", "row 3 has no path"),
    (b"path\n\xff\n", "is not UTF-8"),
    (b'path\n"a\n', "is no CSV"),
  ],
)
def test_tables_that_are_none(tmp_path, content, problem):
  (tmp_path / "list.csv").write_bytes(content)
  with pytest.raises(ValueError, match=problem):
    find(tmp_path / "list.csv")


def test_places_without_images(tmp_path):
  with pytest.raises(FileNotFoundError, match="no such directory or file"):
    find(tmp_path / "nowhere")
  (tmp_path / "notes.txt").touch()
  with pytest.raises(ValueError, match="holds no image, but 1 other files"):
    find(tmp_path)


@pytest.mark.parametrize("kind", ["pipe", "socket", "device", "huge"])
def test_a_table_that_is_no_regular_file_is_not_read(tmp_path, kind):
  path = odd_files.make(tmp_path / "a.csv", kind)
  with pytest.raises(ValueError, match=rf"cannot be.*{odd_files.KINDS[kind]}"):
    find(path)


# Names that a table has in a notation, or that look like one.
NAMES = [
  *("caf\udce9.png", "caf\\xe9.png", "return\r.png", "line\nend.png"),
  *(" space.png", "space.png", 'quote".png', "\u6587, 1.png", "a/2.png"),
]


@pytest.mark.parametrize("elsewhere", [False, True])
def test_predictions_name_images_again(tmp_path, elsewhere):
  folder = tmp_path / "photos"
  (folder / "a").mkdir(parents=True)
  for name in NAMES:
    (folder / name).touch()
  found = find(folder)
  assert sorted(found.names) == sorted(NAMES)
  header = table.columns(3, 1)
  place = tmp_path if elsewhere else folder
  # Then those of the table itself.
  for name in ("predictions.csv", "again.csv"):
    about = {"classifier": "abc", "images": found.given}
    with table.PredictionsFile(place / name, header, about) as file:
      file.write([name, *["0"] * (len(header) - 1)] for name in found.names)
    found = find(place / name)
    assert sorted(found.names) == sorted(NAMES)
    assert all(os.path.exists(found.path(name)) for name in found.names)
    # All programs can read it.
    text = (place / name).read_bytes().decode()
    assert len(list(csv.DictReader(io.StringIO(text)))) == len(NAMES)


def test_a_table_of_ones_own_beside_some_settings(folder):
  path = folder / "list.csv"
  path.write_text("path\nb.JPG\n")
  for text in ("{", "[]", '{"images": "/nowhere"}', '{"images": 3}'):
    path.with_name("list.csv.json").write_text(text)
    assert find(path).root == str(folder)
