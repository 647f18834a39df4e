"""Slices of recipes, and how a command line names them."""

import sys

import jax
import jax.numpy as jnp
import pytest

from benchmarks import slices
from benchmarks import synthetic
from paws_jax import config as config_lib
from paws_jax import train

# Of each: method, unlabelled images as large and small views, supports, and
# parameters of the encoder in millions.
BUILT = {
  "imagenet-slice": ("paws", (64, 2, 224), (64, 6, 96), (105, 1, 224), 38.2),
  "cifar10": ("paws", (256, 2, 32), (256, 6, 18), (640, 2, 32), 1.52),
  "wrn28-2-cpu": ("paws", (32, 2, 32), (32, 6, 18), (80, 1, 32), 1.52),
  "rn50-supervised": ("supervised", None, None, (256, 1, 224), 38.2),
}


def test_every_slice_is_tested():
  assert set(BUILT) == set(slices.SLICES)


def _check_views(views, sizes):
  if sizes is None:
    assert views is None
    return
  count, crops, side = sizes
  assert views.shape == (count, crops, side, side, 3)


@pytest.mark.parametrize("name", BUILT)
def test_slices_build(name):
  method, large, small, support, millions = BUILT[name]
  config = slices.get_config(name)
  slices.adapt(config, "cpu")
  config_lib.validate(config)
  # Of random images; views are the same.
  config.data.canvas_size = 32
  # Of one device, so that supports are not padded.
  devices = jax.devices()[:1]
  built = synthetic.experiment(config, always_random=True, devices=devices)
  assert config.method.name == method
  assert built.dataset.name == "random"
  assert built.train.steps_per_call == 1
  assert built.images_per_step == (large or support)[0]
  trainer, pipeline = built.trainer, built.pipeline
  batch = jax.eval_shape(pipeline.batch, pipeline.input_shapes(1), jnp.int32(0))
  views = jax.eval_shape(
    lambda batch: train.make_views(trainer, batch, jnp.int32(0)), batch
  )
  _check_views(views.large, large)
  _check_views(views.small, small)
  _check_views(views.support, support)
  state = jax.eval_shape(built.initial_state)
  size = sum(leaf.size for leaf in jax.tree.leaves(state.params))
  assert size / 1e6 == pytest.approx(millions, rel=0.01)


@pytest.mark.parametrize(
  ("platform", "overridden", "steps"),
  [
    ("cpu", (), 1),
    ("gpu", (), 39),
    ("cpu", ("train.steps_per_call",), 39),
  ],
)
def test_steps_of_a_call_suit_the_platform(platform, overridden, steps):
  config = slices.get_config("cifar10")
  slices.adapt(config, platform, overridden=overridden)
  assert config.train.steps_per_call == steps


def test_an_unknown_slice_is_refused():
  names = "imagenet-slice, cifar10, wrn28-2-cpu, rn50-supervised"
  with pytest.raises(ValueError, match=f"'cifar': known are {names}"):
    slices.get_config("cifar")


@pytest.mark.parametrize(
  "given", [["--slice=cifar10"], ["-slice", "cifar10"], ["--slice", "cifar10"]]
)
def test_a_slice_is_a_recipe(given):
  change = "--config.train.batch_size=8"
  recipe = f"--config={slices.__file__}:cifar10"
  expanded = slices.expand(["step.py", change, *given])
  # Changes of its fields may stand before the name.
  assert expanded == ["step.py", recipe, change, *given]


@pytest.mark.parametrize(
  "arguments",
  [
    [],
    ["--config=configs/cifar10.py", "--config.train.batch_size=8"],
    ["--slice=cifar"],
    ["--slice"],
  ],
)
def test_other_command_lines_stay(arguments):
  assert slices.expand(["step.py", *arguments]) == ["step.py", *arguments]


@pytest.mark.parametrize(
  "config", [["--config=a.py"], ["--config", "a.py"], ["-config=a.py"]]
)
def test_a_slice_and_a_recipe_are_refused(config, monkeypatch):
  message = "--slice=cifar10 and --config=a.py are both given: drop one of them"
  with pytest.raises(ValueError, match=message):
    slices.expand(["step.py", "--slice=cifar10", *config])
  monkeypatch.setattr(sys, "argv", ["step.py"])
  with pytest.raises(SystemExit, match=f"error: {message}"):
    slices.parse_flags(["step.py", "--slice=cifar10", *config])


def test_fields_of_a_slice_can_be_changed(monkeypatch):
  # Where the flags of a script look for them.
  monkeypatch.setattr(sys, "argv", ["step.py"])
  parsed = []
  monkeypatch.setattr(
    slices.app, "parse_flags_with_usage", lambda argv: parsed.append(argv)
  )
  arguments = ["--slice=cifar10", "--config.train.batch_size=8"]
  slices.parse_flags(["step.py", *arguments])
  assert parsed == [sys.argv]
  assert sys.argv[2:] == arguments
