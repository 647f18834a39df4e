import hashlib
import json

import numpy as np
import pytest

from paws_jax.data.labels import lists
from paws_jax.data.labels import split as split_lib
from paws_jax.data.sources import arrays as arrays_lib
from paws_jax.data.sources import catalog

# Thirty images of three classes, out of order.
LABELS = (np.arange(30) * 7 % 3).astype(np.int32)
# Two of each class by seed 0.
DRAWN = [7, 9, 13, 15, 26, 29]


def read(
  tmp_path, text, *, labels=LABELS, num_classes=3, names=None, images=None
):
  path = tmp_path / "labelled.txt"
  if isinstance(text, bytes):
    path.write_bytes(text)
  else:
    path.write_text(text, encoding="utf-8")
  return split_lib.from_file(
    path,
    num_images=len(labels),
    labels=labels,
    num_classes=num_classes,
    names=images,
    class_names=names,
  )


def photos(labels=LABELS):
  """A catalogue whose images are called class/number.jpg."""
  paths = [f"{'abc'[max(c, 0)]}/{i}.jpg" for i, c in enumerate(labels)]
  empty = catalog.Files(root="/dev", paths=("null",) * len(labels))

  class Named(catalog.Files):
    def key(self, index):
      return paths[index]

  return catalog.Catalog(
    name="photos",
    class_names=("a", "b", "c"),
    train=catalog.Part(
      images=Named(root=empty.root, paths=empty.paths), labels=labels
    ),
  )


def tiny_arrays():
  return arrays_lib.Arrays(
    name="tiny",
    class_names=("a", "b", "c"),
    train_images=np.zeros((30, 2, 2, 1), np.uint8),
    train_labels=LABELS,
    test_images=np.zeros((1, 2, 2, 1), np.uint8),
    test_labels=np.zeros(1, np.int32),
  )


def test_from_file_names_the_classes_without_a_label(tmp_path):
  # Rows 0, 1, 2 are of classes 0, 1, 2.
  with pytest.raises(ValueError, match=r"labels 1 of 3 classes; .*: 0, 2$"):
    read(tmp_path, "1\n")
  with pytest.raises(ValueError, match=r"these: 0 \('cat'\), 2 \('owl'\)$"):
    read(tmp_path, "1\n", names=("cat", "dog", "owl"))


def test_an_empty_file_labels_nothing(tmp_path):
  # For methods that need no labels; `training.no_labels` refuses the others.
  assert read(tmp_path, "# nothing\n").shape == (0,)


def test_from_file_does_not_list_hundreds_of_classes(tmp_path):
  labels = np.arange(1000, dtype=np.int32)
  with pytest.raises(ValueError, match=r": 1, 2, .*, 20 and 979 more$"):
    read(tmp_path, "0\n", labels=labels, num_classes=1000)


def test_from_file_refuses_a_missing_file_and_other_labels(tmp_path):
  with pytest.raises(FileNotFoundError, match=r"data\.labels_file = .*none"):
    split_lib.from_file(
      tmp_path / "none", num_images=30, labels=LABELS, num_classes=3
    )
  (tmp_path / "ids").write_text("0")
  with pytest.raises(ValueError, match="30 entries, but num_images = 31"):
    split_lib.from_file(
      tmp_path / "ids", num_images=31, labels=LABELS, num_classes=3
    )


def test_split_hash_depends_on_data_and_ids_but_not_on_their_order():
  assert split_lib.split_hash("f", np.array([1, 2])) == split_lib.split_hash(
    "f", np.array([2, 1], np.int32)
  )
  hashes = {
    split_lib.split_hash("f", np.array([1, 2])),
    split_lib.split_hash("g", np.array([1, 2])),
    split_lib.split_hash("f", np.array([12])),
    split_lib.split_hash("f", np.array([1])),
  }
  assert len(hashes) == 4
  assert hashlib.sha256(b"f\n1,2\n").hexdigest() in hashes


def test_choose_draws_and_round_trips_through_json():
  arrays = tiny_arrays()
  split = split_lib.choose(
    arrays, labels_per_class=2, split_seed=0, labels_file=""
  )
  assert split.labelled_ids.tolist() == DRAWN
  assert json.loads(json.dumps(split.as_json())) == {
    "dataset": "tiny",
    "fingerprint": arrays.fingerprint(),
    "split_seed": 0,
    "rule": "labels_per_class=2",
    "class_counts": [2, 2, 2],
    "num_labels": 6,
    "labelled_ids": DRAWN,
    "hash": split_lib.split_hash(arrays.fingerprint(), np.array(DRAWN)),
  }


def test_choose_prefers_the_file(tmp_path):
  path = tmp_path / "ids.txt"
  path.write_text("5\n0\n1\n2\n")
  split = split_lib.choose(
    tiny_arrays(), labels_per_class=2, split_seed=0, labels_file=str(path)
  )
  assert split.labelled_ids.tolist() == [0, 1, 2, 5]
  assert split.class_counts == (1, 1, 2)
  assert split.as_json()["split_seed"] is None


def test_choose_names_the_class_that_is_short():
  with pytest.raises(ValueError, match=r"class 0 \('a'\) has 10 "):
    split_lib.choose(
      tiny_arrays(), labels_per_class=12, split_seed=0, labels_file=""
    )


@pytest.mark.parametrize(
  ("ids", "counts", "message"),
  [
    (np.array([1, 2]), (2,), "labelled_ids is int64"),
    (np.array([2, 1], np.int32), (2,), "must .* increase strictly"),
    (np.array([1, 1], np.int32), (2,), "must .* increase strictly"),
    (np.array([1, 2], np.int32), (1, 2), "add up to 3, .* holds 2"),
  ],
)
def test_split_checks_itself(ids, counts, message):
  with pytest.raises(ValueError, match=message):
    split_lib.Split(
      dataset="tiny",
      fingerprint="f",
      split_seed=0,
      class_counts=counts,
      labelled_ids=ids,
    )


def test_from_file_refuses_images_without_a_class(tmp_path):
  labels = LABELS.copy()
  labels[[4, 7]] = -1
  with pytest.raises(
    ValueError, match=r"txt' lists 2 images without a label .* is row 4: remove"
  ):
    read(tmp_path, "0\n1\n2\n4\n7\n", labels=labels)
  images = [f"{i}.jpg" for i in range(30)]
  with pytest.raises(ValueError, match=r"is row 4 \('4.jpg'\): remove"):
    read(tmp_path, "4.jpg\n", labels=labels, images=images)


def test_choose_takes_a_catalog_and_leaves_unlabelled_images_out():
  labels = np.full(60, -1, np.int32)
  labels[1::2] = LABELS
  images = photos(labels)
  split = split_lib.choose(
    images, labels_per_class=2, split_seed=0, labels_file=""
  )
  assert split.labelled_ids.tolist() == [2 * row + 1 for row in DRAWN]
  assert split.fingerprint == images.fingerprint()
  assert (split.dataset, split.class_counts) == ("photos", (2, 2, 2))


def test_choose_refuses_a_file_that_names_images_without_a_label(tmp_path):
  path = tmp_path / "labels.txt"
  path.write_text("a/0.jpg\n")
  catalog_without = photos(np.full(3, -1, np.int32))
  settings = {"labels_per_class": 2, "split_seed": 0}
  got = split_lib.choose(catalog_without, labels_file="", **settings)
  assert (got.rule, got.class_counts) == ("no labels", (0, 0, 0))
  with pytest.raises(ValueError, match=r"lists 1 images without a label"):
    split_lib.choose(catalog_without, labels_file=str(path), **settings)


def test_choose_takes_all_labels_where_nothing_is_drawn():
  labels = LABELS.copy()
  labels[:9] = -1
  split = split_lib.choose(
    photos(labels), labels_per_class=0, split_seed=3, labels_file=""
  )
  assert split.labelled_ids.tolist() == list(range(9, 30))
  assert split.labelled_ids.dtype == np.int32
  assert split.class_counts == (7, 7, 7)
  assert (split.rule, split.split_seed) == ("all labels", None)


def test_choose_needs_a_label_of_each_class():
  labels = np.where(LABELS == 1, -1, LABELS).astype(np.int32)
  with pytest.raises(
    ValueError, match=r"set 'photos' labels 2 of 3 classes; .*: 1 \('b'\)$"
  ):
    split_lib.choose(
      photos(labels), labels_per_class=0, split_seed=0, labels_file=""
    )


def test_choose_draws_a_fraction():
  split = split_lib.choose(
    tiny_arrays(),
    labels_per_class=0,
    labels_fraction=0.2,
    split_seed=0,
    labels_file="",
  )
  assert split.labelled_ids.tolist() == DRAWN
  assert (split.rule, split.split_seed) == ("labels_fraction=0.2", 0)


def test_choose_reads_names_for_a_catalog(tmp_path):
  path = tmp_path / "names.txt"
  path.write_text("5.jpg\nb/1.jpg\n0.jpg\n")
  split = split_lib.choose(
    photos(), labels_per_class=2, split_seed=0, labels_file=str(path)
  )
  assert split.labelled_ids.tolist() == [0, 1, 5]
  assert (split.rule, split.split_seed) == ("labels_file", None)
  # Arrays have no names.
  with pytest.raises(ValueError, match=r"'5.jpg' is not an integer: write one"):
    split_lib.choose(
      tiny_arrays(), labels_per_class=2, split_seed=0, labels_file=str(path)
    )


def test_the_papers_lists_are_named_in_the_split(tmp_path, monkeypatch):
  path = tmp_path / "names.txt"
  path.write_text("0\n1\n2\n")
  digest = hashlib.sha256(path.read_bytes()).hexdigest()
  monkeypatch.setitem(lists._PUBLISHED, digest, "1pct")
  split = split_lib.choose(
    tiny_arrays(), labels_per_class=2, split_seed=0, labels_file=str(path)
  )
  assert split.as_json()["rule"] == "1pct"
