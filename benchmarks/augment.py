"""What each operation of augmentation costs, alone and fused, and in Pillow.

  python benchmarks/augment.py
  python benchmarks/augment.py --side=224 --batch=64      # on an accelerator

Random images of --side pixels. For each operation: microseconds an image of
the jitted operation alone on this device, and of Pillow's counterpart on one
core; then all of a large crop's operations as one program against the sum of
them alone. Then alternatives: blur as banded matrices (ours) and as a depthwise
convolution; equalize by comparisons (ours on accelerators) and by counting
(ours on a CPU); crops in the precisions of matrix products, with the largest
difference in grey levels. Last the number of gathers and scatters in the
program as lowered for a TPU, which must be 0, and

  ratio: Pillow's seconds for all operations / ours

of this machine: one Pillow process per core on a CPU, against all its cores.
"""

from __future__ import annotations

import functools
import re
import statistics
import time
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
import timing
from absl import app
from absl import flags
from PIL import Image
from PIL import ImageEnhance
from PIL import ImageFilter
from PIL import ImageOps

from paws_jax import augment
from paws_jax import colour
from paws_jax import config as config_lib
from paws_jax import equalize
from paws_jax import resample
from paws_jax import sharding

_SIDE = flags.DEFINE_integer("side", 64, "Pixels of a view.", lower_bound=8)
_BATCH = flags.DEFINE_integer("batch", 32, "Images at once.", lower_bound=1)
_WINDOWS = flags.DEFINE_integer(
  "windows", 5, "Times that everything is measured.", lower_bound=1
)


def main(argv: list[str]) -> int:
  """Measures; returns the exit status."""
  if len(argv) > 1:
    raise app.UsageError(f"unknown arguments: {' '.join(argv[1:])}")
  timing.print_setting(pillow=Image.__version__)
  side, batch = _SIDE.value, _BATCH.value
  rng = np.random.default_rng(0)
  canvas = rng.integers(0, 256, (batch, 2 * side, 2 * side, 3), dtype=np.uint8)
  views = jnp.asarray(canvas[:, :side, :side], jnp.float32)
  print(
    f"data: {batch} random images of {side} x {side}, microseconds an image"
  )
  ours = _operations(views, canvas, rng)
  theirs = _pillow(canvas[:, :side, :side], canvas, rng)
  total = {"ours": 0.0, "pillow": 0.0}
  for name, run in ours.items():
    mine, peer = _seconds(run), _seconds(theirs[name])
    total["ours"] += mine
    total["pillow"] += peer
    print(f"{name}: {_micro(mine)}, Pillow {_micro(peer)}")
  program, arguments = _fused(canvas)
  fused = _seconds(lambda: jax.block_until_ready(program(*arguments)))
  print(
    f"a large crop in one program: {_micro(fused)}; the operations alone, each "
    f"on every image: {_micro(total['ours'])}, Pillow {_micro(total['pillow'])}"
  )
  _alternatives(views, canvas, rng)
  lowered = program.trace(*arguments).lower(lowering_platforms=("tpu",))
  found = re.findall(r"stablehlo\.\w*(?:gather|scatter)", lowered.as_text())
  print(f"gathers and scatters for a TPU: {len(found)}")
  cores = sharding.num_cores() if jax.default_backend() == "cpu" else 1
  print(f"ratio: {total['pillow'] / cores / fused:.2f}")
  return 1 if found else 0


def _seconds(run: Callable[[], object]) -> float:
  """Median seconds of a call, after one that compiles."""
  run()
  seconds = []
  for _ in range(_WINDOWS.value):
    start = time.perf_counter()
    run()
    seconds.append(time.perf_counter() - start)
  return statistics.median(seconds)


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
  """Each operation of ours on all images, waited for."""
  batch, side = views.shape[:2]

  def uniform(low, high):
    return jnp.asarray(rng.uniform(low, high, batch), jnp.float32)

  def call(function, *arguments):
    compiled = jax.jit(function)
    return lambda: jax.block_until_ready(compiled(*arguments))

  crop = functools.partial(resample.crop_and_resize, size=side)
  factors = uniform(0.2, 1.8)
  boxes = jnp.asarray(_boxes(batch, side, rng))
  return {
    "crop": call(crop, jnp.asarray(canvas), boxes),
    "brightness": call(colour.adjust_brightness, views, factors),
    "contrast": call(colour.adjust_contrast, views, factors),
    "saturation": call(colour.adjust_saturation, views, factors),
    "hue": call(colour.adjust_hue, views, uniform(-0.2, 0.2)),
    "greyscale": call(colour.greyscale, views),
    "blur": call(resample.gaussian_blur, views, uniform(0.1, 2.0)),
    "solarize": call(colour.solarize, views, uniform(0, 256)),
    "equalize": call(equalize.equalize, views),
  }


def _pillow(
  views: np.ndarray, canvas: np.ndarray, rng: np.random.Generator
) -> dict[str, Callable[[], object]]:
  """The same by Pillow, one image after another."""
  batch, side = views.shape[:2]
  whole = [Image.fromarray(pixels) for pixels in canvas]
  images = [Image.fromarray(pixels) for pixels in views]
  boxes = _boxes(batch, side, rng)
  factor = float(rng.uniform(0.2, 1.8))

  def crop():
    for image, (top, left, height, width) in zip(whole, boxes, strict=True):
      image.resize(
        (side, side),
        Image.Resampling.BILINEAR,
        box=(left, top, left + width, top + height),
      )

  def each(operation):
    return lambda: [operation(image) for image in images]

  def hue(image):
    turned, saturation, value = image.convert("HSV").split()
    shifted = Image.fromarray(np.asarray(turned) + np.uint8(30))
    return Image.merge("HSV", (shifted, saturation, value)).convert("RGB")

  blur = ImageFilter.GaussianBlur(float(rng.uniform(0.1, 2.0)))
  return {
    "crop": crop,
    "brightness": each(lambda i: ImageEnhance.Brightness(i).enhance(factor)),
    "contrast": each(lambda i: ImageEnhance.Contrast(i).enhance(factor)),
    "saturation": each(lambda i: ImageEnhance.Color(i).enhance(factor)),
    "hue": each(hue),
    "greyscale": each(lambda i: i.convert("L").convert("RGB")),
    "blur": each(lambda i: i.filter(blur)),
    "solarize": each(lambda i: ImageOps.solarize(i, 128)),
    "equalize": each(ImageOps.equalize),
  }


def _fused(canvas: np.ndarray):
  """The large crop of the ImageNet recipe with every operation switched on."""
  views = config_lib.base().views.to_dict()
  views |= {
    "large_size": _SIDE.value,
    "solarize_probability": 0.2,
    "equalize_probability": 0.2,
  }
  config = augment.ViewsConfig(**views)
  program = jax.jit(
    functools.partial(augment.random_views, config=config, kind="large")
  )
  keys = jax.random.split(jax.random.key(0), len(canvas))
  sizes = jnp.full((len(canvas), 2), canvas.shape[1], jnp.int32)
  return program, (keys, jnp.asarray(canvas), sizes)


def _alternatives(
  views: jax.Array, canvas: np.ndarray, rng: np.random.Generator
) -> None:
  """Prints what was chosen between."""
  radii = jnp.asarray(rng.uniform(0.1, 2.0, len(views)), jnp.float32)
  for name, function in (
    ("blur, banded matrices", resample.gaussian_blur),
    ("blur, depthwise convolution", _blur_by_convolution),
  ):
    run = jax.jit(function)
    seconds = _seconds(lambda run=run: jax.block_until_ready(run(views, radii)))
    print(f"{name}: {_micro(seconds)}")
  levels = views.astype(jnp.int32)
  for name, function in (
    ("equalize, comparisons", equalize.by_comparing),
    ("equalize, counting", equalize.by_counting),
  ):
    run = jax.jit(function)
    seconds = _seconds(lambda run=run: jax.block_until_ready(run(levels)))
    print(f"{name}: {_micro(seconds)}")
  boxes = jnp.asarray(_boxes(len(views), views.shape[1], rng))
  exact = None
  for precision in (jax.lax.Precision.HIGHEST, jax.lax.Precision.DEFAULT):
    run = jax.jit(
      functools.partial(
        resample.crop_and_resize, size=views.shape[1], precision=precision
      )
    )
    pixels = jnp.asarray(canvas)
    cut = run(pixels, boxes)
    exact = cut if exact is None else exact
    seconds = _seconds(
      lambda run=run, pixels=pixels: jax.block_until_ready(run(pixels, boxes))
    )
    print(
      f"crop in precision {precision.name}: {_micro(seconds)}, "
      f"{float(jnp.abs(cut - exact).max()):.2g} levels off at most"
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
