import hashlib
import itertools
import json

import numpy as np
import pytest

from paws_jax.data import sources
from paws_jax.data import splits

# Thirty images of three classes, out of order.
LABELS = (np.arange(30) * 7 % 3).astype(np.int32)


def draw(labels=LABELS, *, per_class=2, seed=0, num_classes=3, names=None):
  return splits.stratified(
    labels,
    labels_per_class=per_class,
    split_seed=seed,
    num_classes=num_classes,
    class_names=names,
  )


def read(tmp_path, text, *, labels=LABELS, num_classes=3, names=None):
  path = tmp_path / "labelled.txt"
  if isinstance(text, bytes):
    path.write_bytes(text)
  else:
    path.write_text(text, encoding="utf-8")
  return splits.from_file(
    path,
    num_images=len(labels),
    labels=labels,
    num_classes=num_classes,
    class_names=names,
  )


def tiny_arrays():
  return sources.Arrays(
    name="tiny",
    class_names=("a", "b", "c"),
    train_images=np.zeros((30, 2, 2, 1), np.uint8),
    train_labels=LABELS,
    test_images=np.zeros((1, 2, 2, 1), np.uint8),
    test_labels=np.zeros(1, np.int32),
  )


def test_draw_order_never_changes():
  # Any change here changes every split ever published: it needs a new purpose
  # or a new major version, not new numbers.
  order = splits.draw_order(8, purpose="labelled", seed=0, class_id=1)
  assert order.tolist() == [4, 2, 5, 1, 0, 3, 6, 7]
  assert draw().tolist() == [7, 9, 13, 15, 26, 29]


def test_draw_order_is_the_documented_rule():
  key = hashlib.blake2b(b"paws_jax labelled seed=5 class=2", digest_size=16)
  bits = np.random.Philox(key=int.from_bytes(key.digest(), "little"))
  want = sorted(range(50), key=bits.random_raw(50).tolist().__getitem__)
  got = splits.draw_order(50, purpose="labelled", seed=5, class_id=2)
  assert got.tolist() == want


@pytest.mark.parametrize(
  "changed", [{"purpose": "digits test"}, {"seed": 1}, {"class_id": 1}]
)
def test_draw_order_depends_on_each_argument(changed):
  asked = {"purpose": "labelled", "seed": 0, "class_id": 0}
  one = splits.draw_order(100, **asked)
  other = splits.draw_order(100, **{**asked, **changed})
  assert np.sum(one == other) < 10


def test_members_by_class_has_an_entry_for_an_absent_class():
  members = splits.members_by_class(np.array([2, 0, 2, 0]), num_classes=4)
  assert [m.tolist() for m in members] == [[1, 3], [], [0, 2], []]


def test_stratified_takes_as_many_of_each_class():
  ids = draw(per_class=4)
  assert ids.dtype == np.int32
  assert np.all(np.diff(ids) > 0)
  assert np.bincount(LABELS[ids]).tolist() == [4, 4, 4]


def test_stratified_draws_are_nested():
  ids = [set(draw(per_class=k).tolist()) for k in range(1, 11)]
  for smaller, larger in itertools.pairwise(ids):
    assert smaller < larger
  assert ids[-1] == set(range(30))


def test_stratified_depends_on_the_seed_and_on_nothing_else():
  assert draw(seed=3).tolist() == draw(seed=3).tolist()
  assert len({tuple(draw(seed=s).tolist()) for s in range(20)}) == 20
  assert draw(LABELS.astype(np.int64)).tolist() == draw().tolist()


def test_stratified_draw_of_a_class_ignores_the_other_classes():
  # Class 0 has the same size and place, the others swap their names.
  swapped = np.array([0, 2, 1], np.int32)[LABELS]
  one, other = draw(), draw(swapped)
  assert one[LABELS[one] == 0].tolist() == other[swapped[other] == 0].tolist()


def test_stratified_takes_every_image_about_as_often():
  times = np.zeros(30)
  for seed in range(600):
    times[draw(per_class=5, seed=seed)] += 1
  # Half of the images in each draw: 300 +- 12 (one standard deviation).
  assert abs(times.mean() - 300) < 1e-9
  assert np.all(np.abs(times - 300) < 5 * 12.25)


@pytest.mark.parametrize(
  ("arguments", "message"),
  [
    (
      {"per_class": 11, "names": ("cat", "dog", "owl")},
      r"class 0 \('cat'\) has 10 .*labels_per_class = 11: lower it",
    ),
    ({"num_classes": 4}, "class 3 has 0 training images, but .* = 2: lower"),
    ({"per_class": 0}, "labels_per_class = 0, but .* at least 1"),
    ({"num_classes": 2}, r"labels\[2\] = 2 is outside \[0, 2\), .* 9 others"),
    ({"labels": np.array([0, -1])}, r"labels\[1\] = -1 is outside \[0, 3\)"),
    ({"labels": np.eye(3, dtype=int)}, "rank 2, but must be integers of rank"),
    ({"labels": np.zeros(3)}, "labels is float64"),
  ],
)
def test_stratified_refuses(arguments, message):
  with pytest.raises(ValueError, match=message):
    draw(**arguments)


def test_from_file_reads_sorted_ids_past_comments_and_blanks(tmp_path):
  ids = read(tmp_path, "# my labels\n\n20\n3   # a cat\n  7\r\n1")
  assert ids.dtype == np.int32
  assert ids.tolist() == [1, 3, 7, 20]


def test_from_file_skips_a_byte_order_mark(tmp_path):
  assert read(tmp_path, b"\xef\xbb\xbf0\n1\n2\n").tolist() == [0, 1, 2]


@pytest.mark.parametrize(
  ("text", "message"),
  [
    ("0\n\n1.5\n", "line 3: '1.5' is not an integer"),
    ("0\n1_0\n", "line 2: '1_0' is not an integer"),
    ("0 1\n", "line 1: '0 1' is not an integer"),
    (b"0\n\xff\n", "line 2: .* is not an integer"),
    ("0\n30\n", "line 2: index 30 is out of range for 30 .* 0 to 29"),
    ("-1\n", "line 1: index -1 is out of range for 30"),
    ("# x\n4\n5\n4\n", "line 4: index 4 already stands in line 2"),
  ],
)
def test_from_file_names_the_bad_line(tmp_path, text, message):
  with pytest.raises(ValueError, match=f"labelled.txt', {message}"):
    read(tmp_path, text)


def test_from_file_names_the_classes_without_a_label(tmp_path):
  # Rows 0, 1, 2 are of classes 0, 1, 2.
  with pytest.raises(ValueError, match=r"labels 1 of 3 classes; .*: 0, 2$"):
    read(tmp_path, "1\n")
  with pytest.raises(ValueError, match=r"these: 0 \('cat'\), 2 \('owl'\)$"):
    read(tmp_path, "1\n", names=("cat", "dog", "owl"))
  with pytest.raises(ValueError, match="labels 0 of 3 classes"):
    read(tmp_path, "# nothing\n")


def test_from_file_does_not_list_hundreds_of_classes(tmp_path):
  labels = np.arange(1000, dtype=np.int32)
  with pytest.raises(ValueError, match=r": 1, 2, .*, 20, 979 more$"):
    read(tmp_path, "0\n", labels=labels, num_classes=1000)


def test_from_file_refuses_a_missing_file_and_other_labels(tmp_path):
  with pytest.raises(FileNotFoundError, match=r"data\.labels_file = .*none"):
    splits.from_file(
      tmp_path / "none", num_images=30, labels=LABELS, num_classes=3
    )
  (tmp_path / "ids").write_text("0")
  with pytest.raises(ValueError, match="30 entries, but num_images = 31"):
    splits.from_file(
      tmp_path / "ids", num_images=31, labels=LABELS, num_classes=3
    )


def test_split_hash_depends_on_data_and_ids_but_not_on_their_order():
  assert splits.split_hash("f", np.array([1, 2])) == splits.split_hash(
    "f", np.array([2, 1], np.int32)
  )
  hashes = {
    splits.split_hash("f", np.array([1, 2])),
    splits.split_hash("g", np.array([1, 2])),
    splits.split_hash("f", np.array([12])),
    splits.split_hash("f", np.array([1])),
  }
  assert len(hashes) == 4
  assert hashlib.sha256(b"f\n1,2\n").hexdigest() in hashes


def test_choose_draws_and_round_trips_through_json():
  arrays = tiny_arrays()
  split = splits.choose(
    arrays, labels_per_class=2, split_seed=0, labels_file=""
  )
  assert split.labelled_ids.tolist() == draw().tolist()
  assert json.loads(json.dumps(split.as_json())) == {
    "dataset": "tiny",
    "fingerprint": arrays.fingerprint(),
    "split_seed": 0,
    "class_counts": [2, 2, 2],
    "num_labels": 6,
    "labelled_ids": draw().tolist(),
    "hash": splits.split_hash(arrays.fingerprint(), draw()),
  }


def test_choose_prefers_the_file(tmp_path):
  path = tmp_path / "ids.txt"
  path.write_text("5\n0\n1\n2\n")
  split = splits.choose(
    tiny_arrays(), labels_per_class=2, split_seed=0, labels_file=str(path)
  )
  assert split.labelled_ids.tolist() == [0, 1, 2, 5]
  assert split.class_counts == (1, 1, 2)
  assert split.as_json()["split_seed"] is None


def test_choose_names_the_class_that_is_short():
  with pytest.raises(ValueError, match=r"class 0 \('a'\) has 10 "):
    splits.choose(
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
    splits.Split(
      dataset="tiny",
      fingerprint="f",
      split_seed=0,
      class_counts=counts,
      labelled_ids=ids,
    )
