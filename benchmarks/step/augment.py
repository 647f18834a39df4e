"""What each operation of augmentation costs, alone and fused, and in Pillow.

  python -m benchmarks.step.augment
  python -m benchmarks.step.augment --side=224 --batch=64  # on an accelerator

Random images of --side pixels. For each operation: microseconds an image of
the jitted operation alone on this device, and of Pillow's counterpart on one
core, in turns; then all of a large crop's operations as one program against the
sum of them alone. Then alternatives: blur as banded matrices (ours) and as a
depthwise convolution; equalize by comparisons (ours on accelerators) and by
counting (ours on a CPU); crops in the precisions of matrix products, with the
largest difference in grey levels. Last the number of gathers and scatters in
the program as lowered for a TPU, which must be 0, and

  ratio: Pillow's seconds for all operations / ours

On a CPU both sides have one core, the same one, to which all threads of this
process are held (on Linux; elsewhere it is refused). An accelerator is compared
with a Pillow process on each core of its host: Pillow's seconds are divided by
their number.
"""

from __future__ import annotations

import functools
import os
import pathlib
import re
import statistics
import sys
import time
from collections.abc import Callable
from collections.abc import Mapping

import jax
import jax.numpy as jnp
import numpy as np
from absl import app
from absl import flags
from PIL import Image

from benchmarks import timing
from benchmarks.input import pillow_peer
from paws_jax import augment
from paws_jax import config as config_lib
from paws_jax.augment import color
from paws_jax.augment import equalize
from paws_jax.augment import rand_augment
from paws_jax.augment import resample
from paws_jax.parallel import cpu_devices

_SIDE = flags.DEFINE_integer("side", 64, "Pixels of a view.", lower_bound=8)
_BATCH = flags.DEFINE_integer("batch", 32, "Images at once.", lower_bound=1)
_WINDOWS = flags.DEFINE_integer(
  "windows", 5, "Times that everything is measured.", lower_bound=1
)
# Seconds of a window and most calls in it: one call of what is cheap would be
# more waiting than computing.
_WINDOW, _MOST_CALLS = 0.05, 100


def main(argv: list[str]) -> int:
  """Measures; returns the exit status."""
  if len(argv) > 1:
    raise app.UsageError(f"unknown arguments: {' '.join(argv[1:])}")
  timing.print_setting(pillow=Image.__version__)
  on_cpu = jax.default_backend() == "cpu"
  try:
    pillow_cores = _hold_to_one_core() if on_cpu else cpu_devices.num_cores()
  except OSError as error:
    print(f"error: {error}", file=sys.stderr)
    return 2
  side, batch = _SIDE.value, _BATCH.value
  rng = np.random.default_rng(0)
  canvas = rng.integers(0, 256, (batch, 2 * side, 2 * side, 3), dtype=np.uint8)
  views = jnp.asarray(canvas[:, :side, :side], jnp.float32)
  print(
    f"data: {batch} random images of {side} x {side}, microseconds an image; "
    + ("both sides on the same core" if on_cpu else "Pillow on one core")
  )
  ours = _operations(views, canvas, rng)
  theirs = pillow_peer.operations(
    canvas[:, :side, :side], canvas, _boxes(batch, side, rng), rng
  )
  alone = 0.0
  for name, run in ours.items():
    found = _seconds({"ours": run, "pillow": theirs[name]})
    alone += found["ours"]
    print(f"{name}: {_micro(found['ours'])}, Pillow {_micro(found['pillow'])}")
  program, arguments = _fused(canvas)
  whole = _seconds(
    {
      "ours": lambda: program(*arguments),
      "pillow": lambda: [run() for run in theirs.values()],
    }
  )
  print(
    f"a large crop in one program: {_micro(whole['ours'])}; the operations "
    f"alone, each on every image: {_micro(alone)}, Pillow "
    f"{_micro(whole['pillow'])}"
  )
  _alternatives(views, canvas, rng)
  lowered = program.trace(*arguments).lower(lowering_platforms=("tpu",))
  found = re.findall(r"stablehlo\.\w*(?:gather|scatter)", lowered.as_text())
  print(f"gathers and scatters for a TPU: {len(found)}")
  print(f"ratio: {whole['pillow'] / pillow_cores / whole['ours']:.2f}")
  return 1 if found else 0


def _hold_to_one_core() -> int:
  """Holds all threads of this process to one core; returns 1.

  XLA spreads what is no matrix product or convolution over its threads whatever
  its flags say, where Pillow has one.

  Raises:
    OSError: this system cannot.
  """
  if not hasattr(os, "sched_setaffinity"):
    raise OSError(
      "on a CPU both sides are held to one core, which takes Linux: run this "
      "there, or on an accelerator."
    )
  core = {max(os.sched_getaffinity(0))}
  # JAX has started its threads by now; later ones are held as their makers.
  for thread in pathlib.Path("/proc/self/task").iterdir():
    os.sched_setaffinity(int(thread.name), core)
  return 1


def _seconds(calls: Mapping[str, Callable[[], object]]) -> dict[str, float]:
  """Median seconds of a call of each, in turns, after some that compile."""
  windows = timing.in_turns(
    {name: _side(call) for name, call in calls.items()},
    windows=_WINDOWS.value,
    steps=1,
    warmup=0,
  )
  return {name: statistics.median(found) for name, found in windows.items()}


def _side(call: Callable[[], object]) -> Callable[[int], int]:
  """Of `timing.in_turns`: as many calls as fill a window."""

  def run(times: int) -> int:
    for _ in range(times):
      result = call()
    jax.block_until_ready(result)
    return times

  run(1)
  start = time.perf_counter()
  run(1)
  once = time.perf_counter() - start
  enough = min(max(round(_WINDOW / once), 1), _MOST_CALLS)
  return lambda times: run(times * enough)


def _micro(seconds: float) -> str:
  return f"{1e6 * seconds / _BATCH.value:.4g} us"


def _boxes(batch: int, side: int, rng: np.random.Generator) -> np.ndarray:
  """int32 [n, 4]: boxes of half to all of the side of a canvas."""
  sizes = rng.integers(side // 2, 2 * side, (batch, 2))
  corners = rng.integers(0, 2 * side - sizes + 1)
  return np.concatenate([corners, sizes], axis=1).astype(np.int32)


def _operations(
  views: jax.Array, canvas: np.ndarray, rng: np.random.Generator
) -> dict[str, Callable[[], object]]:
  """Each operation of ours on all images."""
  batch, side = views.shape[:2]

  def uniform(low, high):
    return jnp.asarray(rng.uniform(low, high, batch), jnp.float32)

  def call(function, *arguments):
    compiled = jax.jit(function)
    return lambda: compiled(*arguments)

  crop = functools.partial(resample.crop_and_resize, size=side)
  factors = uniform(0.2, 1.8)
  boxes = jnp.asarray(_boxes(batch, side, rng))
  return {
    "crop": call(crop, jnp.asarray(canvas), boxes),
    "brightness": call(color.adjust_brightness, views, factors),
    "contrast": call(color.adjust_contrast, views, factors),
    "saturation": call(color.adjust_saturation, views, factors),
    "hue": call(color.adjust_hue, views, uniform(-0.2, 0.2)),
    "greyscale": call(color.greyscale, views),
    "blur": call(resample.gaussian_blur, views, uniform(0.1, 2.0)),
    "solarize": call(color.solarize, views, uniform(0, 256)),
    "equalize": call(equalize.equalize, views),
  }


def _fused(canvas: np.ndarray):
  """The large crop of the ImageNet recipe with every operation switched on."""
  section = config_lib.base().views
  section.large.update(
    size=_SIDE.value, solarize_probability=0.2, equalize_probability=0.2
  )
  views = config_lib.build_views(section)
  program = jax.jit(
    functools.partial(
      augment.multi_views,
      spec=views.specs["large"],
      mean=views.mean,
      std=views.std,
    )
  )
  keys = jax.random.split(jax.random.key(0), (len(canvas), 1))
  sizes = jnp.full((len(canvas), 2), canvas.shape[1], jnp.int32)
  return program, (keys, jnp.asarray(canvas), sizes)


def _alternatives(
  views: jax.Array, canvas: np.ndarray, rng: np.random.Generator
) -> None:
  """Prints what was chosen between."""
  radii = jnp.asarray(rng.uniform(0.1, 2.0, len(views)), jnp.float32)
  levels = views.astype(jnp.int32)
  policy = rand_augment.POLICIES["fixmatch"]
  shape = (len(views), rand_augment.NUM_DRAWS)
  draws = jnp.asarray(rng.uniform(size=shape), jnp.float32)
  for kind, alternatives in (
    (
      "blur",
      {
        "banded matrices": (resample.gaussian_blur, views, radii),
        "depthwise convolution": (_blur_by_convolution, views, radii),
      },
    ),
    (
      "equalize",
      {
        "comparisons": (equalize.by_comparing, levels),
        "counting": (equalize.by_counting, levels),
      },
    ),
    (
      "RandAugment, two of 14 operations",
      {
        "all computed and selected": (
          functools.partial(rand_augment.augment, policy=policy),
          draws,
          views,
        ),
      },
    ),
  ):
    found = _seconds(
      {
        name: functools.partial(jax.jit(function), *arguments)
        for name, (function, *arguments) in alternatives.items()
      }
    )
    for name, seconds in found.items():
      print(f"{kind}, {name}: {_micro(seconds)}")
  _precisions(canvas, views.shape[1], rng)


def _precisions(
  canvas: np.ndarray, side: int, rng: np.random.Generator
) -> None:
  """Prints what less exact matrix products bring to crops, and cost."""
  pixels = jnp.asarray(canvas)
  boxes = jnp.asarray(_boxes(len(canvas), side, rng))
  calls = {}
  for precision in (jax.lax.Precision.HIGHEST, jax.lax.Precision.DEFAULT):
    crop = functools.partial(
      resample.crop_and_resize, size=side, precision=precision
    )
    calls[precision.name] = functools.partial(jax.jit(crop), pixels, boxes)
  exact = calls["HIGHEST"]()
  same = ""
  if jax.default_backend() == "cpu":
    same = " (a CPU multiplies in float32 in either: this compares nothing)"
  for name, seconds in _seconds(calls).items():
    off = float(jnp.abs(calls[name]() - exact).max())
    print(
      f"crop in precision {name}: {_micro(seconds)}, {off:.2g} levels off at "
      f"most{same}"
    )


def _blur_by_convolution(images: jax.Array, radii: jax.Array) -> jax.Array:
  """A Gaussian of its own for each image, as grouped convolutions."""
  reach = 8
  offsets = jnp.arange(-reach, reach + 1, dtype=jnp.float32)
  kernels = jnp.exp(-0.5 * (offsets[None, :] / radii[:, None]) ** 2)
  kernels /= jnp.sum(kernels, axis=1, keepdims=True)
  batch, height, width, channels = images.shape
  # Each image and channel is a feature of one large image.
  stacked = images.transpose(1, 2, 0, 3).reshape(1, height, width, -1)
  per_feature = jnp.repeat(kernels, channels, axis=0).T
  padded = jnp.pad(
    stacked, ((0, 0), (reach,) * 2, (reach,) * 2, (0, 0)), "edge"
  )
  for shape in ((-1, 1, 1), (1, -1, 1)):
    kernel = per_feature.reshape(*shape, batch * channels)
    padded = jax.lax.conv_general_dilated(
      padded,
      kernel,
      (1, 1),
      "VALID",
      dimension_numbers=("NHWC", "HWIO", "NHWC"),
      feature_group_count=batch * channels,
    )
  blurred = padded.reshape(height, width, batch, channels)
  return blurred.transpose(2, 0, 1, 3)


if __name__ == "__main__":
  app.run(main)
