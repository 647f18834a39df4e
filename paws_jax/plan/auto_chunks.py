"""The number of chunks of a step where a recipe leaves it to the program."""

from __future__ import annotations

import bisect
import dataclasses
import functools
import math
from collections.abc import Callable
from collections.abc import Sequence
from typing import Any

import jax

from paws_jax import config as config_lib
from paws_jax import errors
from paws_jax.parallel import mesh as mesh_lib
from paws_jax.plan import memory as memory_lib
from paws_jax.training import experiment as experiment_lib

# Of what devices report, the share that a program can have by the model of
# memory: of a CPU, where programs keep up to 1.8 times as much (see
# `memory.memory`), and of others, as `chips` has it of GPUs.
_USABLE_OF_CPU, _USABLE = 1 / 1.8, 15 / 16


def largest(train: config_lib.Train, num_devices: int) -> int:
  """Finds the number that every possible number of chunks divides.

  Args:
    train: the section; its batch is one that the devices divide.
    num_devices: of the mesh.
  """
  num_rows = train.batch_size // num_devices
  if train.bn_groups == 1:
    return num_rows
  # Each has groups of its own.
  return math.gcd(num_rows, max(train.bn_groups // num_devices, 1))


def smallest(needed: Callable[[int], int], available: int, *, most: int) -> int:
  """Finds the smallest number of chunks that fits.

  Args:
    needed: of a number of chunks, the bytes that a device needs; less for more
      of them.
    available: bytes that it has.
    most: of `largest`.

  Returns:
    The number; `most` where none fits.
  """
  divisors = [n for n in range(1, most + 1) if most % n == 0]
  needed = functools.cache(needed)
  place = bisect.bisect_left(
    divisors, True, key=lambda n: needed(n) <= available
  )
  return divisors[min(place, len(divisors) - 1)]


def with_chunks(recipe: config_lib.Recipe, count: int) -> config_lib.Recipe:
  """Returns a recipe with another number of chunks."""
  train = dataclasses.replace(recipe.train, chunks=count)
  return dataclasses.replace(recipe, train=train)


def create(
  recipe: config_lib.Recipe,
  *,
  devices: Sequence[jax.Device] | None = None,
  **parts: Any,
) -> tuple[config_lib.Recipe, experiment_lib.Experiment]:
  """Builds the parts of a recipe, with a number of chunks where it has none.

  Args:
    recipe: a resolved recipe.
    devices: of `experiment.create`, as all others.
    **parts: of `experiment.create`.

  Returns:
    The recipe with the number, and its parts.

  Raises:
    errors.UserError: as of `experiment.create`.
    errors.InputError: the devices do not report their memory, or have too
      little for any number.
  """
  if recipe.train.chunks:
    built = experiment_lib.create(recipe, devices=devices, **parts)
    return recipe, built
  first = experiment_lib.create(
    with_chunks(recipe, 1), devices=devices, **parts
  )
  mesh = first.trainer.mesh
  available = memory_lib.device_memory(mesh.local_devices)
  if available is None:
    raise errors.InputError(
      "train.chunks is 'auto', but these devices do not report their memory: "
      "give a number, such as --task=plan finds for a machine that it knows."
    )
  share = _USABLE_OF_CPU if mesh_lib.on_cpu(mesh) else _USABLE
  available = int(available * share)
  build = functools.cache(
    lambda count: experiment_lib.create(
      with_chunks(recipe, count), devices=devices, like=first
    )
  )
  needed = lambda count: memory_lib.memory(build(count)).total  # noqa: E731
  most = largest(recipe.train, mesh.size)
  count = smallest(needed, available, most=most)
  if needed(count) > available:
    groups = recipe.train.bn_groups
    more = f", the most that train.bn_groups={groups} allows" * (groups > 1)
    size = recipe.train.batch_size // mesh.size // count
    raise errors.InputError(
      f"train.chunks is 'auto', but even {count} chunks{more} (unlabelled "
      f"images in each: {size}), need about {needed(count) / 2**30:.2f} GiB of "
      f"the {available / 2**30:.2f} GiB that a program can have on a device: "
      "lower train.batch_size or data.canvas_size, or use more devices."
    )
  print(f"train.chunks: {count}, the smallest number that fits the memory")
  return with_chunks(recipe, count), build(count)
