"""What predicting costs beside the encoder alone.

  python -m benchmarks.predict
  python -m benchmarks.predict --model=small_resnet --side=32 --images=4096

Prints images per second of

  encoder: the bare compiled encoder, on crops that lie ready in memory
  arrays: `Classifier.predict` on the same images as one uint8 array
  files: the same as JPEG files of 500 x 375 pixels: reading, decoding,
      resizing, cutting, embedding, the vote

The weights are random, which costs the same as trained ones. All take turns,
window by window, since machines are not equally fast all the time. The last
line is the ratio of the medians, the one that people who have files get:

  ratio: files / encoder

Above it stands the ratio of CPU time, that of all threads of the process: on a
CPU that does other things, too, it says more than the clock.
"""

from __future__ import annotations

import functools
import pathlib
import statistics
import sys
import tempfile
import time
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from absl import app
from absl import flags
from PIL import Image

from paws_jax import config as config_lib
from paws_jax import models
from paws_jax.classifier import classifier as classifier_lib
from paws_jax.classifier import preprocessing
from paws_jax.classifier import support_bank as support_bank_lib
from paws_jax.parallel import cpu_devices
from paws_jax.parallel import mesh as mesh_lib

_MODEL = flags.DEFINE_enum(
  "model", "resnet50", sorted(models.ENCODERS), "Encoder."
)
_SIDE = flags.DEFINE_integer("side", 224, "Side of a crop.", lower_bound=8)
_IMAGES = flags.DEFINE_integer(
  "images", 64, "Images in a window.", lower_bound=2
)
_BATCH = flags.DEFINE_integer("batch", 32, "Images at once.", lower_bound=1)
_WINDOWS = flags.DEFINE_integer(
  "windows", 5, "Times that everything is measured.", lower_bound=1
)
_SUPPORTS = flags.DEFINE_integer(
  "supports", 4000, "Images in the bank.", lower_bound=2
)
_CLASSES = 100
_MEAN, _STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def main(argv: list[str]) -> int:
  """Measures; returns the exit status."""
  if len(argv) > 1:
    raise app.UsageError(f"unknown arguments: {' '.join(argv[1:])}")
  cpu_devices.use_cpu_cores(_BATCH.value)
  classifier = _classifier()
  device = jax.devices()[0]
  print(
    f"device: {device.device_kind} ({device.platform}), "
    f"{cpu_devices.num_cores()} CPU cores; {_MODEL.value}, "
    f"{_SIDE.value} pixels, "
    f"{_IMAGES.value} images, batch {_BATCH.value}, {_SUPPORTS.value} supports"
  )
  with tempfile.TemporaryDirectory() as directory:
    paths = _write_files(pathlib.Path(directory))
    pixels = np.stack([classifier.preprocessing.pixels(p, p) for p in paths])
    sides = {
      "encoder": _bare(classifier, pixels),
      "arrays": lambda: classifier.predict(pixels),
      "files": lambda: classifier.predict(paths),
    }
    seconds, cpu_seconds = _measure(sides)
  for name, windows in seconds.items():
    rates = [_IMAGES.value / s for s in windows]
    print(
      f"{name}: {statistics.median(rates):.4g} images/s, windows "
      f"{min(rates):.4g} to {max(rates):.4g}"
    )
  for name in ("arrays", "files"):
    print(f"ratio of CPU time, {name}: {_ratio(cpu_seconds, name):.2f}")
  print(f"ratio of arrays: {_ratio(seconds, 'arrays'):.2f}")
  print(f"ratio: {_ratio(seconds, 'files'):.2f}")
  return 0


def _ratio(seconds: dict[str, list[float]], name: str) -> float:
  return statistics.median(seconds["encoder"]) / statistics.median(
    seconds[name]
  )


def _classifier() -> classifier_lib.Classifier:
  """One of random weights."""
  section = dict(config_lib.base().model)
  section.update(name=_MODEL.value, output_dim=256, prediction_head=False)
  side = _SIDE.value
  init = jax.jit(functools.partial(models.create(section).init, train=False))
  variables = init(jax.random.key(0), jnp.zeros((1, side, side, 3)))
  rng = np.random.default_rng(0)
  count = _SUPPORTS.value
  return classifier_lib.Classifier(
    class_names=tuple(map(str, range(_CLASSES))),
    temperature=0.1,
    support_bank=support_bank_lib.SupportBank(
      embeddings=rng.normal(size=(count, 256)).astype(np.float32),
      labels=(np.arange(count) % _CLASSES).astype(np.int32),
      names=tuple(map(str, range(count))),
      thumbnails=np.zeros((count, 1, 1, 3), np.uint8),
    ),
    model=section,
    variables=jax.device_get(variables),
    preprocessing=preprocessing.Preprocessing(
      on_disk=True,
      shape=(side, side, 3),
      image_size=0,
      # 256 of 224.
      eval_resize=side * 8 // 7,
      large_size=side,
      mean=_MEAN,
      std=_STD,
      max_pixels=10**8,
    ),
    batch_size=_BATCH.value,
  )


def _write_files(directory: pathlib.Path) -> list[str]:
  """Photographs of 500 x 375 pixels with noise on top, as JPEGs."""
  from sklearn import datasets

  rng = np.random.default_rng(0)
  photographs = datasets.load_sample_images().images
  paths = []
  for i in range(_IMAGES.value):
    top, left = rng.integers(0, 427 - 375), rng.integers(0, 640 - 500)
    cut = photographs[i % 2][top : top + 375, left : left + 500]
    noisy = np.clip(cut + rng.normal(0, 8, cut.shape), 0, 255).astype(np.uint8)
    paths.append(str(directory / f"{i}.jpg"))
    Image.fromarray(noisy).save(paths[-1], quality=90)
  return paths


def _bare(
  classifier: classifier_lib.Classifier, pixels: np.ndarray
) -> Callable[[], None]:
  """The compiled encoder on normalised crops."""
  mesh = mesh_lib.make_mesh()
  encoder = models.create(classifier.model)
  variables = mesh_lib.replicate(dict(classifier.variables), mesh)
  spread = mesh_lib.batch_sharded(mesh)

  @jax.jit(in_shardings=(mesh_lib.replicated(mesh), spread))
  def embed(variables, crops):
    return encoder.apply(variables, crops, train=False)[1]

  crops = (pixels / np.float32(255) - np.float32(_MEAN)) / np.float32(_STD)
  size = mesh_lib.padded_size(_BATCH.value, mesh)
  batches = [crops[i : i + size] for i in range(0, len(crops), size)]
  missing = size - len(batches[-1])
  batches[-1] = np.pad(batches[-1], [(0, missing)] + [(0, 0)] * 3)

  def run() -> None:
    rows = [embed(variables, jax.device_put(b, spread)) for b in batches]
    jax.block_until_ready(rows)

  return run


def _measure(
  sides: dict[str, Callable[[], object]],
) -> tuple[dict[str, list[float]], dict[str, list[float]]]:
  """Seconds of every window, by the clock and of CPU time."""
  clock = {name: [] for name in sides}
  cpu = {name: [] for name in sides}
  for run in sides.values():
    # Compiles.
    run()
  for _ in range(_WINDOWS.value):
    for name, run in sides.items():
      start, cpu_start = time.perf_counter(), time.process_time()
      run()
      clock[name].append(time.perf_counter() - start)
      cpu[name].append(time.process_time() - cpu_start)
  return clock, cpu


if __name__ == "__main__":
  sys.exit(app.run(main))
