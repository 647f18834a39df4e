"""Recipes cut down to what one device can be measured on, by name.

  python -m benchmarks.step.step --slice=imagenet-slice
  python -m benchmarks.step.step --slice=imagenet-slice \
    --config.train.batch_size=256

imagenet-slice: configs/imagenet.py as one of 64 devices has it, 64 unlabelled
  images and 15 x 7 = 105 supports.
cifar10: all of configs/cifar10.py; on a CPU one step in a call.
wrn28-2-cpu: configs/cifar10.py with 32 unlabelled images and 10 x 8 supports of
  one view, which two cores can do.
rn50-supervised: ResNet-50 at 224 pixels on 256 labelled images a step, to
  compare with public rates of ResNet-50. The loss is SuNCEt's and there are
  heads, which add less than a per cent of the arithmetic.

This file is a recipe, too, so that every benchmark can take a slice, e.g.
--config=benchmarks/slices.py:wrn28-2-cpu; `--slice` stands for that and random
images.
"""

from __future__ import annotations

import dataclasses
import importlib.util
import pathlib
import sys
from collections.abc import Collection
from collections.abc import Mapping
from collections.abc import Sequence
from typing import Any

import ml_collections
from absl import flags

from paws_jax.cli import config_flag

_CONFIGS = pathlib.Path(__file__).resolve().parents[1] / "configs"


@dataclasses.dataclass(frozen=True)
class Slice:
  """A recipe and what differs from it.

  Attributes:
    recipe: name of a file in configs/.
    changes: fields by their full names, with their values.
  """

  recipe: str
  changes: Mapping[str, Any] = dataclasses.field(default_factory=dict)


SLICES: Mapping[str, Slice] = {
  "imagenet-slice": Slice(
    "imagenet.py",
    {
      "train.batch_size": 64,
      "support.classes_per_step": 15,
      "support.images_per_class": 7,
      "support.num_views": 1,
    },
  ),
  "cifar10": Slice("cifar10.py"),
  "wrn28-2-cpu": Slice(
    "cifar10.py",
    {
      "train.batch_size": 32,
      "train.steps_per_call": 1,
      "support.images_per_class": 8,
      "support.num_views": 1,
    },
  ),
  "rn50-supervised": Slice(
    "imagenet.py",
    {
      "method.name": "supervised",
      # Of each class two at least: one is predicted by the other.
      "support.classes_per_step": 128,
      "support.images_per_class": 2,
      "support.num_views": 1,
      # Not seen, but as many images are made.
      "train.batch_size": 256,
    },
  ),
}


def get_config(name: str) -> ml_collections.ConfigDict:
  """The recipe of a slice.

  Raises:
    ValueError: for an unknown name; tells the known ones.
  """
  if name not in SLICES:
    raise ValueError(f"slice {name!r}: known are {', '.join(SLICES)}.")
  found = SLICES[name]
  # Recipes are found by path, not on the import path.
  path = _CONFIGS / found.recipe
  spec = importlib.util.spec_from_file_location(path.stem, path)
  module = importlib.util.module_from_spec(spec)
  spec.loader.exec_module(module)
  config = module.get_config()
  config.update_from_flattened_dict(dict(found.changes))
  return config


def adapt(
  config: ml_collections.ConfigDict,
  platform: str,
  *,
  overridden: Collection[str] = (),
) -> None:
  """Changes a slice to what its platform is trained with.

  Args:
    config: of a slice; changed in place.
    platform: of the devices, "cpu" or another.
    overridden: fields that were given by hand and stay as they are.
  """
  if platform == "cpu" and "train.steps_per_call" not in overridden:
    # Convolutions are slow inside a loop there (docs/decisions.md).
    config.train.steps_per_call = 1


def parse_flags(argv: Sequence[str]) -> list[str]:
  """Parser for `app.run` of a script with a flag `config`, and maybe `slice`.

  The flag `config` looks for changes of the recipe in `sys.argv`, so it is
  there that --slice gets its recipe. As `paws_jax.main`, exits with status 2
  and one line when the command line is wrong.

  Returns:
    What is left of the arguments.
  """
  try:
    sys.argv[:] = expand(argv) if "slice" in flags.FLAGS else argv
    return config_flag.parse(sys.argv)
  except ValueError as error:
    print(f"error: {error}", file=sys.stderr)
    sys.exit(2)


def expand(argv: Sequence[str]) -> list[str]:
  """Adds a slice's recipe to a command line as `--config`.

  Args:
    argv: the program and its arguments.

  Returns:
    A longer one; the same where no slice is named.

  Raises:
    ValueError: --slice and --config are both given, or the slice is unknown.
  """
  name = config_flag.flag_value(argv, "slice")
  if name is None:
    return list(argv)
  config = config_flag.flag_value(argv, "config")
  if config is not None:
    raise ValueError(
      f"--slice={name} and --config={config} are both given: drop one of them. "
      "Fields of a slice are changed as of a recipe, e.g. "
      "--config.train.batch_size=64."
    )
  if name not in SLICES:
    raise ValueError(f"--slice={name}: known are {', '.join(SLICES)}.")
  # Before changes of its fields.
  recipe = f"--config={pathlib.Path(__file__).resolve()}:{name}"
  return [argv[0], recipe, *argv[1:]]
