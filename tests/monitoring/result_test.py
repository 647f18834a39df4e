"""Findings about results, and what may help."""

import contextlib
import dataclasses
import re

import numpy as np
import pytest

from paws_jax import config as config_lib
from paws_jax.config import methods
from paws_jax.monitoring import monitor as monitor_lib
from paws_jax.monitoring import remedies
from paws_jax.monitoring import result
from paws_jax.monitoring import rules
from paws_jax.runs import metrics
from paws_jax.training import health


def recipe(method="paws", **changes):
  config = config_lib.base(method)
  config.update_from_flattened_dict(
    {name.replace("__", "."): value for name, value in changes.items()}
  )
  return config_lib.resolve(config)


def facts(built=None, num_evaluated=400):
  return rules.Facts(
    num_classes=10,
    labels_per_class=4,
    images_per_step=128,
    total_steps=1000,
    warmup_steps=50,
    temperature=0.1,
    num_evaluated=num_evaluated,
    recipe=built or recipe(),
  )


def row(**changes):
  return {
    "top1": 0.6,
    "raw_pixel_part": "test",
    "raw_pixel_top1": 0.5,
    "raw_pixel_1nn_top1": 0.55,
    "raw_pixel_logistic_top1": 0.58,
  } | changes


FLAT = [0.3, 0.5, 0.6, 0.6, 0.6, 0.6, 0.6, 0.6]
RISING = [0.1, 0.2, 0.25, 0.3, 0.4, 0.45, 0.55, 0.6]


def judged(result_row, accuracies=FLAT, about=None):
  monitor = monitor_lib.Monitor(about or facts())
  for k, accuracy in enumerate(accuracies):
    monitor.add({"step": k, "soft_nn_top1": accuracy})
  return monitor.add_result(result_row, step=1000)


def test_an_encoder_better_than_the_pixels_has_no_finding():
  assert judged(row()) == []
  # Of older rows, and where nothing could be measured.
  assert judged({"top1": 0.6}) == judged({"top1": None}) == []


@pytest.mark.parametrize(
  ("changes", "words"),
  [
    ({"raw_pixel_top1": 0.61}, "60.0% correctly, and the vote of raw pixels"),
    ({"raw_pixel_1nn_top1": 0.7}, "the nearest image by raw pixels 70.0%"),
    ({"raw_pixel_logistic_top1": 0.601}, "logistic regression on raw pixels"),
    (
      {"raw_pixel_part": "validation", "validation_top1": 0.2, "top1": None},
      "of the validation images",
    ),
    (
      {"raw_pixel_part": "labelled", "leave_one_out_top1": 0.2, "top1": None},
      "of the labelled images",
    ),
  ],
)
def test_an_encoder_worse_than_any_baseline_is_reported(changes, words):
  (found,) = judged(row(**changes))
  assert found.name == "below raw pixels"
  assert found.step == 1000
  assert words in found.sentence
  # The run's last line never says that nothing was found.
  line = {"step": 1000} | found.as_row()
  assert monitor_lib.summary([line]).startswith("health: below raw pixels; ")


def test_training_longer_is_a_remedy_where_accuracy_rises():
  below = row(raw_pixel_top1=0.9)
  (found,) = judged(below)
  assert "train longer" not in found.remedy.lower()
  found, longer = judged(below, RISING)
  assert "train longer, since accuracy was still rising" in found.remedy.lower()
  assert longer.name == "still improving"
  assert "42.5% in the third quarter" in longer.sentence
  assert longer.remedy.startswith("Train longer: raise train.epochs")
  # Without enough evaluations nothing is known.
  (found,) = judged(below, RISING[:3])
  assert "Train longer: raise train.epochs" in found.remedy
  assert "eval.every_steps" in found.remedy


@pytest.mark.parametrize(
  ("accuracies", "num_images", "rises"),
  [
    (RISING, 400, True),
    (FLAT, 400, False),
    ([0.4, 0.5, 0.6, 0.65], 400, True),
    ([0.4, 0.5, 0.6], 400, False),
    # Less than the noise of so few images.
    ([0.4, 0.5, 0.6, 0.65], 20, False),
    # It was higher before.
    ([0.7, 0.6, 0.5, 0.6], 400, False),
    # The curve of the shipped recipe.
    (
      [0.914, 0.957, 0.958, 0.961, 0.968, 0.969, 0.972, 0.968, 0.971, 0.973],
      360,
      False,
    ),
    ([], 0, False),
  ],
)
def test_rising_is_more_than_noise(accuracies, num_images, rises):
  assert bool(result.improving(accuracies, num_images)) == rises


def test_noise_alone_seldom_rises():
  rng = np.random.default_rng(0)
  curves = rng.binomial(200, 0.8, (400, 10)) / 200
  rate = np.mean([bool(result.improving(list(c), 200)) for c in curves])
  assert rate < 0.1


def test_findings_about_a_result_are_kept_and_end(tmp_path, capsys):
  monitor = monitor_lib.Monitor(facts())
  worse, better = row(raw_pixel_top1=0.9), row()
  with contextlib.closing(metrics.Writer(tmp_path, first_step=1000)) as log:
    health.judge_result(monitor, log, worse, step=1000)
  assert (
    "! below raw pixels (step 1000): of the test" in capsys.readouterr().out
  )
  # A run that is extended reads the lines of the earlier one.
  written = metrics.read(tmp_path / metrics.METRICS)
  for result_row, added in ((worse, 0), (better, 1)):
    extended = monitor_lib.Monitor(facts())
    for line in written:
      extended.add(line)
    with contextlib.closing(metrics.Writer(tmp_path, first_step=2000)) as log:
      health.judge_result(extended, log, result_row, step=2000)
    lines = metrics.read(tmp_path / metrics.METRICS)
    assert len(lines) == 1 + added
  assert monitor_lib.summary(lines) == (
    "health: below raw pixels (ended); see the lines that begin with !"
  )


# Numbers for which every remedy is asked.
NOW = {"view_agreement": 0.5, "improving": 1.0}
PAWS = {"support__images_per_class": 4}
IN_FORCE = [
  ("support_loss_weight to 1", PAWS, PAWS | {"method__support_loss_weight": 1}),
  ("me_max to True", {"method__me_max": False}, {}),
  (
    "sharpen_temperature to 0.25",
    {"method__sharpen_temperature": 0.5},
    {"method__sharpen_temperature": 0.25},
  ),
  ("set method.prior", {}, {"method__prior": "labels"}),
  ("lower optim.start_lr", {}, {"optim__start_lr": 0.0}),
  ("model.init_from", {}, {"model__init_from": "weights.pth"}),
  ("names a method that", {}, {"method": "ropaws"}),
  (
    "or method.sharpen_temperature",
    {},
    {"method__sharpen_temperature": 1.0},
  ),
]


def every_remedy(built):
  texts = [rule.remedy(NOW, facts(built)) for rule in rules.RULES]
  return [*texts, remedies.below_pixels(built, improving=True)]


@pytest.mark.parametrize(("words", "possible", "in_force"), IN_FORCE)
def test_what_is_in_force_is_not_proposed(words, possible, in_force):
  def proposed(changes):
    return [t for t in every_remedy(recipe(**changes)) if words in t]

  assert proposed(possible)
  assert not proposed(in_force)


@pytest.mark.parametrize("name", sorted(methods.METHODS))
def test_no_remedy_names_a_field_that_a_method_lacks(name):
  support = {"support__images_per_class": 4}
  built = recipe(name, **support)
  has = {field.name for field in dataclasses.fields(built.method)}
  for text in every_remedy(built):
    assert text.endswith(".")
    assert set(re.findall(r"method\.(\w+)", text)) <= has | {"temperature"}
  # A weight of 1 in paws needs two supports of a class.
  single = recipe("paws", support__images_per_class=1, support__num_views=1)
  assert not any("support_loss_weight" in text for text in every_remedy(single))
