"""Noise of labels: fixed, for labelled images alone, and named."""

import dataclasses

import numpy as np
import pytest

from paws_jax import config as config_lib
from paws_jax import errors
from paws_jax.data import load_dataset
from paws_jax.data.labels import noise
from paws_jax.data.labels import split as split_lib


def _split(num_classes, ids, labels):
  counts = np.bincount(labels[ids], minlength=num_classes)
  return split_lib.Split(
    "some", "0", 0, tuple(counts.tolist()), ids.astype(np.int32), "all labels"
  )


def _noisy(labels, ids, **options):
  options = {"rate": 0.25, "seed": 0} | options
  return noise.apply(labels, _split(5, ids, labels), **options)


LABELS = (np.arange(4000) % 5).astype(np.int32)
IDS = np.arange(0, 4000, 2)
FIRST = [0, 2, 20, 38, 54]


def test_a_share_of_the_labelled_images_gets_another_class():
  noisy, split = _noisy(LABELS, IDS)
  replaced = noisy != LABELS
  assert not replaced[1::2].any()
  assert 0.22 < replaced[IDS].mean() < 0.28
  # All other classes, about equally often.
  offsets = np.bincount((noisy - LABELS)[replaced] % 5, minlength=5)
  assert offsets[0] == 0
  assert offsets[1:].min() > 0.7 * offsets[1:].max()
  assert split.class_counts == tuple(np.bincount(noisy[IDS]))
  assert split.rule == "all labels, label_noise=0.25 (seed 0)"
  assert noisy.dtype == np.int32


def test_the_draw_of_an_image_depends_on_the_seed_alone():
  noisy, _ = _noisy(LABELS, IDS)
  fewer, _ = _noisy(LABELS, IDS[:500])
  np.testing.assert_array_equal(fewer[IDS[:500]], noisy[IDS[:500]])
  other, _ = _noisy(LABELS, IDS, seed=1)
  assert (other != noisy).any()
  # Of NumPy's raw bits, which no version may change.
  assert np.flatnonzero(noisy != LABELS)[:5].tolist() == FIRST


def test_without_noise_all_stays():
  labels, split = _noisy(LABELS, IDS, rate=0.0)
  assert labels is LABELS
  assert split.rule == "all labels"


@pytest.mark.parametrize(
  ("labels", "num_classes", "message"),
  [
    (np.zeros(9, np.int32), 1, r"label_noise is 0\.9 but there is one class"),
    (np.arange(5, dtype=np.int32), 5, "has no label left"),
  ],
)
def test_noise_without_classes_for_it_is_refused(labels, num_classes, message):
  split = _split(num_classes, np.arange(len(labels)), labels)
  with pytest.raises(errors.InputError, match=message):
    noise.apply(labels, split, rate=0.9, seed=3)


def test_all_that_trains_sees_the_noise_and_the_test_does_not():
  section = dataclasses.replace(
    config_lib.Data(), label_noise=0.5, labels_per_class=40
  )
  views = config_lib.build_views(_digit_views())
  noisy = load_dataset.load(section, views)
  true = load_dataset.load(dataclasses.replace(section, label_noise=0.0), views)
  wrong = noisy.labelled.labels != true.labelled.labels
  assert 0.4 < wrong.mean() < 0.6
  np.testing.assert_array_equal(
    noisy.split.labelled_ids, true.split.labelled_ids
  )
  np.testing.assert_array_equal(noisy.test.labels, true.test.labels)
  np.testing.assert_array_equal(noisy.hidden.labels, true.hidden.labels)
  known = noisy.known_labels
  np.testing.assert_array_equal(
    known[noisy.split.labelled_ids], noisy.labelled.labels
  )
  assert (known < 0).sum() == len(known) - 400


def _digit_views():
  views = config_lib.base().views
  views.update(mean=(0.5,), std=(0.5,), eval_resize=8)
  views.large.size = 8
  views.small.count = 0
  return views
