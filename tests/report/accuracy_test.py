"""Accuracies out of results.json, whatever task has written them."""

import pytest

from paws_jax.evaluation import accuracy
from paws_jax.report import accuracy as accuracy_lib

PRETRAIN = {
  "task": "pretrain",
  "protocol": "soft_nn",
  "num_labels": 40,
  "num_test": 360,
  "steps": 330,
  "top1": 0.9,
  "top1_interval": [0.865, 0.927],
  "top5": 1.0,
  "raw_pixel_top1": 0.75,
  "raw_pixel_top5": 0.95,
  "leave_one_out_top1": 0.8,
}
EVALUATE = {
  "task": "evaluate",
  "protocol": "knn",
  "title": "20-NN",
  "part": "validation",
  "num_images": 50,
  "step": 330,
  "top1": 0.6,
  "top1_interval": [0.46, 0.72],
  "top5": 0.8,
}


def test_a_run_of_pre_training_has_three_accuracies():
  pixels = accuracy_lib.accuracies([PRETRAIN])[1]
  assert pixels.protocol == "soft NN on raw pixels"
  assert (pixels.top1, pixels.top5, pixels.count) == (0.75, 0.95, 360)
  # The row has no interval of it.
  assert pixels.interval == accuracy.confidence_interval(0.75, 360)
  parts = [a.part for a in accuracy_lib.accuracies([PRETRAIN])]
  assert parts == ["test", "test", "labelled"]


@pytest.mark.parametrize("part", ["test", "validation", "labelled"])
def test_each_baseline_of_pixels_has_its_images(part):
  row = PRETRAIN | {
    "raw_pixel_part": part,
    "num_raw_pixel": 50,
    "raw_pixel_1nn_top1": 0.6,
    "raw_pixel_logistic_top1": 0.7,
    "raw_pixel_logistic_top5": 0.9,
  }
  found = accuracy_lib.accuracies([row])[1:4]
  assert [a.protocol for a in found] == [
    f"{name} on raw pixels"
    for name in ("soft NN", "1-NN", "logistic regression")
  ]
  assert [(a.part, a.count) for a in found] == [(part, 50)] * 3
  assert [a.top5 for a in found] == [0.95, None, 0.9]
  # No encoder has a part in them: a later measurement takes their place.
  later = {"task": "baseline", "title": "1-NN on raw pixels", "part": part}
  later |= {"protocol": "pixels_knn", "num_images": 60, "top1": 0.65}
  found = accuracy_lib.accuracies([row, later])
  assert [
    (a.top1, a.step) for a in found if a.protocol == "1-NN on raw pixels"
  ] == [(0.65, None)]


def test_rows_of_an_evaluation_say_which_images():
  (found,) = accuracy_lib.accuracies([EVALUATE])
  assert found == accuracy_lib.Accuracy(
    task="evaluate",
    protocol="20-NN",
    part="validation",
    count=50,
    top1=0.6,
    interval=(0.46, 0.72),
    top5=0.8,
    step=330,
  )


def test_the_newest_of_a_kind_counts():
  again = PRETRAIN | {"steps": 660, "top1": 0.95}
  found = accuracy_lib.accuracies([PRETRAIN, EVALUATE, again])
  assert [a.step for a in found] == [330, 660, 660, 660]


def test_rows_without_an_accuracy_are_passed_over():
  nothing = {"task": "pretrain", "num_test": 0, "top1": None}
  assert accuracy_lib.accuracies([nothing, {"task": "plan"}]) == []


def test_the_headline_is_the_vote_on_unseen_images():
  found = accuracy_lib.accuracies([PRETRAIN, EVALUATE])
  assert accuracy_lib.best_known(found).top1 == 0.9
  no_test = PRETRAIN | {"num_test": 0, "top1": None, "raw_pixel_top1": None}
  found = accuracy_lib.accuracies([no_test, EVALUATE])
  # Of k-NN the validation accuracy is known, of the vote only leave-one-out.
  assert accuracy_lib.best_known(found).part == "labelled"
  assert accuracy_lib.best_known([]) is None


def test_the_headline_is_of_the_encoder_as_it_is_now():
  def row(task, step, top1):
    return {
      "task": task,
      "protocol": "soft_nn",
      "part": "test",
      "steps": step,
      "step": step,
      "num_test": 100,
      "num_images": 100,
      "top1": top1,
    }

  # Evaluated, trained for longer, and only then reported.
  rows = [
    row("pretrain", 10, 0.5),
    row("evaluate", 10, 0.5),
    row("pretrain", 20, 0.9),
  ]
  found = accuracy_lib.accuracies(rows)
  assert accuracy_lib.best_known(found).top1 == 0.9
