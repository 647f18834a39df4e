"""Training images with hidden labels: which, and how often they are met."""

import types

import numpy as np
import pytest

from paws_jax import config as config_lib
from paws_jax.data import dataset as dataset_lib
from paws_jax.data import load_dataset
from paws_jax.data.labels import hidden
from paws_jax.training import pseudo_labels
from tests import tiny_recipe


def test_labelled_images_and_such_without_a_label_are_left_out():
  labels = np.array([0, 1, -1, 2, 1, -1, 0])
  assert hidden.sample_rows(labels, np.array([1, 6])).tolist() == [0, 3, 4]
  assert hidden.sample_rows(labels, np.array([0, 1, 3, 4, 6])).tolist() == []


def test_a_sample_is_the_same_every_time_and_of_all_classes():
  labels = np.repeat(np.arange(10), 1000)
  first = hidden.sample_rows(labels, np.arange(3))
  assert len(first) == hidden.MAX_ROWS == 1000
  assert np.all(np.diff(first) > 0)
  assert first.min() >= 3
  np.testing.assert_array_equal(first, hidden.sample_rows(labels, np.arange(3)))
  # In any order of the classes, each has about its share.
  for order in (labels, np.tile(np.arange(10), 1000)):
    counts = np.bincount(
      order[hidden.sample_rows(order, np.arange(3))], minlength=10
    )
    assert counts.min() > 60


class Images:
  """Of which some cannot be read."""

  def __init__(self, readable):
    self.readable = np.array(readable)


def make_experiment(readable):
  names = "image {}".format
  return types.SimpleNamespace(
    temperature=0.1,
    dataset=types.SimpleNamespace(
      num_classes=2,
      hidden=dataset_lib.LabelledImages(
        Images(readable), np.array([0, 1, 1]), names
      ),
      labelled=dataset_lib.LabelledImages(
        np.zeros((2, 1)), np.array([0, 1]), names
      ),
    ),
  )


SUPPORTS = np.eye(2, dtype=np.float32)
# The third image is near the wrong support.
QUERIES = np.array([[1, 0.1], [0.1, 1], [1, 0.2]], np.float32)


@pytest.mark.parametrize(
  ("readable", "expected"),
  [([True, True, True], 2 / 3), ([True, True, False], 1.0)],
)
def test_accuracy_is_over_the_images_that_can_be_read(readable, expected):
  experiment = make_experiment(readable)
  found = pseudo_labels.accuracy(experiment, QUERIES, SUPPORTS)
  assert found == pytest.approx({"pseudo_label_accuracy": expected})


@pytest.mark.parametrize("per_class", [2, 0])
def test_data_in_memory_know_what_they_hide(per_class):
  section = config_lib.base().data
  section.labels_per_class = per_class
  views = config_lib.build_views(tiny_recipe.get_config().views)
  dataset = load_dataset.load(config_lib.Data(**section), views)
  if not per_class:
    assert dataset.hidden is None
    return
  assert len(dataset.hidden) == 1000
  labelled = {dataset.labelled.name(i) for i in range(len(dataset.labelled))}
  shown = {dataset.hidden.name(i) for i in range(1000)}
  assert len(shown) == 1000
  assert not labelled & shown
  # The part that is trained on still knows no label.
  assert set(dataset.unlabelled.labels.tolist()) == {-1}
  assert set(dataset.hidden.labels.tolist()) == set(range(10))


def test_nothing_is_said_where_nothing_can_be_read():
  experiment = make_experiment([False] * 3)
  assert pseudo_labels.accuracy(experiment, QUERIES, SUPPORTS) == {}
