"""Whether training waits for its images: JPEG files through the real loop.

  python -m benchmarks.input.whole_path
  python -m benchmarks.input.whole_path --dir=/data/photos --steps=1000
  python -m benchmarks.input.whole_path --canvas=512 --side=224 --model=resnet50

Takes configs/image_folder.py:laptop with a small encoder and small views, so
that reading, not computing, is what takes time, and measures

  bare pipeline: reading, decoding, putting batches on the devices, no training
  whole path: the loop that trains, with the same pipeline
  step alone: the same step on a batch that is already there

All take turns, window by window, and each first takes a few steps that do not
count, which empty what was read ahead while another had its turn. Then how long
the devices waited for images (input stall), how long single steps waited, and
the memory of the process at the start, in the middle and at the end. Last

  ratio: seconds per step of the bare pipeline / of the whole path

At 1 training costs no more time than reading; on a CPU reading and computing
share the cores, and the best that can be is bare / (bare + step alone).

Without --dir, --images photographs of 500 x 375 pixels are made in a temporary
directory; a new or empty --dir is filled with them. Ten classes of eight images
are labelled, by number.
"""

from __future__ import annotations

import contextlib
import csv
import pathlib
import runpy
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from typing import Any

import jax
import ml_collections
from absl import app
from absl import flags
from PIL import Image

from benchmarks import timing
from benchmarks.input import host_memory
from benchmarks.input import photographs
from paws_jax import config as config_lib
from paws_jax import models
from paws_jax import tf_runtime
from paws_jax.parallel import cpu_devices
from paws_jax.training import experiment as experiment_lib
from paws_jax.training import loop
from paws_jax.training import step

_RECIPE = pathlib.Path(__file__).parents[2] / "configs" / "image_folder.py"
_CLASSES, _LABELS = 10, 8
# Steps at the beginning of each turn, for what was read ahead.
_READ_AHEAD = 6

_DIR = flags.DEFINE_string("dir", None, "JPEGs, at any depth.")
_IMAGES = flags.DEFINE_integer(
  "images", 2000, "Photographs to make where there are none.", lower_bound=1
)
_STEPS = flags.DEFINE_integer(
  "steps", 100, "Steps of each that are measured.", lower_bound=1
)
_WINDOWS = flags.DEFINE_integer(
  "windows", 5, "Times that everything is measured.", lower_bound=1
)
_BATCH = flags.DEFINE_integer("batch", 32, "Images in a step.", lower_bound=1)
_CANVAS = flags.DEFINE_integer(
  "canvas", 96, "Side of a canvas in pixels.", lower_bound=8
)
_SIDE = flags.DEFINE_integer("side", 16, "Side of a view.", lower_bound=8)
_MODEL = flags.DEFINE_enum(
  "model", "small_resnet", sorted(models.ENCODERS), "Encoder."
)


def main(argv: list[str]) -> int:
  """Measures; returns the exit status."""
  if len(argv) > 1:
    raise app.UsageError(f"unknown arguments: {' '.join(argv[1:])}")
  cpu_devices.use_cpu_cores(_BATCH.value)
  with contextlib.ExitStack() as stack:
    scratch = pathlib.Path(stack.enter_context(tempfile.TemporaryDirectory()))
    try:
      root = pathlib.Path(_DIR.value) if _DIR.value else scratch / "photos"
      files = _files(root)
      experiment = _experiment(root, files, scratch / "photographs.csv")
    except (ValueError, TypeError, OSError) as error:
      print(f"error: {error}", file=sys.stderr)
      return 2
    stack.callback(experiment.pipeline.close)
    _print_setting(root, files)
    _measure(experiment)
  return 0


def _files(root: pathlib.Path) -> list[str]:
  """Names of the JPEGs in a directory; makes some where there are none.

  Raises:
    ValueError: too few of them, or none among other files.
    OSError: the directory cannot be read or written.
  """
  files = photographs.find_or_make(root, _IMAGES.value)
  needed = max(_BATCH.value, _CLASSES * _LABELS)
  if len(files) < needed:
    raise ValueError(
      f"there are {len(files)} JPEGs, but --batch={_BATCH.value} images and "
      f"{_CLASSES} x {_LABELS} labelled ones are taken: {needed} are needed. "
      "Raise --images, or give another --dir."
    )
  return files


def _experiment(
  root: pathlib.Path, files: list[str], manifest: pathlib.Path
) -> experiment_lib.Experiment:
  """The recipe on these files, with what is computed made small.

  Raises:
    ValueError, TypeError: as `experiment.create`.
  """
  with manifest.open("w", newline="", encoding="utf-8") as file:
    writer = csv.writer(file)
    writer.writerow(("path", "label"))
    for i, path in enumerate(files):
      labelled = i < _CLASSES * _LABELS
      writer.writerow((path, f"class {i % _CLASSES}" if labelled else ""))
  config: ml_collections.ConfigDict = runpy.run_path(str(_RECIPE))[
    "get_config"
  ]("laptop")
  config.data.dir, config.data.manifest = str(root), str(manifest)
  config.data.canvas_size = _CANVAS.value
  config.views.large.size = _SIDE.value
  config.views.eval_resize = _SIDE.value
  config.support.images_per_class = 2
  config.model.name, config.model.output_dim = _MODEL.value, 32
  config.train.batch_size = _BATCH.value
  config_lib.resolve(config)
  return experiment_lib.create(config_lib.resolve(config))


def _print_setting(root: pathlib.Path, files: list[str]) -> None:
  """Everything that a number must be quoted with."""
  tf = tf_runtime.load()
  timing.print_setting(tensorflow=tf.__version__, pillow=Image.__version__)
  sizes = [(root / path).stat().st_size for path in files[:100]]
  print(
    f"data: {len(files)} JPEGs of {statistics.mean(sizes) / 1000:.0f} kB; "
    f"canvas {_CANVAS.value}, a step {_BATCH.value} images and "
    f"{2 * _CLASSES} supports, {_MODEL.value}, views of {_SIDE.value}"
  )


class _Watched:
  """A pipeline that notes how long each step waits.

  Attributes:
    waits: seconds in which the devices had nothing to do, of each step.
    step: the next one.
  """

  def __init__(self, pipeline: Any):
    self._pipeline = pipeline
    self.waits: list[float] = []
    self.step = 0

  def inputs(self, first_step: int, num_steps: int, **options: Any) -> Any:
    """As the pipeline's."""
    before = self._pipeline.stall_seconds
    found = self._pipeline.inputs(first_step, num_steps, **options)
    self.waits.append(self._pipeline.stall_seconds - before)
    self.step = first_step + num_steps
    return found


class _Sides:
  """What is compared; every method takes so many steps."""

  def __init__(self, experiment: experiment_lib.Experiment):
    self.watched = _Watched(experiment.pipeline)
    self._state = experiment.initial_state()
    call = step.make_train_call(experiment.trainer, experiment.pipeline, 1)
    shapes = experiment.pipeline.input_shapes(1)
    self._call = timing.compiled("train step", call, self._state, shapes)
    self._inputs = None

  def bare(self, num_steps: int) -> None:
    """Reads batches and throws them away."""
    for _ in range(num_steps):
      self._inputs = self.watched.inputs(self.watched.step, 1)
      jax.block_until_ready(self._inputs)

  def whole(self, num_steps: int) -> None:
    """Trains."""
    first = self.watched.step
    self._state = loop.loop(
      self._call,
      self._state,
      self.watched,
      first_step=first,
      total_steps=first + num_steps,
      every=loop.Intervals(),
      hooks=loop.Hooks(
        log=lambda *_: None,
        evaluate=lambda *_: None,
        save=lambda *_: None,
        stopping=lambda: False,
        rescue=lambda *_: None,
        not_finite=lambda *_: None,
      ),
    )
    jax.block_until_ready(self._state)

  def step_alone(self, num_steps: int) -> None:
    """Trains on the last batch that was read, again and again."""
    for _ in range(num_steps):
      self._state, metrics = self._call(self._state, self._inputs)
      # As the loop, which fetches the numbers of every step.
      jax.device_get(metrics)
    jax.block_until_ready(self._state)


def _measure(experiment: experiment_lib.Experiment) -> None:
  """Takes turns; prints what came out."""
  sides = _Sides(experiment)
  # "step alone" needs a batch that has been read.
  runs = {
    "bare pipeline": sides.bare,
    "whole path": sides.whole,
    "step alone": sides.step_alone,
  }
  waits: dict[str, list[float]] = {name: [] for name in runs}
  seconds: dict[str, list[float]] = {name: [] for name in runs}
  memory = []
  steps = -(-_STEPS.value // _WINDOWS.value)
  for window in range(_WINDOWS.value + 1):
    for name, run in runs.items():
      run(_READ_AHEAD)
      sides.watched.waits = []
      taken = _seconds(run, steps)
      # The first window starts everything.
      if window:
        seconds[name].append(taken / steps)
        waits[name] += sides.watched.waits
    memory.append(host_memory.resident_bytes() / 2**20)
  _print_rates(seconds)
  _print_waits(seconds, waits)
  middle = memory[len(memory) // 2]
  print(
    f"memory: {memory[0]:.0f} MiB at the start, {middle:.0f} in the middle, "
    f"{memory[-1]:.0f} at the end"
  )
  ratio = timing.ratio(seconds["whole path"], seconds["bare pipeline"])
  print(f"ratio: {ratio:.2f}")


def _seconds(run: Callable[[int], None], steps: int) -> float:
  start = time.perf_counter()
  run(steps)
  return time.perf_counter() - start


def _print_rates(seconds: dict[str, list[float]]) -> None:
  for name, windows in seconds.items():
    rate = 1 / statistics.median(windows)
    print(
      f"{name}: {rate:.4g} steps/s, {rate * _BATCH.value:.4g} images/s; "
      f"{timing.spread(windows)}"
    )


def _print_waits(
  seconds: dict[str, list[float]], waits: dict[str, list[float]]
) -> None:
  """How long training waited, and what the pipeline takes by itself."""
  waited, alone = waits["whole path"], waits["bare pipeline"]
  passed = sum(seconds["whole path"]) * len(waited) / _WINDOWS.value
  print(f"input stall: {sum(waited) / passed:.1%} of the whole path's time")
  print(
    f"a step waits for images: median {statistics.median(waited):.4g} s, at "
    f"most {max(waited):.4g}; the bare pipeline takes for a batch: median "
    f"{statistics.median(alone):.4g} s, at most {max(alone):.4g}"
  )
  longer = sum(wait > max(alone) for wait in waited)
  print(f"steps that wait longer than that: {longer} of {len(waited)}")


if __name__ == "__main__":
  app.run(main)
