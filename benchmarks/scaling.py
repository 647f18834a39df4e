r"""How a step scales with devices, and what BatchNorm's synchronisation costs.

  python benchmarks/scaling.py --config=configs/cifar10.py
  XLA_FLAGS=--xla_force_host_platform_device_count=8 JAX_PLATFORMS=cpu \
    python benchmarks/scaling.py --config=tests/tiny_recipe.py --per_device=32

Weak scaling: every device has --per_device unlabelled images, the support set
stays as it is, on 1, 2, 4, ... devices (--devices). On each number the whole
step, with BatchNorm's statistics over all devices and over each alone. All take
turns, window by window. Lines

  efficiency N: seconds per step of 1 device / of N
  batch norm N: share of a step of N devices that its synchronisation takes

and last `ratio:`, the efficiency on the most devices. Devices made of one
machine's cores share them: their efficiency says nothing, but that it runs.
"""

from __future__ import annotations

import statistics
import sys

import jax
import ml_collections
import synthetic
import timing
from absl import app
from absl import flags
from ml_collections import config_flags

from paws_jax import config as config_lib
from paws_jax import experiment as experiment_lib
from paws_jax import sharding
from paws_jax import train

_CONFIG = config_flags.DEFINE_config_file(
  "config", None, "The recipe, e.g. configs/cifar10.py.", lock_config=True
)
_DEVICES = flags.DEFINE_list(
  "devices", [], "Numbers of devices, from 1; default 1, 2, 4, ... all."
)
_PER_DEVICE = flags.DEFINE_integer(
  "per_device", 64, "Unlabelled images of each device.", lower_bound=1
)
_WINDOWS = flags.DEFINE_integer(
  "windows", 5, "Times that everything is measured.", lower_bound=1
)
_STEPS = flags.DEFINE_integer("steps", 20, "Steps in a window.", lower_bound=1)
_WARMUP = flags.DEFINE_integer(
  "warmup", 20, "Steps before the first window.", lower_bound=0
)


class _Training:
  """Whole steps on some of the devices."""

  def __init__(self, name: str, experiment: experiment_lib.Experiment):
    self._pipeline, self._step = experiment.pipeline, 0
    self._state = experiment.initial_state()
    call = train.make_train_call(experiment.trainer, self._pipeline, 1)
    self._call = timing.compiled(
      name, call, self._state, self._pipeline.inputs(0, 1)
    )

  def run(self, num_steps: int) -> int:
    """Takes steps and waits for the last; how many."""
    for _ in range(num_steps):
      inputs = self._pipeline.inputs(self._step, 1)
      self._state, _ = self._call(self._state, inputs)
      self._step += 1
    jax.block_until_ready(self._state)
    return num_steps


def main(argv: list[str]) -> int:
  """Measures what the flags ask for; returns the exit status."""
  if len(argv) > 1 or _CONFIG.value is None:
    raise app.UsageError("give a recipe with --config, and nothing else")
  try:
    return _run(_CONFIG.value)
  except (ValueError, TypeError, OSError) as error:
    print(f"error: {error}", file=sys.stderr)
    return 2


def _run(config: ml_collections.ConfigDict) -> int:
  sharding.use_cpu_cores(_PER_DEVICE.value)
  counts = _counts()
  timing.print_setting()
  sides = {}
  for count in counts:
    for together in (True, False)[: 1 + (count > 1)]:
      name = _name(count, together=together)
      sides[name] = _Training(
        name, _experiment(config, count, together=together)
      ).run
  seconds = timing.in_turns(
    sides, windows=_WINDOWS.value, steps=_STEPS.value, warmup=_WARMUP.value
  )
  for name, windows in seconds.items():
    print(f"{name}: {timing.spread(windows)}")
  one = seconds[_name(counts[0], together=True)]
  for count in counts[1:]:
    whole = seconds[_name(count, together=True)]
    alone = seconds[_name(count, together=False)]
    share = 1 - statistics.median(alone) / statistics.median(whole)
    print(f"efficiency {count}: {timing.ratio(whole, one):.1%}")
    print(f"batch norm {count}: {share:.1%}")
  most = seconds[_name(counts[-1], together=True)]
  print(f"ratio: {timing.ratio(most, one):.2f}")
  return 0


def _name(count: int, *, together: bool) -> str:
  name = f"{count} device{'s' * (count > 1)}"
  return name if together else f"{name}, BatchNorm of each alone"


def _counts() -> list[int]:
  """Numbers of devices, ascending from 1.

  Raises:
    ValueError: for numbers that cannot be.
  """
  there = jax.device_count()
  asked = _DEVICES.value or [
    str(2**k) for k in range(there.bit_length()) if 2**k <= there
  ]
  if any(not word.isdigit() or not 0 < int(word) <= there for word in asked):
    raise ValueError(
      f"--devices={','.join(asked)}: give numbers from 1 to {there}, which is "
      "how many there are."
    )
  counts = sorted({int(word) for word in asked})
  if counts[0] != 1:
    raise ValueError(f"--devices={','.join(asked)}: 1 must be among them.")
  return counts


def _experiment(
  config: ml_collections.ConfigDict, count: int, *, together: bool
) -> experiment_lib.Experiment:
  config = config.copy_and_resolve_references()
  with config.unlocked():
    config.train.batch_size = count * _PER_DEVICE.value
    config.train.steps_per_call = 1
    config.train.bn_group_size = 0 if together else 1
  config_lib.validate(config)
  return synthetic.experiment(config, devices=jax.devices()[:count])


if __name__ == "__main__":
  app.run(main)
