"""Which images make up a step, by counting."""

import collections
import functools
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from paws_jax.data import sampling
from tests import golden_reference

pytestmark = pytest.mark.unoptimized

# Classes 0 ... 4 with 3, 5, 8, 4 and 6 labelled images among 60.
COUNTS = (3, 5, 8, 4, 6)
NAMES = ("ant", "bee", "cat", "dog", "elk")
STEPS = 2000
# What a chi-square statistic exceeds once in a thousand, by degrees of freedom.
CHI_SQUARE = {3: 16.27, 4: 18.47, 5: 20.52, 7: 24.32, 16: 39.25}


def _labelled(seed=0):
  """(ids, labels of all 60 images): the labels of the others are lies."""
  rng = np.random.default_rng(seed)
  ids = rng.permutation(60)[: sum(COUNTS)]
  labels = rng.integers(0, len(COUNTS), 60)
  labels[ids] = np.repeat(np.arange(len(COUNTS)), COUNTS)
  return ids, labels


@pytest.fixture(name="index", scope="module")
def _index():
  return sampling.label_index(*_labelled(), class_names=NAMES)


@functools.cache
def _jitted(classes_per_step, images_per_class):
  def draw(index, seed, steps):
    return jax.vmap(
      lambda step: sampling.class_balanced_indices(
        index,
        seed=seed,
        step=step,
        classes_per_step=classes_per_step,
        images_per_class=images_per_class,
      )
    )(steps)

  return jax.jit(draw)


def _draws(index, *, classes_per_step, images_per_class, seed=0, steps=None):
  """NumPy (ids [T, N], labels [T, N], class_ids [T, C]); first T steps."""
  steps = jnp.arange(STEPS) if steps is None else jnp.asarray(steps)
  draw = _jitted(classes_per_step, images_per_class)
  return tuple(map(np.asarray, draw(index, seed, steps)))


def _chi_square(counts):
  """Statistic of [k] counts against equal ones."""
  expected = np.mean(counts)
  return np.sum((counts - expected) ** 2) / expected


def test_label_index_groups_the_labelled_images_by_class(index):
  ids, labels = _labelled()
  np.testing.assert_array_equal(index.counts, COUNTS)
  assert index.ids.shape == (5, 8)
  for k, count in enumerate(COUNTS):
    expected = sorted(i for i in ids if labels[i] == k)
    np.testing.assert_array_equal(index.ids[k, :count], expected)
    np.testing.assert_array_equal(index.ids[k, count:], -1)


def test_label_index_does_not_depend_on_the_order_of_the_ids(index):
  ids, labels = _labelled()
  again = sampling.label_index(ids[::-1], labels, class_names=NAMES)
  np.testing.assert_array_equal(again.ids, index.ids)


def test_classes_without_a_labelled_image_are_refused_by_name():
  ids, labels = _labelled()
  kept = ids[~np.isin(labels[ids], (1, 4))]
  with pytest.raises(ValueError, match=r"2 of 5 classes .*: bee, elk") as error:
    sampling.label_index(kept, labels, class_names=NAMES)
  assert "leave the class out" in str(error.value)


@pytest.mark.parametrize("classes_per_step", [5, 2])
def test_a_step_has_equal_numbers_of_distinct_images_per_class(
  index, classes_per_step
):
  labelled, true_labels = _labelled()
  ids, labels, class_ids = _draws(
    index, classes_per_step=classes_per_step, images_per_class=3
  )
  assert ids.dtype == labels.dtype == class_ids.dtype == np.int32
  assert ids.shape == labels.shape == (STEPS, classes_per_step * 3)
  assert class_ids.shape == (STEPS, classes_per_step)
  assert np.all(np.diff(np.sort(ids)) > 0)
  assert np.all(np.diff(np.sort(class_ids)) > 0)
  np.testing.assert_array_equal(labels, true_labels[ids])
  np.testing.assert_array_equal(labels, np.repeat(class_ids, 3, axis=1))
  assert set(ids.ravel()) == set(labelled)


@pytest.mark.parametrize("images_per_class", [7, 13])
def test_too_few_images_are_repeated_floor_or_ceil_times(
  index, images_per_class
):
  ids, labels, _ = _draws(
    index, classes_per_step=5, images_per_class=images_per_class
  )
  one_more = collections.Counter()
  for step in range(200):
    for k, count in enumerate(COUNTS):
      drawn = collections.Counter(ids[step, labels[step] == k])
      assert drawn.total() == images_per_class
      floor, rest = divmod(images_per_class, count)
      expected = [floor] * (count - rest) + [floor + 1] * rest
      assert sorted(drawn.values()) == [t for t in expected if t]
      if k == 0:
        one_more.update(i for i, times in drawn.items() if times > floor)
  # Of class 0 one image of three is drawn once more, another in each step.
  assert len(one_more) == 3
  assert _chi_square(np.array(list(one_more.values()))) < 13.82


def test_one_label_per_class_gives_that_image_every_time():
  index = sampling.label_index(
    np.array([4, 2, 9]), np.arange(10) % 3, class_names=("a", "b", "c")
  )
  ids, labels, _ = _draws(
    index, classes_per_step=3, images_per_class=2, steps=range(5)
  )
  np.testing.assert_array_equal(ids, np.array([9, 4, 2])[labels])


def test_classes_are_covered_evenly_in_every_round(index):
  _, _, class_ids = _draws(index, classes_per_step=1, images_per_class=2)
  rounds = class_ids.reshape(-1, 5)
  np.testing.assert_array_equal(
    np.sort(rounds), np.tile(np.arange(5), (len(rounds), 1))
  )
  # Each round in an order of its own: all 120 come up.
  assert len({tuple(order) for order in rounds}) > 100
  for place in rounds.T:
    assert _chi_square(np.bincount(place)) < CHI_SQUARE[4]


def test_classes_per_step_that_does_not_divide_the_classes(index):
  # floor(5 / 2) = 2 steps a round: four classes of the five, each once.
  _, _, class_ids = _draws(index, classes_per_step=2, images_per_class=3)
  for of_round in class_ids.reshape(-1, 4):
    assert len(set(of_round)) == 4
  # Each class is left out of a fifth of the rounds.
  left_out = STEPS // 2 - np.bincount(class_ids.ravel(), minlength=5)
  assert _chi_square(left_out) < CHI_SQUARE[4]


def test_draws_are_uniform(index):
  ids, labels, _ = _draws(index, classes_per_step=5, images_per_class=3)
  first_ids, first_labels = ids[:, ::3], labels[:, ::3]
  for k, count in enumerate(COUNTS[1:], start=1):
    members = index.ids[k, :count]
    times = np.bincount(ids[labels == k], minlength=60)[members]
    assert times.sum() == 3 * STEPS
    # 3 of n without replacement vary (n - 3) / (n - 1) times as much as with.
    statistic = _chi_square(times) * (count - 1) / (count - 3)
    assert statistic < CHI_SQUARE[count - 1]
    first = np.bincount(first_ids[first_labels == k], minlength=60)[members]
    assert _chi_square(first) < CHI_SQUARE[count - 1]


def test_draws_of_consecutive_steps_are_independent(index):
  ids, labels, _ = _draws(index, classes_per_step=5, images_per_class=3)
  first = ids[:, ::3][labels[:, ::3] == 1]
  place = np.searchsorted(index.ids[1, : COUNTS[1]], first)
  pairs = np.zeros((5, 5))
  np.add.at(pairs, (place[:-1], place[1:]), 1)
  expected = pairs.sum(1, keepdims=True) * pairs.sum(0, keepdims=True)
  expected /= pairs.sum()
  assert np.sum((pairs - expected) ** 2 / expected) < CHI_SQUARE[16]


def test_a_draw_is_a_function_of_seed_and_step_alone(index):
  sizes = {"classes_per_step": 2, "images_per_class": 3}
  many = _draws(index, **sizes)
  backward = _draws(index, steps=jnp.arange(STEPS)[::-1], **sizes)
  for a, b in zip(many, backward, strict=True):
    np.testing.assert_array_equal(a, b[::-1])
  eager = sampling.class_balanced_indices(index, seed=0, step=5, **sizes)
  for a, b in zip(many, eager, strict=True):
    np.testing.assert_array_equal(a[5], b)


def test_another_seed_gives_another_draw(index):
  orders, sets = set(), set()
  for seed in range(4):
    ids, _, class_ids = _draws(
      index, classes_per_step=5, images_per_class=3, seed=seed
    )
    orders.add(class_ids[:3].tobytes())
    sets.add(np.sort(ids[:3]).tobytes())
  assert len(orders) == len(sets) == 4


def test_class_counts_of_batches_equal_the_reference():
  path = golden_reference.DIRECTORY / "sampler.json"
  golden = json.loads(path.read_text())["single_all_classes"]
  targets = np.array(golden["targets"])
  per_class, num_classes = golden["batch_size"], golden["classes_per_batch"]
  index = sampling.label_index(
    np.arange(len(targets)), targets, class_names=tuple("abcde")
  )
  batches = [b for epoch in golden["ranks"][0]["epochs"] for b in epoch]
  ids, _, _ = _draws(
    index,
    classes_per_step=num_classes,
    images_per_class=per_class,
    steps=range(len(batches)),
  )
  for ours, reference in zip(ids, batches, strict=True):
    np.testing.assert_array_equal(
      np.bincount(targets[ours]), np.bincount(targets[reference])
    )
    assert len(set(ours)) == len(set(reference)) == per_class * num_classes


def test_check_support_refuses_more_classes_than_there_are(index):
  with pytest.raises(ValueError, match=r"classes_per_step is 6 .* 5 classes"):
    sampling.check_support(
      index,
      class_names=NAMES,
      classes_per_step=6,
      images_per_class=1,
      with_replacement=True,
    )


def test_check_support_names_the_class_with_the_fewest_labels(index):
  sizes = {"class_names": NAMES, "classes_per_step": 5, "images_per_class": 4}
  with pytest.raises(ValueError, match=r"'ant' has 3 .*images_per_class is 4"):
    sampling.check_support(index, with_replacement=False, **sizes)
  sampling.check_support(index, with_replacement=True, **sizes)
  sizes["images_per_class"] = 3
  sampling.check_support(index, with_replacement=False, **sizes)


def test_epoch_order_is_a_permutation_that_changes_with_epoch_and_seed():
  orders = [
    np.asarray(sampling.epoch_order(50, seed=seed, epoch=epoch))
    for seed in (0, 1)
    for epoch in (0, 1, 2)
  ]
  for order in orders:
    assert order.dtype == np.int32
    np.testing.assert_array_equal(np.sort(order), np.arange(50))
  assert len({order.tobytes() for order in orders}) == 6
  jitted = jax.jit(lambda epoch: sampling.epoch_order(50, seed=0, epoch=epoch))
  np.testing.assert_array_equal(jitted(2), orders[2])


def _uniform(index, step, *, first_step, num_steps, batch_size, seed=0):
  """(ids, labels, slots) of a step out of a call's stream."""
  ids, labels = sampling.labelled_images(index)
  sizes = {"num_images": len(ids), "batch_size": batch_size}
  epoch, place = sampling.uniform_start(first_step, **sizes)
  orders = [
    np.asarray(sampling.labelled_order(len(ids), seed=seed, epoch=epoch + k))
    for k in range(sampling.num_orders(num_steps, **sizes))
  ]
  stream = sampling.LabelledStream(
    ids, labels, np.stack(orders), first_step, np.int32(place)
  )
  return sampling.uniform_indices(stream, step=step, batch_size=batch_size)


@pytest.mark.parametrize("batch_size", [1, 4, 13, 26, 27, 60])
def test_a_uniform_stream_visits_every_labelled_image_once_an_epoch(
  index, batch_size
):
  labelled, true_labels = _labelled()
  steps = [
    _uniform(index, step, first_step=step, num_steps=1, batch_size=batch_size)
    for step in range(-(-3 * 26 // batch_size))
  ]
  ids, labels, _ = (np.concatenate(parts) for parts in zip(*steps, strict=True))
  assert ids.dtype == labels.dtype == np.int32
  np.testing.assert_array_equal(labels, true_labels[ids])
  epochs = ids[: 3 * 26].reshape(3, 26)
  np.testing.assert_array_equal(np.sort(epochs), [np.sort(labelled)] * 3)
  assert len({tuple(epoch) for epoch in epochs.tolist()}) == 3
  # An image that is drawn twice in a step is told apart.
  for step_ids, _, slots in steps:
    pairs = set(zip(step_ids.tolist(), slots.tolist(), strict=True))
    assert len(pairs) == batch_size
    assert slots.min() == 0


@pytest.mark.parametrize(("num_steps", "batch_size"), [(2, 4), (3, 9), (4, 26)])
def test_a_uniform_stream_does_not_depend_on_where_a_call_begins(
  index, num_steps, batch_size
):
  for step in range(24):
    first_step = step - step % num_steps
    drawn = _uniform(
      index,
      step,
      first_step=first_step,
      num_steps=num_steps,
      batch_size=batch_size,
    )
    alone = _uniform(
      index, step, first_step=step, num_steps=1, batch_size=batch_size
    )
    for ours, expected in zip(drawn, alone, strict=True):
      np.testing.assert_array_equal(ours, expected)


def test_a_uniform_stream_changes_with_the_seed(index):
  settings = {"first_step": 0, "num_steps": 1, "batch_size": 26}
  first = _uniform(index, 0, **settings)[0]
  assert np.any(_uniform(index, 0, seed=1, **settings)[0] != first)


def test_a_uniform_stream_is_found_at_late_steps():
  # Beyond 2^31 images.
  settings = {"num_images": 1_281_167, "batch_size": 6720}
  assert sampling.uniform_start(2_000_000, **settings) == (10_490, 558_170)


def test_more_labelled_images_a_step_than_there_are_need_replacement(index):
  with pytest.raises(ValueError, match=r"with 27 images a step, but 26 are"):
    sampling.check_uniform(index, batch_size=27, with_replacement=False)
  sampling.check_uniform(index, batch_size=27, with_replacement=True)
  sampling.check_uniform(index, batch_size=26, with_replacement=False)


def _keys(ids, views, *, seed=0, stream=sampling.UNLABELLED_VIEWS, step=0):
  keys = sampling.view_keys(
    jnp.asarray(ids), jnp.asarray(views), seed=seed, stream=stream, step=step
  )
  return np.asarray(jax.random.key_data(keys))


def test_view_keys_are_all_distinct():
  views = np.tile(np.arange(3), (10, 1))
  settings = [
    {},
    {"seed": 1},
    {"step": 1},
    {"stream": sampling.SUPPORT_VIEWS},
  ]
  keys = np.stack([_keys(np.arange(10), views, **s) for s in settings])
  assert keys.shape[:3] == (4, 10, 3)
  assert len({key.tobytes() for key in keys.reshape(-1, keys.shape[-1])}) == 120


def test_view_keys_do_not_depend_on_the_rest_of_the_batch():
  views = np.tile(np.arange(3), (10, 1))
  whole = _keys(np.arange(10), views)
  np.testing.assert_array_equal(_keys([7, 2], views[:2, 1:]), whole[[7, 2], 1:])


def test_each_draw_of_an_image_has_views_of_its_own():
  slots = np.array([0, 1, 0, 2], np.int32)
  numbers = sampling.view_numbers(slots, 3)
  assert numbers.tolist() == [[0, 1, 2], [3, 4, 5], [0, 1, 2], [6, 7, 8]]
  assert numbers.dtype == np.int32
  on_device = sampling.view_numbers(jnp.asarray(slots), 3)
  np.testing.assert_array_equal(on_device, numbers)
