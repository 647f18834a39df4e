"""Schedules and initial weights of the linear protocols."""

import json

import jax
import numpy as np
import pytest

from paws_jax import errors
from paws_jax.evaluation import linear_protocols
from tests import golden_reference

PROTOCOLS = linear_protocols.PROTOCOLS


def _published(key):
  path = golden_reference.DIRECTORY / "ssl" / "ssl_schedules.json"
  return json.loads(path.read_text())[key]


@pytest.mark.parametrize(
  ("name", "key"),
  [
    ("linear_moco", "linear_moco_100ep_b256"),
    ("linear_simsiam", "linear_simsiam_90ep_b4096"),
    ("linear_swav", "linear_swav_100ep_b256"),
    ("linear_byol", "linear_byol_80ep_b1024"),
  ],
)
def test_learning_rates_are_those_of_the_public_code(name, key):
  published, protocol = _published(key), PROTOCOLS[name]
  if protocol.schedule == "step_cosine":
    # Its last epoch is not complete.
    epochs, steps_per_epoch = published["total_steps"], 1
  else:
    epochs, steps_per_epoch = protocol.epochs, published["steps_per_epoch"]
    assert epochs * steps_per_epoch == published["total_steps"]
  with jax.enable_x64(True):
    rates = protocol.learning_rates(
      protocol.learning_rate(published["batch"]),
      epochs=epochs,
      steps_per_epoch=steps_per_epoch,
    )
    for step, rate in published["lr"]:
      assert float(rates(step)) == pytest.approx(rate, rel=1e-9), step


@pytest.mark.parametrize("epochs", [1, 3, 5, 100])
def test_drops_move_with_the_length(epochs):
  rates = PROTOCOLS["linear_moco"].learning_rates(
    1.0, epochs=epochs, steps_per_epoch=2
  )
  found = [float(rates(step)) for step in range(2 * epochs)]
  each = [
    0.1 ** ((e >= 0.6 * epochs) + (e >= 0.8 * epochs)) for e in range(epochs)
  ]
  np.testing.assert_allclose(found, np.repeat(each, 2), rtol=1e-6)


@pytest.mark.parametrize("name", PROTOCOLS)
def test_initial_weights(name):
  layer = PROTOCOLS[name].init(jax.random.key(0), 400, 50)
  assert layer["kernel"].shape == (400, 50)
  assert not layer["bias"].any()
  # LeCun: 1 / sqrt(400).
  expected = 0.05 if name == "linear_byol" else 0.01
  assert np.std(layer["kernel"]) == pytest.approx(expected, rel=0.05)


def test_an_unknown_name_is_answered_with_the_known_ones():
  with pytest.raises(errors.InputError) as caught:
    linear_protocols.check("moco")
  assert all(name in str(caught.value) for name in PROTOCOLS)


def test_other_test_images_are_refused():
  with pytest.raises(errors.InputError, match=r"config\.data\.test_dir=later"):
    linear_protocols.check("linear_swav", test="later")
