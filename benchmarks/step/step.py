"""How fast a recipe trains, and how much faster than PyTorch.

  python -m benchmarks.step.step --config=configs/quickstart.py
  python -m benchmarks.step.step --slice=imagenet-slice
  python -m benchmarks.step.step --slice=wrn28-2-cpu --windows=3 --steps=5 \
    --warmup=2

Prints steps and unlabelled images a second, of all devices and of each, of

  model part: both passes, loss, gradient and optimiser on fixed random views
  with augmentation: the same on views that are cut anew for each step
  whole step: as trained, with metrics and the choice of images

Images lie in memory: benchmarks/input/whole_path.py measures reading them. Of
the model part and the whole step also FLOP, traffic and memory of each device,
and on a known accelerator MFU (the model part's convolutions and matrix
products, with what train.remat computes again, over the bf16 peak) and the
share of the roofline. With PyTorch installed its step runs on the same views
and weights, from benchmarks/torch_side/step.py; the last line is

  ratio: PyTorch's seconds per step / seconds per step of the model part

so above 1 ours is faster. All take turns, window by window, since machines are
not equally fast all the time. `--check` compares losses instead of times.

Data that are not at hand are replaced by random images of the same shape, and
always with `--synthetic`, `--slice` or where a recipe reads images on the host
(canvases then); crops and supports are what they are in the recipe. The slices
stand in benchmarks/slices.py.
"""

from __future__ import annotations

import os
import statistics
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np
from absl import flags
from ml_collections import config_flags

from benchmarks import recipe_command
from benchmarks import slices
from benchmarks import synthetic
from benchmarks import timing
from benchmarks.step import accounting
from benchmarks.step import command as step_command
from benchmarks.step import sides as step_sides
from benchmarks.torch_side import recipe as peer_recipe
from paws_jax import config as config_lib
from paws_jax import data
from paws_jax.methods import encoding
from paws_jax.parallel import cpu_devices
from paws_jax.training import experiment as experiment_lib
from paws_jax.training import state as state_lib
from paws_jax.weights import torch_names

# So that --help shows them.
flags.adopt_module_key_flags(step_command)
_WINDOWS = flags.DEFINE_integer(
  "windows", 5, "Times that everything is measured.", lower_bound=1
)
_STEPS = flags.DEFINE_integer("steps", 20, "Steps in a window.", lower_bound=1)
_WARMUP = flags.DEFINE_integer(
  "warmup", 20, "Steps before the first window.", lower_bound=0
)
_PEER_COMPILE = flags.DEFINE_boolean(
  "peer_compile",
  False,
  "Let PyTorch compile its forward and backward pass. On a CPU that takes a "
  "C++ compiler and minutes; whether it is faster is not measured.",
)
_SYNTHETIC = flags.DEFINE_boolean(
  "synthetic", False, "Random images even if the recipe's data are there."
)
_CHECK = flags.DEFINE_boolean(
  "check", False, "Compare the losses of both sides' first steps, and stop."
)

# Difference between the losses of both sides, relative for losses above 1 (with
# me-max one is a difference of larger terms): at the first step, and after
# updates, which a large learning rate makes diverge.
_TOLERANCES = {"float32": (1e-5, 1e-2), "bfloat16": (2e-2, 5e-2)}
_NUM_CHECKED = 3
_PEER_SIDE = "torch peer"
# Of fewer windows a median tells little.
_FEW_WINDOWS = 3


def _run(config: ml_collections.ConfigDict) -> int:
  config_lib.resolve(config)
  cpu_devices.use_cpu_cores(config.train.batch_size)
  if _CHECK.value and step_command.PEER.value == "none":
    raise ValueError("--check compares with PyTorch: drop --peer=none.")
  with_peer = step_command.peer_wanted(required=_CHECK.value)
  if with_peer:
    # Else JAX would take most of a GPU's memory before PyTorch starts.
    os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
    # Where cores are shared, PyTorch's threads that wait by spinning hold up
    # the one they wait for: steps took 40 times longer.
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")
  if step_command.SLICE.value is not None:
    changed = config_flags.get_override_values(flags.FLAGS["config"])
    slices.adapt(config, jax.default_backend(), overridden=changed)
  experiment = synthetic.experiment(
    config, always_random=_SYNTHETIC.value or bool(step_command.SLICE.value)
  )
  _print_setting(config, experiment, with_peer)
  batch = step_sides.first_batch(experiment)
  views = step_sides.random_views(experiment, batch)
  state = experiment.initial_state()
  peer = None
  if with_peer:
    try:
      # Before steps are compiled: what the peer refuses, it refuses soon.
      peer = _create_peer(config, experiment, state, views)
    except ValueError as error:
      if step_command.PEER.value == "torch" or _CHECK.value:
        raise
      print(f"peer: left out, {error}")
  model_part = step_sides.ModelPart(experiment, state, views)
  if _CHECK.value:
    return _check(model_part, peer, _dtype(experiment))
  augmented = step_sides.WithAugmentation(experiment, model_part, batch)
  whole_step = step_sides.Training(
    "whole step",
    experiment,
    state=state,
    steps_per_call=experiment.train.steps_per_call,
  )
  sides = {
    "model part": model_part.run,
    "with augmentation": augmented.run,
    "whole step": whole_step.run,
  }
  if peer is not None:
    sides[_PEER_SIDE] = peer.run
  seconds = timing.in_turns(
    sides, windows=_WINDOWS.value, steps=_STEPS.value, warmup=_WARMUP.value
  )
  _print_rates(experiment, seconds)
  _print_costs(experiment, model_part, whole_step, seconds)
  if peer is not None:
    mine, theirs = seconds["model part"], seconds[_PEER_SIDE]
    ratios = [b / a for a, b in zip(mine, theirs, strict=True)]
    print(f"ratio in each window: {min(ratios):.2f} to {max(ratios):.2f}")
    print(f"ratio: {timing.ratio(mine, theirs):.2f}")
  return 0


def _print_setting(
  config: ml_collections.ConfigDict,
  experiment: experiment_lib.Experiment,
  with_peer: bool,
) -> None:
  """Everything that a number must be quoted with."""
  step_command.print_setting(with_peer)
  views, support = experiment.trainer.views, config.support
  crops = " and ".join(
    f"{spec.count} x {spec.size}" for spec in views.crops.values()
  )
  unlabelled = f"{config.train.batch_size} unlabelled images as {crops}"
  if not crops:
    unlabelled = f"no unlabelled images, views of {views.support.size}"
  print(
    f"recipe: {config.model.name} x{config.model.width} in "
    f"{_dtype(experiment)}, {unlabelled} pixels, {support.classes_per_step} x "
    f"{support.images_per_class} x {support.num_views} supports"
  )
  print(
    f"data: {experiment.dataset.name}, in memory; reading is measured by "
    "benchmarks/input/whole_path.py"
  )


def _dtype(experiment: experiment_lib.Experiment) -> str:
  """Of activations: the encoder knows what "auto" came to."""
  return jnp.dtype(experiment.trainer.method.encoder.trunk.settings.dtype).name


def _create_peer(
  config: ml_collections.ConfigDict,
  experiment: experiment_lib.Experiment,
  state: state_lib.TrainState,
  views: data.Views,
) -> Any:
  """`torch_peer.Peer` with our initial weights and these views.

  Raises:
    ValueError: a recipe or a machine that it cannot be compared on.
  """
  sections = peer_recipe.sections(config)
  from benchmarks.torch_side import step as torch_peer

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
    torch_names.to_torch(
      {"params": state.params, "batch_stats": state.batch_stats}
    ),
    torch_peer.Views(
      support=_numpy(encoding.fold_views(supports)),
      label_rows=_numpy(
        encoding.support_rows(views, smoothing=config.support.label_smoothing)
      ),
      **{
        name: _numpy(views.crops[name].swapaxes(0, 1))
        if name in views.crops
        else None
        for name in ("large", "small")
      },
    ),
    rates=experiment.trainer.schedule(jnp.arange(most)).tolist(),
    dtype=_dtype(experiment),
    on_gpu=jax.default_backend() == "gpu",
    compiled=_PEER_COMPILE.value,
  )


def _numpy(array: jax.Array) -> np.ndarray:
  # A copy: PyTorch wants to be able to write.
  return np.array(array)


def _print_rates(
  experiment: experiment_lib.Experiment, seconds: Mapping[str, list[float]]
) -> None:
  """Of all devices together, and of each where there are several."""
  if _WINDOWS.value < _FEW_WINDOWS:
    print(
      f"windows: {_WINDOWS.value}; medians of fewer than {_FEW_WINDOWS} say "
      "little"
    )
  for name, windows in seconds.items():
    median = statistics.median(windows)
    rate = experiment.images_per_step / median
    # PyTorch has its own idea of a device.
    num_devices = 1 if name == _PEER_SIDE else jax.device_count()
    each = f" ({rate / num_devices:.4g} a device)" if num_devices > 1 else ""
    print(
      f"{name}: {1 / median:.3g} steps/s, {rate:.4g} {_kind(experiment)} "
      f"images/s{each}; {timing.spread(windows)}"
    )


def _kind(experiment: experiment_lib.Experiment) -> str:
  """Of the images that `images_per_step` counts."""
  return "unlabelled" if experiment.trainer.views.crops else "labelled"


def _print_costs(
  experiment: experiment_lib.Experiment,
  model_part: step_sides.ModelPart,
  whole_step: step_sides.Training,
  seconds: Mapping[str, list[float]],
) -> None:
  """Work of each device, and what cutting the views takes."""
  medians = {name: statistics.median(w) for name, w in seconds.items()}
  model = model_part.costs()
  for name, found in (
    ("model part", model),
    ("whole step", whole_step.costs()),
  ):
    told = accounting.describe(found, medians[name], model_flops=model.flops)
    print(f"{name}, each device: {told}")
  each = model.flops * jax.device_count() / experiment.images_per_step
  print(f"model part: {each / 1e9:.4g} GFLOP per {_kind(experiment)} image")
  share = 1 - medians["model part"] / medians["with augmentation"]
  print(f"cutting the views: {share:.1%} of the step with augmentation")


def _check(ours: step_sides.ModelPart, peer: Any, dtype: str) -> int:
  """Prints the losses of both sides' first steps; 1 if they disagree."""
  first, later = _TOLERANCES[dtype]
  status = 0
  for step in range(_NUM_CHECKED):
    a, b = float(ours.step()), float(peer.step())
    tolerance = later if step else first
    good = abs(a - b) <= tolerance * max(abs(a), abs(b), 1.0)
    status = status if good else 1
    print(
      f"check: step {step}: loss {a:.7f}, of the peer {b:.7f}: "
      f"{'equal' if good else 'NOT EQUAL'} within {tolerance:g}"
    )
  return status


if __name__ == "__main__":
  recipe_command.start(_run)
