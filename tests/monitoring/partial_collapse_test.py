"""Partial collapses: ranks recorded on digits, of broken and of sound runs.

rank_curves.json has the first 198 to 660 steps of runs of the `cpu` recipes,
means over `every` steps. Broken is SimSiam whose targets have a gradient.
"""

import json
import pathlib

import pytest

from paws_jax import config as config_lib
from paws_jax.monitoring import monitor
from paws_jax.monitoring import rules
from paws_jax.training import experiment
from paws_jax.training import health
from tests import tiny_recipe

_CURVES = json.loads(
  pathlib.Path(__file__).with_name("rank_curves.json").read_text()
)
_STEPS_PER_EPOCH = 11


def _name(curve):
  return f"{curve['run']}-{curve['seed']}-{curve['total_steps']}"


def _facts(curve, **changes):
  fields = {
    # What a step samples, which methods without labels do not read.
    "num_classes": 2,
    "data_classes": 10,
    "labels_per_class": 4,
    "images_per_step": 128,
    "total_steps": curve["total_steps"],
    "warmup_steps": 2 * _STEPS_PER_EPOCH,
    "temperature": 0.1,
  }
  return rules.Facts(**fields | changes)


def _rows(curve):
  return [
    {
      "step": (i + 1) * curve["every"],
      "feature_rank": rank,
      "output_std": spread,
    }
    for i, (rank, spread) in enumerate(
      zip(curve["feature_rank"], curve["output_std"], strict=True)
    )
  ]


@pytest.mark.parametrize("curve", _CURVES, ids=_name)
def test_recorded_runs_are_judged_rightly(curve):
  # Also of data without classes.
  for data_classes in (10, 1000, 0):
    facts = _facts(curve, data_classes=data_classes)
    found = monitor.findings(_rows(curve), facts=facts)
    names = ["collapse"] if curve["broken"] else []
    assert [finding.name for finding in found] == names
  # Neither the spread nor the rank alone would have found it.
  assert min(curve["output_std"]) > 0.2
  assert min(curve["feature_rank"]) > 2


def test_there_are_curves_of_both_kinds():
  broken = {curve["run"] for curve in _CURVES if curve["broken"]}
  sound = {curve["run"].partition(",")[0] for curve in _CURVES} - broken
  assert broken == {"simsiam without stop-gradient"}
  assert sound == {
    *("simsiam", "byol", "moco", "msf", "swav", "swav_suncet", "cmsf")
  }


def _fallen(**row):
  """Rows of a rank that falls from 40 to 5, and stays there."""
  ranks = [40.0, 30.0, *[5.0] * 8]
  return [
    {"step": 100 * (i + 1), "feature_rank": rank} | row
    for i, rank in enumerate(ranks)
  ]


def test_the_finding_says_what_the_rank_was():
  (found,) = monitor.findings(
    _fallen(output_std=0.9), facts=_facts({"total_steps": 1000})
  )
  assert found.step == 500
  assert "rank is 5.0, and it was 40.0 when training began" in found.sentence
  assert found.remedy


def test_a_direction_for_each_class_is_no_collapse():
  # With six classes a rank of 5 may be all there is to learn of the labels.
  facts = _facts({"total_steps": 1000}, data_classes=6)
  assert monitor.findings(_fallen(output_std=0.9), facts=facts) == []


def test_methods_that_predict_classes_are_judged_by_them():
  facts = _facts({"total_steps": 1000})
  assert monitor.findings(_fallen(), facts=facts) == []


def test_a_rank_that_has_just_begun_to_fall_is_no_finding():
  facts = _facts({"total_steps": 100_000})
  assert monitor.findings(_fallen(output_std=0.9), facts=facts) == []


def test_the_classes_are_those_of_the_data():
  recipe = config_lib.resolve(tiny_recipe.get_config())
  assert recipe.support.classes_per_step == 5
  facts = health.facts(recipe, experiment.create(recipe))
  assert (facts.num_classes, facts.data_classes) == (5, 10)
