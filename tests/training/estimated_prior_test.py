"""What a run says about its estimated prior."""

import types

import numpy as np
import pytest

from paws_jax.methods import base
from paws_jax.methods import class_prior
from paws_jax.training import estimated_prior


def _run(init_from="", **extra):
  facts = base.Facts(num_classes=2, labels=np.array([0, 1]))
  extra = class_prior.initial(facts) | extra
  dataset = types.SimpleNamespace(class_names=("ant", "bee"))
  experiment = types.SimpleNamespace(dataset=dataset, init_from=init_from)
  return experiment, types.SimpleNamespace(extra=extra)


@pytest.mark.parametrize("init_from", ["", "weights.npz"])
def test_an_estimate_by_random_weights_is_warned_of(capsys, init_from):
  experiment, state = _run(init_from)
  estimated_prior.say_first(experiment, state, 0)
  text = capsys.readouterr().out
  assert "ant 50.0%, bee 50.0%" in text
  # Nothing has been trained yet.
  assert "differ" not in text
  assert ("features of random weights" in text) == (not init_from)
  estimated_prior.say_first(experiment, state, 7)
  assert not capsys.readouterr().out


def test_no_estimate_no_words(capsys):
  experiment, state = _run()
  state.extra = {}
  estimated_prior.say_first(experiment, state, 0)
  assert estimated_prior.result(experiment, state) == {}
  assert estimated_prior.scalars(state) == {}
  assert not capsys.readouterr().out


def test_how_far_training_differs_from_the_labels(capsys):
  # 0.5 and 0.5 by the labels, 0.9 and 0.1 by training.
  experiment, state = _run(prior=np.float32([0.7, 0.3]))
  row = estimated_prior.result(experiment, state)
  text = capsys.readouterr().out
  assert "by the labels alone and by training differ by 40.0%" in text
  assert row["prior_change"] == pytest.approx(0.4)
  found = estimated_prior.scalars(state)["prior_change"]
  assert found == row["prior_change"]
