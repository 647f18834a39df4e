"""What it costs to cut the crops on the host, and what it saves.

  python -m benchmarks.input.crops --make=200 --dir=jpegs
  python -m benchmarks.input.crops --dir=/data/imagenet/train --batch=256

Takes the crops of configs/imagenet.py (2 of 224 and 6 of 96 pixels of each
unlabelled image, one of 224 of each support), and compares views.crop_on=host
with device, with both decoders:

  images per second of CPU time, that is per core of the host, up to batches on
      the device; half of a batch is unlabelled images, half supports
  seconds that one device takes for the views, cut or not, on batches that are
      there
  bytes of a step that are sent to the devices
  floating-point operations of a step that the devices spend on the views,
      counted in the compiled program

All take turns, window by window. The last lines are ratios, host / device:

  ratio of images: above 1 the host feeds more images per core
  ratio of view seconds: below 1 the device needs less time
  ratio of bytes: below 1 less is sent
  ratio of operations: below 1 the devices compute less

On a machine whose only device is its CPU, the seconds of views are those of the
same cores. --make first writes photographs of 500 x 375 pixels into a directory
that is new or empty.
"""

from __future__ import annotations

import contextlib
import itertools
import math
import pathlib
import statistics
import sys
import time
from typing import Any

import jax
import numpy as np
from absl import app
from absl import flags
from PIL import Image

from benchmarks import timing
from benchmarks.input import photographs
from paws_jax import config as config_lib
from paws_jax import data
from paws_jax import packages
from paws_jax.data import sampling
from paws_jax.data.host import cut
from paws_jax.data.host import pipeline as pipeline_lib
from paws_jax.data.sources import catalog
from paws_jax.parallel import mesh
from paws_jax.training import views as views_lib

_DIR = flags.DEFINE_string("dir", None, "JPEGs, at any depth.", required=True)
_MAKE = flags.DEFINE_integer(
  "make", 0, "Photographs to write into a new or empty --dir.", lower_bound=0
)
_IMAGES = flags.DEFINE_integer(
  "images", 128, "Images in a window.", lower_bound=2
)
_WINDOWS = flags.DEFINE_integer(
  "windows", 3, "Times that everything is measured.", lower_bound=1
)
_BATCH = flags.DEFINE_integer("batch", 32, "Images in a batch.", lower_bound=2)
_CANVAS = flags.DEFINE_integer(
  "canvas", 512, "Side of a canvas in pixels.", lower_bound=1
)
_SIDE = flags.DEFINE_integer(
  "side", 224, "Side of a large view; small ones have 3/7.", lower_bound=7
)
_PLACES = ("device", "host")


def main(argv: list[str]) -> int:
  """Measures; returns the exit status."""
  if len(argv) > 1:
    raise app.UsageError(f"unknown arguments: {' '.join(argv[1:])}")
  root = pathlib.Path(_DIR.value)
  try:
    if _MAKE.value:
      paths = photographs.find_or_make(root, _MAKE.value)
    else:
      paths = photographs.find(root)
    if len(paths) < _BATCH.value:
      raise ValueError(f"{root} has {len(paths)} JPEGs, fewer than --batch.")
  except (ValueError, OSError) as error:
    print(f"error: {error}", file=sys.stderr)
    return 2
  files = catalog.Files(root=str(root), paths=tuple(paths))
  timing.print_setting(pillow=Image.__version__)
  print(
    f"data: {len(files)} JPEGs; canvas {_CANVAS.value}, batch {_BATCH.value}, "
    f"views of {_SIDE.value} and {_small()}"
  )
  decoders = ["pillow"]
  if packages.is_installed("tensorflow"):
    decoders.append("tensorflow")
  with contextlib.ExitStack() as stack:
    sides = {
      key: _Side(stack.enter_context(_pipeline(files, *key)))
      for key in itertools.product(decoders, _PLACES)
    }
    _report(decoders, sides)
  return 0


def _small() -> int:
  return _SIDE.value * 3 // 7


def _views() -> views_lib.StepViews:
  """The views of the ImageNet recipe; the device still colors them."""
  large = config_lib.ViewSpec(count=2, size=_SIDE.value, scale=(0.14, 1.0))
  small = config_lib.ViewSpec(count=6, size=_small(), scale=(0.05, 0.14))
  return views_lib.StepViews(
    crops={"large": large, "small": small},
    support=large,
    mean=(0.485, 0.456, 0.406),
    std=(0.229, 0.224, 0.225),
  )


def _pipeline(
  files: catalog.Files, decoder: str, place: str
) -> pipeline_lib.HostPipeline:
  half, views = _BATCH.value // 2, _views()
  labels = np.arange(len(files)) % half
  names = tuple(str(label) for label in range(half))
  index = sampling.label_index(np.arange(len(files)), labels, class_names=names)
  return pipeline_lib.HostPipeline(
    files,
    index,
    pool=np.arange(len(files)),
    support=config_lib.Support(classes_per_step=half, images_per_class=1),
    batch_size=half,
    seed=0,
    mesh=mesh.make_mesh(jax.devices()[:1]),
    canvas_size=_CANVAS.value,
    on_bad_image="error",
    max_pixels=10**8,
    support_cache_mb=0,
    decoder=decoder,
    crops=cut.CropSpecs(views.crops, views.support, 1)
    if place == "host"
    else None,
  )


class _Side:
  """One way, with the program of its views.

  Attributes:
    num_bytes: of a step, sent to the devices.
    operations: of the views of a step on the devices.
  """

  def __init__(self, pipeline: pipeline_lib.HostPipeline):
    self._pipeline = pipeline
    self._step = 0
    (shapes,) = pipeline.input_shapes(1).batches
    leaves = jax.tree.leaves((shapes.unlabelled, shapes.support))
    self.num_bytes = sum(
      math.prod(leaf.shape) * leaf.dtype.itemsize for leaf in leaves
    )

    @jax.jit
    def make(batch: data.HostBatch, step: jax.Array) -> data.Views:
      return views_lib.make_views(
        batch, seed=0, step=step, views=_views(), num_support_views=1
      )

    self._views = make.lower(shapes, np.int32(0)).compile()
    self.operations = self._views.cost_analysis()["flops"]

  def images_per_cpu_second(self) -> float:
    """Takes steps of a window."""
    num_steps = -(-_IMAGES.value // _BATCH.value)
    start = time.process_time()
    for _ in range(num_steps):
      jax.block_until_ready(self._pipeline.inputs(self._step, 1))
      self._step += 1
    _settle()
    return num_steps * _BATCH.value / (time.process_time() - start)

  def view_seconds(self) -> float:
    """Makes the views of one batch."""
    (batch,) = self._pipeline.inputs(self._step, 1).batches
    self._step += 1
    _settle()
    jax.block_until_ready(self._views(batch, np.int32(0)))
    start = time.perf_counter()
    jax.block_until_ready(self._views(batch, np.int32(0)))
    return time.perf_counter() - start


def _settle() -> None:
  """Waits until what was read ahead is there."""
  idle = 0
  while idle < 8:
    start = time.process_time()
    time.sleep(0.05)
    idle = idle + 1 if time.process_time() - start < 0.005 else 0


def _report(decoders: list[str], sides: dict[tuple[str, str], Any]) -> None:
  """Takes turns; prints what came out."""
  rates = {key: [] for key in sides}
  seconds = {place: [] for place in _PLACES}
  for window in range(_WINDOWS.value + 1):
    for key, side in sides.items():
      rate = side.images_per_cpu_second()
      # The first window starts everything.
      if window:
        rates[key].append(rate)
    for place in _PLACES:
      taken = sides[decoders[0], place].view_seconds()
      if window:
        seconds[place].append(taken)
  median = {key: statistics.median(values) for key, values in rates.items()}
  for (decoder, place), values in rates.items():
    print(
      f"{decoder}, crops on the {place}: {median[decoder, place]:.4g} images/s "
      f"per core, windows {min(values):.4g} to {max(values):.4g}"
    )
  for place in _PLACES:
    side = sides[decoders[0], place]
    print(
      f"crops on the {place}: views take {timing.spread(seconds[place])}; a "
      f"step sends {side.num_bytes / 1e6:.4g} MB; views of a step take "
      f"{side.operations / 1e9:.4g} GFLOP"
    )
  for decoder in decoders:
    ratio = median[decoder, "host"] / median[decoder, "device"]
    print(f"ratio of images, {decoder}: {ratio:.2f}")
  host, device = (sides[decoders[0], place] for place in ("host", "device"))
  taken = [statistics.median(seconds[place]) for place in ("host", "device")]
  print(f"ratio of view seconds: {taken[0] / taken[1]:.2f}")
  print(f"ratio of bytes: {host.num_bytes / device.num_bytes:.2f}")
  print(f"ratio of operations: {host.operations / device.operations:.2f}")


if __name__ == "__main__":
  app.run(main)
