"""Rows and tables of results, whichever parts a data set has."""

import dataclasses
import re
import types

import numpy as np
import pytest
from matplotlib import image

from paws_jax import config as config_lib
from paws_jax import errors
from paws_jax.data import dataset as dataset_lib
from paws_jax.data.labels import split
from paws_jax.tasks import pretrain
from paws_jax.training import measure as measure_lib

NAMES = ("ant", "bee", "cat")
SPENT = {"wall_seconds": 3.0, "compile_seconds": 1.0, "steps_per_second": 2.0}


def part(per_class, seed):
  """Images whose first pixels tell the class, and noise."""
  labels = np.repeat(np.arange(3, dtype=np.int32), per_class)
  rng = np.random.default_rng(seed)
  images = rng.integers(0, 60, (len(labels), 2, 3, 1)).astype(np.uint8)
  images[np.arange(len(labels)), 0, labels, 0] = 255
  return dataset_lib.LabelledImages(images, labels, str)


def pixels(params, batch_stats, images):
  return images.reshape(len(images), -1) / 255


def experiment(*, test=4, validation=0, labelled=2, embed=None):
  ids = np.arange(3 * labelled, dtype=np.int32)
  dataset = dataset_lib.Dataset(
    name="toy",
    class_names=NAMES,
    split=split.Split(
      dataset="toy",
      fingerprint="f",
      split_seed=0,
      class_counts=(labelled,) * 3,
      labelled_ids=ids,
    ),
    labelled=part(labelled, 0),
    validation=part(validation, 1) if validation else None,
    test=part(test, 2) if test else None,
    unlabelled=None,
    in_memory=True,
    eval_view=None,
    resize=lambda images: images,
    make_pipeline=lambda **_: None,
    train_images=None,
    true_labels=np.full(3 * labelled, -1, np.int32),
    find_copies=lambda rows: np.arange(len(rows)),
    digests=lambda rows: [b""] * len(rows),
  )
  return types.SimpleNamespace(
    dataset=dataset,
    temperature=0.1,
    total_steps=7,
    embed=embed or pixels,
    trainer=types.SimpleNamespace(
      method=types.SimpleNamespace(
        shown_losses=("cross_entropy",),
        config=types.SimpleNamespace(class_head=False),
      )
    ),
  )


VARIABLES = {"params": None, "batch_stats": None}


def embeddings(built):
  parts = ("labelled", "validation", "test")
  return {
    name: measure_lib.embed(built, VARIABLES, name, step=7) for name in parts
  }


def measure(built):
  return measure_lib.measure(
    built, config_lib.resolve(config_lib.base()), embeddings(built), state=None
  )


def test_a_row_with_every_part():
  row = measure(experiment(validation=5))
  assert row["top1"] == row["validation_top1"] == 1.0
  assert row["num_test"] == 12
  assert row["num_validation"] == 15
  assert row["num_labels"] == 6
  assert row["raw_pixel_top1"] == row["leave_one_out_top1"] == 1.0
  low, high = row["top1_interval"]
  assert 0.7 < low < high == pytest.approx(1.0)
  table = pretrain.table(row | SPENT)
  assert "toy: 6 labels, 12 test images, 95 % intervals" in table
  for title in (
    "PAWS-NN  ",
    "PAWS-NN, validation",
    "soft NN on raw pixels",
    "1-NN on raw pixels",
    "logistic regression on raw pixels",
    "leave-one-out, labelled",
  ):
    assert f"\n{title}" in table


def test_without_test_images_the_labelled_ones_are_what_there_is():
  built = experiment(test=0)
  row = measure(built)
  assert row["num_test"] == 0
  for name in ("top1", "top5", "top1_interval"):
    assert row[name] is None
  assert row["leave_one_out_top1"] == 1.0
  assert row["raw_pixel_part"] == "labelled"
  assert "num_validation" not in row
  table = pretrain.table(row | SPENT)
  assert "toy: 6 labels, no test images" in table
  assert "PAWS-NN" not in table
  assert re.search(r"\nleave-one-out, labelled  +100.0% \[", table)
  assert "\n1-NN on raw pixels, leave-one-out " in table
  assert built.dataset.monitored_part == "labelled"


def test_validation_images_are_watched_before_test_images():
  assert experiment(validation=1).dataset.monitored_part == "validation"
  assert experiment().dataset.monitored_part == "test"


def test_baselines_of_validation_images_say_so():
  row = measure(experiment(test=0, validation=5))
  assert (row["raw_pixel_part"], row["num_raw_pixel"]) == ("validation", 15)
  table = pretrain.table(row | SPENT)
  assert "\nlogistic regression on raw pixels, validation " in table


def test_copies_are_no_second_image_of_a_class():
  built = experiment(labelled=2)
  copies = np.array([0, 1, 0, 1, 0, 5])
  classes = np.sort(built.dataset.labelled.labels)
  np.testing.assert_array_equal(classes, [0, 0, 1, 1, 2, 2])
  for found, possible in (
    (np.array([0, 0, 2, 2, 4, 4]), False),
    (copies, True),
  ):
    labelled = dataclasses.replace(
      built.dataset.labelled, labels=classes, find_copies=lambda f=found: f
    )
    dataset = dataclasses.replace(built.dataset, labelled=labelled)
    changed = types.SimpleNamespace(dataset=dataset)
    assert measure_lib.can_leave_one_out(changed) == possible


def test_one_label_a_class_cannot_be_left_out():
  row = measure(experiment(labelled=1))
  assert row["leave_one_out_top1"] is None
  assert "leave-one-out" not in pretrain.table(row | SPENT)
  assert row["raw_pixel_1nn_top1"] == 1.0
  # Neither test images nor two of a class: nothing to measure.
  row = measure(experiment(labelled=1, test=0))
  assert row["raw_pixel_top1"] is None
  assert "raw pixels" not in pretrain.table(row | SPENT)


def test_embeddings_that_are_not_finite_are_refused():
  def embed(params, state, rows):
    return np.where(np.arange(len(rows))[:, None] < 2, np.nan, 1.0)

  with pytest.raises(
    errors.NonFiniteError, match="embeddings of 2 of 12 test images are not"
  ):
    measure_lib.embed(experiment(embed=embed), VARIABLES, "test", step=7)


@pytest.mark.parametrize("test", [0, 4])
def test_the_figure_is_drawn_with_and_without_test_images(tmp_path, test):
  built = experiment(test=test, labelled=4)
  measure_lib.draw(tmp_path / "f.png", built, embeddings(built), [])
  assert image.imread(tmp_path / "f.png")[..., :3].min() < 0.5
