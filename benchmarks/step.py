"""How fast a recipe trains, and how much faster than PyTorch.

  python benchmarks/step.py --config=configs/quickstart.py
  python benchmarks/step.py --slice=imagenet-slice
  python benchmarks/step.py --slice=wrn28-2-cpu --windows=3 --steps=5 --warmup=2

Prints steps and unlabelled images a second of the whole step as trained, which
cuts its views itself, and of the model part alone (both passes, loss, gradient
and optimiser) on fixed random views. For both, FLOP, traffic and memory of each
device, and on a known accelerator MFU (convolutions and matrix products, over
the bf16 peak) and the share of the roofline. With PyTorch installed its step
runs on the same views and weights, from benchmarks/torch_peer.py; the last line
is

  ratio: PyTorch's seconds per step / seconds per step of the model part

so above 1 ours is faster. All take turns, window by window, since machines are
not equally fast all the time. `--check` compares losses instead of times.

Data that are not at hand are replaced by random images of the same shape, and
always with `--synthetic`, `--slice` or where a recipe reads images on the host
(canvases then); crops and supports are what they are in the recipe. The slices
stand in benchmarks/slices.py.
"""

from __future__ import annotations

import importlib.util
import os
import statistics
import sys
from typing import Any

import accounting
import jax
import jax.numpy as jnp
import ml_collections
import numpy as np
import peer_recipe
import slices
import step_sides
import synthetic
import timing
from absl import app
from absl import flags
from absl import logging
from ml_collections import config_flags

from paws_jax import config as config_lib
from paws_jax import data
from paws_jax import experiment as experiment_lib
from paws_jax import sharding
from paws_jax import train
from paws_jax.interop import torch_names
from paws_jax.methods import method as method_lib

_CONFIG = config_flags.DEFINE_config_file(
  "config",
  None,
  "The recipe, e.g. configs/quickstart.py; any field can be changed: "
  "--config.train.batch_size=64.",
  lock_config=True,
)
_SLICE = flags.DEFINE_enum(
  "slice",
  None,
  list(slices.SLICES),
  "Instead of --config: a part of a recipe, on random images.",
)
_WINDOWS = flags.DEFINE_integer(
  "windows", 5, "Times that everything is measured.", lower_bound=1
)
_STEPS = flags.DEFINE_integer("steps", 20, "Steps in a window.", lower_bound=1)
_WARMUP = flags.DEFINE_integer(
  "warmup", 20, "Steps before the first window.", lower_bound=0
)
_PEER = flags.DEFINE_enum(
  "peer",
  "auto",
  ["auto", "torch", "none"],
  "What to compare with; auto: PyTorch if it is installed.",
)
_PEER_COMPILE = flags.DEFINE_boolean(
  "peer_compile", False, "Let PyTorch compile its forward and backward pass."
)
_SYNTHETIC = flags.DEFINE_boolean(
  "synthetic", False, "Random images even if the recipe's data are there."
)
_CHECK = flags.DEFINE_boolean(
  "check", False, "Compare the losses of both sides' first steps, and stop."
)

# Relative difference between the losses of both sides: at the first step, and
# after updates, which a large learning rate makes diverge.
_TOLERANCES = {"float32": (1e-5, 1e-2), "bfloat16": (2e-2, 5e-2)}
_NUM_CHECKED = 3


def main(argv: list[str]) -> int:
  """Measures what the flags ask for; returns the exit status."""
  if len(argv) > 1:
    raise app.UsageError(f"unknown arguments: {' '.join(argv[1:])}")
  if _CONFIG.value is None:
    raise app.UsageError(
      "--config is missing: give a recipe, e.g. --config=configs/quickstart.py"
      f", or --slice={'|'.join(slices.SLICES)}"
    )
  # Of JAX, about platforms that are not there.
  logging.set_verbosity(logging.WARNING)
  try:
    return _run(_CONFIG.value)
  except (ValueError, TypeError, FileNotFoundError) as error:
    print(f"error: {error}", file=sys.stderr)
    return 2


def _run(config: ml_collections.ConfigDict) -> int:
  config_lib.validate(config)
  sharding.use_cpu_cores(config.train.batch_size)
  with_peer = _peer_wanted()
  if with_peer:
    # Else JAX would take most of a GPU's memory before PyTorch starts.
    os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
    # Where cores are shared, PyTorch's threads that wait by spinning hold up
    # the one they wait for: steps took 40 times longer.
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")
  if _SLICE.value is not None:
    changed = config_flags.get_override_values(flags.FLAGS["config"])
    slices.adapt(config, jax.default_backend(), overridden=changed)
  experiment = synthetic.experiment(
    config, always_random=_SYNTHETIC.value or _SLICE.value is not None
  )
  _print_setting(config, experiment, with_peer)
  views = step_sides.random_views(experiment)
  state = experiment.initial_state()
  if with_peer:
    try:
      # Before steps are compiled: what the peer refuses, it refuses soon.
      peer = _create_peer(config, experiment, state, views)
    except ValueError as error:
      if _PEER.value == "torch" or _CHECK.value:
        raise
      print(f"peer: left out, {error}")
      with_peer = False
  model_part = step_sides.ModelPart(experiment, state, views)
  if _CHECK.value:
    return _check(model_part, peer, _dtype(experiment))
  ours = {
    "whole step": step_sides.WholeStep(experiment, state),
    "model part": model_part,
  }
  sides = {name: side.run for name, side in ours.items()}
  if with_peer:
    sides["torch peer"] = peer.run
  seconds = timing.in_turns(
    sides, windows=_WINDOWS.value, steps=_STEPS.value, warmup=_WARMUP.value
  )
  for name, windows in seconds.items():
    _print_rate(name, windows, experiment)
  for name, side in ours.items():
    median = statistics.median(seconds[name])
    print(f"{name}, each device: {accounting.describe(side.costs, median)}")
  whole, part = (statistics.median(seconds[name]) for name in ours)
  print(f"cutting the views: {1 - part / whole:.1%} of the whole step")
  if with_peer:
    mine, theirs = seconds["model part"], seconds["torch peer"]
    ratios = [b / a for a, b in zip(mine, theirs, strict=True)]
    print(f"ratio in each window: {min(ratios):.2f} to {max(ratios):.2f}")
    print(f"ratio: {timing.ratio(mine, theirs):.2f}")
  return 0


def _peer_wanted() -> bool:
  """Whether to run PyTorch; says so if it is missing.

  Raises:
    ValueError: it is missing but asked for.
  """
  if _PEER.value == "none":
    if _CHECK.value:
      raise ValueError("--check compares with PyTorch: drop --peer=none.")
    return False
  if importlib.util.find_spec("torch") is not None:
    return True
  if _PEER.value == "torch" or _CHECK.value:
    raise ValueError(
      "PyTorch is not installed: pip install torch, or --peer=none."
    )
  print("peer: PyTorch is not installed, nothing to compare with")
  return False


def _print_setting(
  config: ml_collections.ConfigDict,
  experiment: experiment_lib.Experiment,
  with_peer: bool,
) -> None:
  """Everything that a number must be quoted with."""
  versions = {}
  if with_peer:
    import torch

    versions["torch"] = (
      f"{torch.__version__} ({torch.get_num_threads()} threads, "
      f"OMP_WAIT_POLICY={os.environ['OMP_WAIT_POLICY']})"
    )
  timing.print_setting(**versions)
  views, support = experiment.trainer.views, config.support
  unlabelled = (
    f"{config.train.batch_size} unlabelled images as {views.num_large} x "
    f"{views.large_size} and {views.num_small} x {views.small_size} pixels"
  )
  if not views.num_large:
    unlabelled = f"no unlabelled images, views of {views.large_size} pixels"
  print(
    f"recipe: {config.model.name} x{config.model.width} in "
    f"{_dtype(experiment)}, {unlabelled}, {support.classes_per_step} x "
    f"{support.images_per_class} x {support.num_views} supports"
  )
  print(f"data: {experiment.dataset.name}")


def _dtype(experiment: experiment_lib.Experiment) -> str:
  """Of activations: the encoder knows what "auto" came to."""
  return jnp.dtype(experiment.trainer.method.encoder.trunk.settings.dtype).name


def _create_peer(
  config: ml_collections.ConfigDict,
  experiment: experiment_lib.Experiment,
  state: train.TrainState,
  views: data.Views,
) -> Any:
  """`torch_peer.Peer` with our initial weights and these views.

  Raises:
    ValueError: a recipe or a machine that it cannot be compared on.
  """
  sections = peer_recipe.sections(config)
  import torch_peer

  # The devices of a CPU are its cores, which PyTorch uses as well.
  num_devices = 1 if jax.default_backend() == "cpu" else jax.device_count()
  if num_devices > 1:
    raise ValueError(
      f"PyTorch is compared with on one device, but there are {num_devices}: "
      "let JAX see one device, or use --peer=none."
    )
  # Without padding.
  supports = views.support[: len(views.support_labels)]
  most = max(_NUM_CHECKED, _WARMUP.value + _WINDOWS.value * _STEPS.value)
  return torch_peer.Peer(
    sections,
    torch_names.to_torch({"params": state.params, **state.model_state}),
    torch_peer.Views(
      support=_numpy(method_lib.fold_views(supports)),
      label_rows=_numpy(
        method_lib.support_rows(views, smoothing=config.support.label_smoothing)
      ),
      large=_numpy(views.large.swapaxes(0, 1)),
      small=None if views.small is None else _numpy(views.small.swapaxes(0, 1)),
    ),
    rates=experiment.trainer.schedule(jnp.arange(most)).tolist(),
    dtype=_dtype(experiment),
    on_gpu=jax.default_backend() == "gpu",
    compiled=_PEER_COMPILE.value,
  )


def _numpy(array: jax.Array) -> np.ndarray:
  # A copy: PyTorch wants to be able to write.
  return np.array(array)


def _print_rate(
  name: str, windows: list[float], experiment: experiment_lib.Experiment
) -> None:
  median = statistics.median(windows)
  kind = "unlabelled" if experiment.trainer.views.num_large else "labelled"
  print(
    f"{name}: {1 / median:.3g} steps/s, "
    f"{experiment.images_per_step / median:.4g} {kind} images/s; "
    f"{timing.spread(windows)}"
  )


def _check(ours: step_sides.ModelPart, peer: Any, dtype: str) -> int:
  """Prints the losses of both sides' first steps; 1 if they disagree."""
  first, later = _TOLERANCES[dtype]
  status = 0
  for step in range(_NUM_CHECKED):
    a, b = float(ours.step()), float(peer.step())
    tolerance = later if step else first
    good = abs(a - b) <= tolerance * max(abs(a), abs(b))
    status = status if good else 1
    print(
      f"check: step {step}: loss {a:.7f}, of the peer {b:.7f}: "
      f"{'equal' if good else 'NOT EQUAL'} within {tolerance:g} of it"
    )
  return status


if __name__ == "__main__":
  app.run(main, flags_parser=slices.parse_flags)
