"""What it costs a host to feed a device, per core.

  python -m benchmarks.input.input --make=400 --dir=jpegs
  python -m benchmarks.input.input --dir=/data/imagenet/train
  python -m benchmarks.input.input --make=400 --dir=jpegs --steps=1000

Prints images per second of CPU time, that is per core, of

  tensorflow: reading, decoding (bit-equal to Pillow, as we do), padding to the
      canvas and batching with tf.data, and nothing else
  ours: the host pipeline up to batches on the device, supports included, with
      data.decoder=tensorflow
  without_tensorflow: the same with data.decoder=pillow
  pillow: what the reference's loader does to an image: decoding, crops of
      224 (2) and 96 (6) pixels, flips, colour jitter, grey, blur, normalising,
      in Pillow and NumPy, without processes around it

All take turns, window by window, since machines are not equally fast all the
time. The last lines are ratios of the medians:

  ratio to tensorflow: ours / tensorflow
  ratio to without_tensorflow: ours / without_tensorflow
  ratio to pillow: ours / pillow

so above 1 ours is faster. CPU time is that of all threads of the process: on a
machine that does other things, too, it says more than the clock. With `--steps`
the pipeline then runs that many more steps, and the growth of the process's
memory is printed. `--make` first writes photographs of 500 x 375 pixels, the
same as whole_path.py does, into a directory that is new or empty.
"""

from __future__ import annotations

import gc
import io
import os
import pathlib
import statistics
import sys
import time
from collections.abc import Callable

import jax
import numpy as np
from absl import app
from absl import flags
from PIL import Image

from benchmarks import timing
from benchmarks.input import host_memory
from benchmarks.input import photographs
from benchmarks.input import pillow_peer
from paws_jax import config as config_lib
from paws_jax import tf_runtime
from paws_jax.data import sampling
from paws_jax.data.host import pipeline as pipeline_lib
from paws_jax.data.sources import catalog
from paws_jax.parallel import cpu_devices
from paws_jax.parallel import mesh

_DIR = flags.DEFINE_string("dir", None, "JPEGs, at any depth.", required=True)
_MAKE = flags.DEFINE_integer(
  "make", 0, "Photographs to write into a new or empty --dir.", lower_bound=0
)
_IMAGES = flags.DEFINE_integer(
  "images", 384, "Images in a window; pillow takes a quarter.", lower_bound=4
)
_WINDOWS = flags.DEFINE_integer(
  "windows", 5, "Times that everything is measured.", lower_bound=1
)
_BATCH = flags.DEFINE_integer("batch", 64, "Images in a batch.", lower_bound=2)
_CANVAS = flags.DEFINE_integer(
  "canvas", 512, "Side of a canvas in pixels.", lower_bound=1
)
_STEPS = flags.DEFINE_integer(
  "steps", 0, "Steps over which memory is watched; 0: none.", lower_bound=0
)


def main(argv: list[str]) -> int:
  """Measures; returns the exit status."""
  if len(argv) > 1:
    raise app.UsageError(f"unknown arguments: {' '.join(argv[1:])}")
  try:
    files = _files()
  except (ValueError, OSError) as error:
    print(f"error: {error}", file=sys.stderr)
    return 2
  _print_setting(files)
  with (
    _pipeline(files, "tensorflow") as pipeline,
    _pipeline(files, "pillow") as light,
  ):
    ours, pillow = _Ours(pipeline), pillow_peer.Loader(files)
    sides = {
      "tensorflow": _TensorFlow(files).run,
      "ours": ours.run,
      "without_tensorflow": _Ours(light).run,
      "pillow": lambda num_images: pillow.run(-(-num_images // 4)),
    }
    rates = _measure(sides)
    if _STEPS.value:
      _watch_memory(ours)
  median = {name: statistics.median(rates[name]) for name in sides}
  for name, windows in rates.items():
    print(
      f"{name}: {median[name]:.4g} images/s per core, windows "
      f"{min(windows):.4g} to {max(windows):.4g}"
    )
  for name in ("tensorflow", "without_tensorflow", "pillow"):
    print(f"ratio to {name}: {median['ours'] / median[name]:.2f}")
  return 0


def _files() -> catalog.Files:
  """The JPEGs of --dir, made if need be.

  Raises:
    ValueError: too few of them, or with --make none among other files.
    OSError: the directory cannot be read or written.
  """
  root = pathlib.Path(_DIR.value)
  if _MAKE.value:
    paths = photographs.find_or_make(root, _MAKE.value)
  else:
    paths = photographs.find(root)
  if len(paths) < _BATCH.value:
    raise ValueError(
      f"{root} has {len(paths)} JPEGs but a batch takes {_BATCH.value}: lower "
      "--batch, or add images (--make writes some into a new or empty --dir)."
    )
  return catalog.Files(root=str(root), paths=tuple(paths))


def _print_setting(files: catalog.Files) -> None:
  """Everything that a number must be quoted with."""
  tf = tf_runtime.load()
  timing.print_setting(tensorflow=tf.__version__, pillow=Image.__version__)
  count = min(len(files), 100)
  mean = statistics.mean(files.size(row) for row in range(count))
  with Image.open(io.BytesIO(files.read(0))) as first:
    width, height = first.size
  print(
    f"data: {len(files)} JPEGs of {mean / 1000:.0f} kB, the first {width} x "
    f"{height}; canvas {_CANVAS.value}, batch {_BATCH.value}"
  )


class _TensorFlow:
  """The least that has to be done."""

  def __init__(self, files: catalog.Files):
    tf = tf_runtime.load()
    side = _CANVAS.value
    paths = [os.path.join(files.root, path) for path in files.paths]

    def load(path):
      image = tf.io.decode_jpeg(
        tf.io.read_file(path),
        channels=3,
        dct_method="INTEGER_ACCURATE",
        fancy_upscaling=True,
      )[:side, :side]
      size = tf.shape(image)[:2]
      missing = side - size
      image = tf.pad(image, [[0, missing[0]], [0, missing[1]], [0, 0]])
      return tf.ensure_shape(image, (side, side, 3)), size

    options = tf.data.Options()
    options.threading.private_threadpool_size = cpu_devices.num_cores()
    options.autotune.enabled = False
    batches = (
      tf.data.Dataset.from_tensor_slices(paths)
      .repeat()
      .map(load, num_parallel_calls=cpu_devices.num_cores())
      .batch(_BATCH.value)
      .prefetch(1)
      .with_options(options)
    )
    self._batches = iter(batches)

  def run(self, num_images: int) -> int:
    """Takes batches; the number of images in them."""
    batches = -(-num_images // _BATCH.value)
    for _ in range(batches):
      next(self._batches)
    return batches * _BATCH.value


def _pipeline(files: catalog.Files, decoder: str) -> pipeline_lib.HostPipeline:
  """Half of a batch is unlabelled images, half supports; nothing is cached."""
  half = _BATCH.value // 2
  devices = [jax.devices()[0]]
  settings = dict(config_lib.base().support)
  support = {"classes_per_step": half, "images_per_class": 1}
  labels = np.arange(len(files)) % half
  names = tuple(str(label) for label in range(half))
  index = sampling.label_index(np.arange(len(files)), labels, class_names=names)
  return pipeline_lib.HostPipeline(
    files,
    index,
    pool=np.arange(len(files)),
    support=config_lib.Support(**settings | support),
    batch_size=half,
    seed=0,
    mesh=mesh.make_mesh(devices),
    canvas_size=_CANVAS.value,
    on_bad_image="error",
    max_pixels=10**8,
    support_cache_mb=0,
    decoder=decoder,
  )


class _Ours:
  """The pipeline as training uses it."""

  def __init__(self, pipeline: pipeline_lib.HostPipeline):
    self._pipeline = pipeline
    self._step = 0

  def run(self, num_images: int) -> int:
    """Takes steps; the number of images in them."""
    num_steps = -(-num_images // (_BATCH.value // 2 * 2))
    for _ in range(num_steps):
      jax.block_until_ready(self._pipeline.inputs(self._step, 1))
      self._step += 1
    return num_steps * (_BATCH.value // 2 * 2)


def _measure(sides: dict[str, Callable[[int], int]]) -> dict[str, list[float]]:
  """Images per second of CPU time of every side, one number a window."""
  rates = {name: [] for name in sides}
  for window in range(_WINDOWS.value + 1):
    for name, run in sides.items():
      start = time.process_time()
      count = run(_IMAGES.value)
      # Threads that fill their buffers once more: not on the next one's bill.
      _settle()
      rate = count / (time.process_time() - start)
      # The first window starts everything.
      if window:
        rates[name].append(rate)
  return rates


def _settle() -> None:
  """Waits until no thread of this process works.

  Several times in a row, as threads that wait for a busy core look idle, too.
  """
  idle = 0
  while idle < 8:
    start = time.process_time()
    time.sleep(0.05)
    idle = idle + 1 if time.process_time() - start < 0.005 else 0


def _watch_memory(ours: _Ours) -> None:
  """Prints what many steps add to the memory of the process."""
  images = _BATCH.value // 2 * 2
  # Allocators reach their size in the first tenth.
  warm = max(1, _STEPS.value // 10)
  ours.run(warm * images)
  gc.collect()
  before = host_memory.resident_bytes()
  ours.run((_STEPS.value - warm) * images)
  gc.collect()
  after = host_memory.resident_bytes()
  print(
    f"memory: {before / 2**20:.0f} MB after {warm} steps, "
    f"{after / 2**20:.0f} MB after {_STEPS.value}"
  )


if __name__ == "__main__":
  app.run(main)
