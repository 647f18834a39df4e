"""Slices of recipes, and how a command line names them."""

import sys

import jax
import jax.numpy as jnp
import pytest
from absl import flags
from ml_collections import config_flags

from benchmarks import slices
from benchmarks import synthetic
from paws_jax import config as config_lib
from paws_jax.training import step
from tests import tiny_recipe

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
  config_lib.resolve(config)
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
    lambda batch: step.make_views(trainer, batch, jnp.int32(0)), batch
  )
  _check_views(views.crops.get("large"), large)
  _check_views(views.crops.get("small"), small)
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
  ],
)
def test_other_command_lines_stay(arguments):
  assert slices.expand(["step.py", *arguments]) == ["step.py", *arguments]


@pytest.mark.parametrize(
  "config", [["--config=a.py"], ["--config", "a.py"], ["-config=a.py"]]
)
def test_a_slice_and_a_recipe_are_refused(config):
  message = "--slice=cifar10 and --config=a.py are both given: drop one of them"
  with pytest.raises(ValueError, match=message):
    slices.expand(["step.py", "--slice=cifar10", *config])


# ml_collections loads recipes by it.
_AS_IT_LOADS = pytest.mark.filterwarnings(
  r"ignore:the load_module\(\) method is deprecated:DeprecationWarning"
)


def _parse(monkeypatch, *arguments, with_slices=True):
  """`parse_flags` with flags of its own; what the recipe has come to."""
  values = flags.FlagValues()
  config_flags.DEFINE_config_file(
    "config", None, "", lock_config=True, flag_values=values
  )
  if with_slices:
    flags.DEFINE_string("slice", None, "", flag_values=values)
  monkeypatch.setattr(slices.flags, "FLAGS", values)
  # Where the flag looks for changes of fields.
  monkeypatch.setattr(sys, "argv", ["step.py"])
  assert slices.parse_flags(["step.py", *arguments]) == ["step.py"]
  return values["config"].value


@_AS_IT_LOADS
def test_fields_of_a_slice_can_be_changed(monkeypatch):
  config = _parse(monkeypatch, "--slice=cifar10", "--config.train.batch_size=8")
  assert config.train.batch_size == 8
  assert config.support.images_per_class == 64


@_AS_IT_LOADS
def test_recipes_of_scripts_without_slices(monkeypatch):
  recipe = f"--config={tiny_recipe.__file__}"
  config = _parse(monkeypatch, recipe, with_slices=False)
  assert config.to_dict() == tiny_recipe.get_config().to_dict()


_TINY = f"--config={tiny_recipe.__file__}"
_NAMES = "imagenet-slice, cifar10, wrn28-2-cpu, rn50-supervised."


@_AS_IT_LOADS
@pytest.mark.parametrize(
  ("arguments", "message"),
  [
    (
      ["--slice=cifar10", "--config=a.py"],
      "--slice=cifar10 and --config=a.py are both given: drop one of them",
    ),
    (["--slice=cifar"], f"--slice=cifar: known are {_NAMES}\n"),
    (["--slice"], f"--slice=: known are {_NAMES}\n"),
    (
      ["--config=nowhere.py:x"],
      "--config=nowhere.py:x: there is no such file; --list",
    ),
    (["--config=tests"], "--config=tests: there is no such recipe; --list"),
    (
      [f"--config={slices.__file__}:foo"],
      f"slices.py:foo: slice 'foo': known are {_NAMES}\n",
    ),
    (
      [_TINY, "--config.train.typo=3"],
      "error: a recipe has no such field: 'typo'\n",
    ),
    (
      [_TINY, "--config.trian.epochs=3"],
      "error: a recipe has no such field: 'trian': did you mean 'train'?",
    ),
    ([_TINY, "--config.train.epochs=x"], "flag --config.train.epochs=x"),
    ([_TINY, "--more=1"], "error: Unknown command line flag 'more'"),
  ],
)
def test_wrong_command_lines_end_in_a_line(
  arguments, message, monkeypatch, capsys
):
  with pytest.raises(SystemExit) as exit_info:
    _parse(monkeypatch, *arguments)
  assert exit_info.value.code == 2
  printed = capsys.readouterr().err
  assert printed.startswith("error: ")
  assert message in printed
  assert printed.count("\n") == 1


@_AS_IT_LOADS
def test_an_error_of_a_recipe_itself_is_not_hidden(monkeypatch, tmp_path):
  path = tmp_path / "recipe.py"
  path.write_text("def get_config():\n  return (3).nothing\n")
  with pytest.raises(AttributeError, match="'int' object has no attribute"):
    _parse(monkeypatch, f"--config={path}")
