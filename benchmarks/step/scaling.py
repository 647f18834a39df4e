r"""How a step scales with devices, and what BatchNorm's synchronisation costs.

  python -m benchmarks.step.scaling --config=configs/cifar10.py
  XLA_FLAGS=--xla_force_host_platform_device_count=8 JAX_PLATFORMS=cpu \
    python -m benchmarks.step.scaling --config=tests/tiny_recipe.py \
    --per_device=32

On 1, 2, 4, ... devices (--devices), each with --per_device unlabelled images.
The support set stays as it is and is divided over them, so that the work of a
device falls as they grow in number, and equal seconds per step would be no
success. Efficiency is therefore arithmetic per second and device:

  efficiency N: its two factors are seconds per step of 1 device / of N, and
    FLOP of a step on each of N devices / on 1, as counted in the program
  batch norm N: share of a step of N devices that synchronising the statistics
    of BatchNorm takes, against each device with its own

and last `ratio:`, the efficiency on the most devices. All take turns, window by
window. Devices made of one machine's cores share them: their efficiency says
nothing, but that it runs.
"""

from __future__ import annotations

import statistics

import jax
import ml_collections
from absl import flags

from benchmarks import recipe_command
from benchmarks import synthetic
from benchmarks import timing
from benchmarks.step import sides as step_sides
from paws_jax import config as config_lib
from paws_jax.parallel import cpu_devices
from paws_jax.training import experiment as experiment_lib

# So that --help shows it.
flags.adopt_module_key_flags(recipe_command)
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


def _run(config: ml_collections.ConfigDict) -> int:
  # Each number of devices has a batch that it divides: none bounds them.
  cpu_devices.use_cpu_cores(0)
  counts = _counts()
  timing.print_setting()
  sides = {}
  for count in counts:
    for together in (True, False)[: 1 + (count > 1)]:
      name = _name(count, together=together)
      sides[name] = step_sides.Training(
        name, _experiment(config, count, together=together)
      )
  seconds = timing.in_turns(
    {name: side.run for name, side in sides.items()},
    windows=_WINDOWS.value,
    steps=_STEPS.value,
    warmup=_WARMUP.value,
  )
  for name, windows in seconds.items():
    print(f"{name}: {timing.spread(windows)}")
  flops = {
    count: sides[_name(count, together=True)].costs().flops for count in counts
  }
  one = seconds[_name(1, together=True)]
  for count in counts[1:]:
    whole = seconds[_name(count, together=True)]
    alone = seconds[_name(count, together=False)]
    work = flops[count] / flops[1]
    efficiency = timing.efficiency(one, whole, work=work)
    print(
      f"efficiency {count}: {efficiency:.1%} = {timing.ratio(whole, one):.4g} "
      f"(seconds per step, 1 device / {count}) x {work:.4g} (FLOP of a device, "
      f"{count} / 1)"
    )
    share = 1 - statistics.median(alone) / statistics.median(whole)
    print(f"batch norm {count}: {share:.1%}")
  # That of the most devices.
  print(f"ratio: {efficiency:.2f}")
  return 0


def _name(count: int, *, together: bool) -> str:
  name = f"{count} device{'s' * (count > 1)}"
  return name if together else f"{name}, BatchNorm of each alone"


def _counts() -> list[int]:
  """Numbers of devices, ascending from 1, two at least.

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
  if len(counts) == 1:
    raise ValueError(
      f"1 device of {there} has nothing to be compared with: leave --devices "
      "out, or give it more numbers; on a CPU "
      "XLA_FLAGS=--xla_force_host_platform_device_count=8 makes 8 devices."
    )
  return counts


def _experiment(
  config: ml_collections.ConfigDict, count: int, *, together: bool
) -> experiment_lib.Experiment:
  config = config.copy_and_resolve_references()
  with config.unlocked():
    config.train.batch_size = count * _PER_DEVICE.value
    config.train.steps_per_call = 1
    config.train.bn_group_size = 0 if together else 1
  config_lib.resolve(config)
  return synthetic.experiment(config, devices=jax.devices()[:count])


if __name__ == "__main__":
  recipe_command.start(_run)
