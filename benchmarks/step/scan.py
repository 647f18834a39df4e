"""What it brings to take several steps in one call of the compiled program.

  python -m benchmarks.step.scan --config=configs/quickstart.py
  python -m benchmarks.step.scan --config=configs/cifar10.py \
    --steps_per_call=4,16,epoch

Compares the plain loop (train.steps_per_call=1) with a `lax.scan` over more
steps, on images in memory (random ones where a recipe's are not at hand). All
take turns, window by window. "epoch" stands for the steps of an epoch: random
images are as many as the recipe's are known to be, and where that is not known
a line says so. The last lines are

  choose: the train.steps_per_call that is fastest on these devices; 1 where
    windows of the fastest overlap with those of the plain loop
  ratio: seconds per step of the plain loop / of the fastest of the others

so above 1 a scan is faster. On a CPU it is not: XLA runs convolutions inside
a loop without its fast kernels, and the recipes for CPUs choose 1.
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

# So that --help shows it.
flags.adopt_module_key_flags(recipe_command)
_SCANS = flags.DEFINE_list(
  "steps_per_call",
  None,
  'Beside 1: numbers of steps, or "epoch". Default: 4,16,epoch, on a CPU 4,16, '
  "where an epoch in one call takes minutes.",
)
_WINDOWS = flags.DEFINE_integer(
  "windows", 3, "Times that everything is measured.", lower_bound=1
)
_STEPS = flags.DEFINE_integer("steps", 16, "Steps in a window.", lower_bound=1)


def _name(per_call: int) -> str:
  return "plain loop" if per_call == 1 else f"scan of {per_call}"


def _run(config: ml_collections.ConfigDict) -> int:
  config.train.steps_per_call = 1
  config_lib.resolve(config)
  cpu_devices.use_cpu_cores(config.train.batch_size)
  experiment = synthetic.experiment(config, whole_epoch=True)
  timing.print_setting()
  per_epoch = experiment.pipeline.steps_per_epoch
  print(f"data: {experiment.dataset.name}, steps of an epoch: {per_epoch}")
  scans = _scans(per_epoch)
  names = {_name(per_call): per_call for per_call in (1, *scans)}
  sides = {
    name: step_sides.Training(name, experiment, steps_per_call=n).run
    for name, n in names.items()
  }
  seconds = timing.in_turns(
    sides, windows=_WINDOWS.value, steps=_STEPS.value, warmup=1
  )
  for name, windows in seconds.items():
    print(f"{name}: {timing.spread(windows)}")
  print(f"choose: {names[timing.choose(seconds, default=_name(1))]}")
  plain, *others = seconds.values()
  best = min(others, key=statistics.median)
  print(f"ratio: {timing.ratio(best, plain):.3g}")
  return 0


def _scans(steps_per_epoch: int) -> list[int]:
  """The numbers of steps that the flag asks for.

  Raises:
    ValueError: for what is no number above 1, also an epoch of one step.
  """
  words = _SCANS.value
  if words is None:
    with_epoch = jax.default_backend() != "cpu" and steps_per_epoch > 1
    words = ["4", "16"] + ["epoch"] * with_epoch
  scans = []
  for word in words:
    if word == "epoch" and steps_per_epoch == 1:
      raise ValueError(
        "--steps_per_call=epoch: an epoch has 1 step, which is the plain loop: "
        "leave it out, or lower train.batch_size."
      )
    number = str(steps_per_epoch) if word == "epoch" else word
    if not number.isdigit() or int(number) < 2:
      raise ValueError(
        f"--steps_per_call={word}: give numbers above 1, or 'epoch'."
      )
    scans.append(int(number))
  if not scans:
    raise ValueError("--steps_per_call is empty: give at least one number.")
  return scans


if __name__ == "__main__":
  recipe_command.start(_run)
