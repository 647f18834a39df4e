"""Folders of operating systems and network drives are no images of a user."""

import pytest

from paws_jax.data.sources import folders
from paws_jax.data.sources import manifest
from paws_jax.data.sources import system_folders
from paws_jax.predict import find_images

NAMES = (
  *("@eaDir", "@eadir", "#recycle", "@Recycle", "#snapshot", "@tmp"),
  *("$RECYCLE.BIN", "$Recycle.Bin", "RECYCLER", "System Volume Information"),
  *("found.000", "__MACOSX", "lost+found", ".AppleDouble", ":2eTrashes"),
  *(".@__thumb", "Network Trash Folder", "__pycache__", "@appstore", "@S2S"),
  *("_vti_cnf", "iPod Photo Cache", "Previews.lrdata", "DfsrPrivate"),
  *("My Photos.photoslibrary", "@eaDir ", "node_modules"),
)


def _tree(root, *paths):
  for path in paths:
    file = root / path
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(path)


def _load(root, **places):
  return folders.load(
    str(root),
    unlabelled_dir=str(places.get("unlabelled", "")),
    test_dir=str(places.get("test", "")),
  )


@pytest.mark.parametrize("name", NAMES)
def test_they_are_neither_classes_nor_images(tmp_path, name):
  parts = [tmp_path / part for part in ("data", "more", "test")]
  _tree(parts[0], "cat/1.jpg", "dog/2.jpg")
  _tree(parts[1], "3.jpg")
  _tree(parts[2], "cat/4.jpg")
  want = _load(parts[0], unlabelled=parts[1], test=parts[2])
  for part in parts:
    _tree(part, f"{name}/a.jpg/x.jpg", f"cat/{name}/1.jpg", f"{name}/y.db")
  got = _load(parts[0], unlabelled=parts[1], test=parts[2])
  assert got.fingerprint() == want.fingerprint()
  assert got.class_names == ("cat", "dog")
  assert got.test.images.paths == ("cat/4.jpg",)
  assert not want.notices
  found = find_images.find("--images", str(parts[0]))
  assert found.names == ("cat/1.jpg", "dog/2.jpg")
  if name.startswith("."):
    # Hidden folders are never read.
    assert not got.notices
    assert not found.notices
  else:
    assert f"6 folders {name!r} with 6 images" in got.notices[0]
    assert f"2 folders {name!r} with 2 images" in found.notices[0]
  assert system_folders.within(f"cat/{name}/1.jpg") == name


@pytest.mark.parametrize(
  "name",
  [
    *("recycle", "recycled", "Recycler", "snapshot", "temporary", "lost", "#1"),
    *("@home", "$100", "found.it", "trash"),
  ],
)
def test_names_that_a_class_may_have(tmp_path, name):
  _tree(tmp_path, f"{name}/1.jpg", "x/2.jpg")
  assert name in _load(tmp_path).class_names
  assert not system_folders.within(f"{name}/1.jpg")


def test_what_macos_keeps_of_a_file_on_a_server_is_no_image(tmp_path):
  _tree(tmp_path, "cat/1.jpg", "cat/:2e_1.jpg", "cat/._1.jpg", "dog/2.jpg")
  assert _load(tmp_path).train.images.paths == ("cat/1.jpg", "dog/2.jpg")
  found = find_images.find("--images", str(tmp_path))
  assert found.names == ("cat/1.jpg", "dog/2.jpg")


@pytest.mark.parametrize("name", ["thumbnails", "Thumbs", "Recycle Bin"])
def test_folders_that_persons_may_have_made_are_read_and_named(tmp_path, name):
  _tree(tmp_path, "a/1.jpg", f"a/{name}/1.jpg", f"a/{name}/2.jpg", "b/3.jpg")
  loaded = _load(tmp_path)
  assert len(loaded.train.images) == 4
  (line,) = loaded.warnings
  assert f"copies of the other images: {name!r} (2 images). If they" in line
  table = tmp_path / "table.csv"
  table.write_text(f"path,label\na/1.jpg,a\na/{name}/1.jpg,b\n")
  (line,) = manifest.load(str(table), directory="").warnings
  assert f"{name!r} (1 image)" in line


def test_a_folder_without_other_images_says_why(tmp_path):
  _tree(tmp_path, "cat/1.jpg", "dog/@eaDir/2.jpg")
  with pytest.raises(ValueError, match=r"hold no image: 'dog'.*1 folder '@eaD"):
    _load(tmp_path)
  with pytest.raises(
    ValueError, match=r"no image.*1 folder '@eaDir' with 1 im"
  ):
    find_images.find("--images", str(tmp_path / "dog"))


def test_large_ones_are_not_counted_to_the_end(tmp_path, monkeypatch):
  paths = [f"#snapshot/{k}/cat/{k}.jpg" for k in range(4)]
  _tree(tmp_path, "cat/1.jpg", "dog/2.jpg", *paths)
  assert "'#snapshot' with 4 images" in _load(tmp_path).notices[0]
  monkeypatch.setattr(system_folders, "_MOST_FILES", 3)
  assert "'#snapshot' with at least 3 images" in _load(tmp_path).notices[0]


def test_one_that_is_named_itself_is_read(tmp_path):
  _tree(tmp_path, "#recycle/cat/1.jpg", "#recycle/dog/2.jpg")
  assert _load(tmp_path / "#recycle").class_names == ("cat", "dog")
  found = find_images.find("--images", str(tmp_path / "#recycle"))
  assert len(found) == 2


def test_a_table_that_lists_their_images_is_warned_of(tmp_path):
  _tree(tmp_path, "1.jpg", "@eaDir/1.jpg/x.jpg")
  table = tmp_path / "list.csv"
  table.write_text("path,label\n1.jpg,a\n@eaDir/1.jpg/x.jpg,a\n")
  (notice,) = find_images.find("--images", str(table)).notices
  assert notice.startswith("1 listed image in a folder that operating systems")
  assert "'@eaDir'" in notice
