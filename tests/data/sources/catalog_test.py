import dataclasses

import numpy as np
import pytest

from paws_jax.data.sources import catalog


def files(root, **contents):
  """Writes name.jpg for each; returns their reader."""
  for name, content in contents.items():
    (root / f"{name}.jpg").write_bytes(content)
  return catalog.Files(
    root=str(root), paths=tuple(f"{name}.jpg" for name in contents)
  )


def part(root, *labels, **contents):
  return catalog.Part(
    images=files(root, **contents), labels=np.array(labels, np.int32)
  )


@pytest.fixture
def whole(tmp_path):
  return catalog.Catalog(
    name="pets",
    class_names=("cat", "dog"),
    train=part(tmp_path, 1, -1, 0, a=b"aa", b=b"", c=b"c"),
    test=part(tmp_path, 0, d=b"d"),
  )


def test_files_read_and_tell_names_and_sizes(tmp_path):
  reader = files(tmp_path, a=b"xyz", b=b"")
  assert len(reader) == 2
  assert (reader.name(0), reader.key(1)) == ("a.jpg", "b.jpg")
  assert (reader.read(0), reader.read(1)) == (b"xyz", b"")
  assert (reader.size(0), reader.size(1)) == (3, 0)
  (tmp_path / "a.jpg").unlink()
  for attempt in (reader.read, reader.size):
    with pytest.raises(FileNotFoundError, match=r"a\.jpg"):
      attempt(0)


def test_a_catalog_counts_classes_and_shows_its_labels(whole):
  assert whole.num_classes == 2
  assert whole.train_labels.tolist() == [1, -1, 0]
  assert whole.val is None


@pytest.mark.parametrize(
  ("labels", "message"),
  [
    (np.array([0, 1, 1]), r"train\.labels is int64 of rank 1, but must be"),
    (np.zeros((3, 1), np.int32), ".* of rank 2, but must be int32 of rank 1"),
    (np.zeros(2, np.int32), "train holds 3 images and 2 labels: give"),
    (
      np.array([0, 2, -2], np.int32),
      r"train\.labels\[1\] = 2 \(b\.jpg\) is outside \[-1, 2\), the first of 2",
    ),
  ],
)
def test_a_catalog_checks_its_labels(whole, labels, message):
  train = dataclasses.replace(whole.train, labels=labels)
  with pytest.raises(ValueError, match=f"pets: {message}"):
    dataclasses.replace(whole, train=train)


@pytest.mark.parametrize("field", ["test", "val"])
def test_images_to_evaluate_on_need_labels(tmp_path, whole, field):
  bad = {field: part(tmp_path, 0, -1, e=b"e", f=b"f")}
  with pytest.raises(
    ValueError, match=rf"{field}\.labels\[1\] = -1 .*\[0, 2\)"
  ):
    dataclasses.replace(whole, **bad)
  with pytest.raises(ValueError, match=f"{field} holds 0 images and 0 labels"):
    dataclasses.replace(whole, **{field: part(tmp_path)})


def test_class_names_must_differ(whole):
  with pytest.raises(ValueError, match="classes 0 and 2 are both called 'cat'"):
    dataclasses.replace(whole, class_names=("cat", "dog", "cat"))


def test_fingerprint_depends_on_names_and_labels(tmp_path, whole):
  a, b, c = b"aa", b"", b"c"
  changed = {
    "label": {"train": part(tmp_path, 0, -1, 1, a=a, b=b, c=c)},
    "name": {"train": part(tmp_path, 1, -1, 0, a=a, b=b, x=c)},
    "fewer": {"train": part(tmp_path, 1, -1, a=a, b=b)},
    "class": {"class_names": ("cat", "ox")},
  }
  prints = [whole.fingerprint()]
  for changes in changed.values():
    prints.append(dataclasses.replace(whole, **changes).fingerprint())
  assert len(set(prints)) == len(changed) + 1
  # Test images may be repaired while a run continues.
  assert dataclasses.replace(whole, test=None).fingerprint() == prints[0]


def test_fingerprint_stays_when_images_are_mended(tmp_path, whole):
  before = whole.fingerprint()
  (tmp_path / "b.jpg").write_bytes(b"longer")
  (tmp_path / "c.jpg").unlink()
  assert dataclasses.replace(whole).fingerprint() == before


def test_fingerprint_ignores_pixels_place_and_the_catalogs_name(
  tmp_path, whole
):
  (tmp_path / "copy").mkdir()
  other = catalog.Catalog(
    name="beasts",
    class_names=("cat", "dog"),
    train=part(tmp_path / "copy", 1, -1, 0, a=b"ab", b=b"", c=b"d"),
    test=part(tmp_path / "copy", 0, d=b"x"),
  )
  assert other.fingerprint() == whole.fingerprint()


def test_fingerprint_takes_names_that_are_not_utf8(tmp_path, whole):
  odd = "\udcff.jpg"
  (tmp_path / odd).write_bytes(b"")
  reader = catalog.Files(root=str(tmp_path), paths=(odd,))
  test = catalog.Part(images=reader, labels=np.zeros(1, np.int32))
  assert len(dataclasses.replace(whole, test=test).fingerprint()) == 64
