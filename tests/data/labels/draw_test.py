import hashlib
import itertools

import numpy as np
import pytest

from paws_jax.data.labels import draw as draw_lib

# Thirty images of three classes, out of order.
LABELS = (np.arange(30) * 7 % 3).astype(np.int32)


def draw(
  labels=LABELS,
  *,
  per_class=2,
  fraction=0.0,
  seed=0,
  num_classes=3,
  names=None,
):
  return draw_lib.stratified(
    labels,
    labels_per_class=0 if fraction else per_class,
    labels_fraction=fraction,
    split_seed=seed,
    num_classes=num_classes,
    class_names=names,
  )


def test_draw_order_never_changes():
  # Any change here changes every split ever published: it needs a new purpose
  # or a new major version, not new numbers.
  order = draw_lib.draw_order(8, purpose="labelled", seed=0, class_id=1)
  assert order.tolist() == [4, 2, 5, 1, 0, 3, 6, 7]
  assert draw().tolist() == [7, 9, 13, 15, 26, 29]


def test_draw_order_is_the_documented_rule():
  key = hashlib.blake2b(b"paws_jax labelled seed=5 class=2", digest_size=16)
  bits = np.random.Philox(key=int.from_bytes(key.digest(), "little"))
  want = sorted(range(50), key=bits.random_raw(50).tolist().__getitem__)
  got = draw_lib.draw_order(50, purpose="labelled", seed=5, class_id=2)
  assert got.tolist() == want


@pytest.mark.parametrize(
  "changed", [{"purpose": "digits test"}, {"seed": 1}, {"class_id": 1}]
)
def test_draw_order_depends_on_each_argument(changed):
  asked = {"purpose": "labelled", "seed": 0, "class_id": 0}
  one = draw_lib.draw_order(100, **asked)
  other = draw_lib.draw_order(100, **{**asked, **changed})
  assert np.sum(one == other) < 10


def test_members_by_class_has_an_entry_for_an_absent_class():
  members = draw_lib.members_by_class(np.array([2, 0, 2, 0]), num_classes=4)
  assert [m.tolist() for m in members] == [[1, 3], [], [0, 2], []]


def test_members_by_class_leaves_unlabelled_rows_out():
  members = draw_lib.members_by_class(
    np.array([1, -1, 0, 1, -1]), num_classes=2
  )
  assert [m.tolist() for m in members] == [[2], [0, 3]]
  nobody = draw_lib.members_by_class(np.array([-1, -1]), num_classes=2)
  assert [len(m) for m in nobody] == [0, 0]


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
    ({"num_classes": 4}, "class 3 has 0 labelled .*images, but .* = 2: lower"),
    ({"per_class": 0}, "labels_per_class = 0, but .* at least 1"),
    ({"num_classes": 2}, r"labels\[2\] = 2 is outside \[-1, 2\), .* 9 oth"),
    ({"labels": np.array([0, -2])}, r"labels\[1\] = -2 is outside \[-1, 3\)"),
    ({"fraction": -0.1}, r"labels_fraction = -0.1, but must be in \[0, 1\]"),
    ({"fraction": 1.5}, r"labels_fraction = 1.5, but must be in \[0, 1\]"),
    (
      {"fraction": 0.1, "num_classes": 4},
      "class 3 has 0 labelled .*labels_fraction = 0.1 needs at least 1: lower",
    ),
    ({"labels": np.eye(3, dtype=int)}, "rank 2, but must be integers of rank"),
    ({"labels": np.zeros(3)}, "labels are float64"),
  ],
)
def test_stratified_refuses(arguments, message):
  with pytest.raises(ValueError, match=message):
    draw(**arguments)


def test_unlabelled_rows_are_not_drawn_and_change_no_draw():
  labels = np.full(60, -1, np.int32)
  labels[1::2] = LABELS
  assert (
    draw(labels, per_class=3).tolist() == (2 * draw(per_class=3) + 1).tolist()
  )


def test_a_fraction_is_drawn_of_each_class():
  # 40, 10 and 2 images.
  labels = np.repeat([0, 1, 2], [40, 10, 2])
  for fraction, counts in (
    (0.01, [1, 1, 1]),
    (0.1, [4, 1, 1]),
    (0.25, [10, 2, 1]),  # 2.5 is rounded to the even number
    (0.35, [14, 4, 1]),
    (1.0, [40, 10, 2]),
  ):
    ids = draw(labels, fraction=fraction)
    assert ids.dtype == np.int32
    assert np.bincount(labels[ids]).tolist() == counts


def test_fractions_are_nested_in_each_other_and_in_numbers():
  labels = np.repeat([0, 1, 2], [40, 30, 20])
  fractions = np.linspace(0.02, 1.0, 50)
  ids = [set(draw(labels, fraction=f).tolist()) for f in fractions]
  for smaller, larger in itertools.pairwise(ids):
    assert smaller <= larger
  assert ids[-1] == set(range(90))
  tenth = set(draw(labels, fraction=0.1).tolist())
  assert set(draw(labels, per_class=2).tolist()) <= tenth
  assert tenth <= set(draw(labels, per_class=4).tolist())


def test_a_number_and_a_fraction_exclude_each_other():
  with pytest.raises(
    ValueError, match=r"per_class = 2 and .*fraction = 0.1 excl"
  ):
    draw_lib.stratified(
      LABELS,
      labels_per_class=2,
      labels_fraction=0.1,
      split_seed=0,
      num_classes=3,
    )
