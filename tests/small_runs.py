"""Small runs of one or several processes, on images in memory or on disk.

Most of their time is the compiler's: it leaves most optimizations out, which
takes half the time, and the images are few, since steps take longer so.
"""

import pathlib

import numpy as np
from PIL import Image

from paws_jax.data.sources import arrays
from tests import processes
from tests import quick_compile
from tests import tiny_recipe
from tests.data.sources import idx_test

# Gentle, so that rounding stays rounding: at ten times this rate a loss of step
# 20 differs by 0.03 between one device and four.
SMALL = {
  "model.name": "small_resnet",
  "model.output_dim": 8,
  "optim.name": "sgd",
  "optim.start_lr": 1e-4,
  "optim.peak_lr": 1e-4,
  "optim.final_lr": 1e-4,
}


def write_photos(root):
  """Writes a folder of two classes, and unlabelled images beside it."""
  rng = np.random.default_rng(0)
  places = ["labelled/a", "labelled/b"] * 3 + ["unlabelled"] * 42
  for i, place in enumerate(places):
    path = root / place / f"{i}.png"
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = rng.integers(0, 256, (20 + i % 3, 24, 3), np.uint8)
    Image.fromarray(pixels).save(path)
  return root


def write_digits(root):
  """Writes 320 of the digits to train on and 120 to test on, as arrays."""
  root.mkdir(parents=True)
  digits = arrays.load("digits", directory="", tfds_name="")
  parts = {
    "train": (digits.train_images[:320], digits.train_labels[:320]),
    "t10k": (digits.test_images[:120], digits.test_labels[:120]),
  }
  for part, (images, labels) in parts.items():
    for kind, values in (
      ("images-idx3", images[..., 0]),
      ("labels-idx1", labels),
    ):
      path = root / f"{part}-{kind}-ubyte"
      path.write_bytes(idx_test.idx_bytes(values))
  return root


def in_memory(root):
  """What makes the small recipe one of few images: 5 steps an epoch, too."""
  return {"data.source": "idx", "data.dir": str(root), "train.batch_size": 64}


def on_disk(root):
  """What makes the small recipe one of images on disk."""
  return {
    "data.source": "folder",
    "data.pipeline": "host",
    "data.dir": str(root / "labelled"),
    "data.unlabelled_dir": "../unlabelled",
    "data.labels_per_class": 0,
    "data.canvas_size": 24,
    "support.classes_per_step": 2,
    "support.images_per_class": 3,
    "views.mean": [0.5] * 3,
    "views.std": [0.25] * 3,
    "train.batch_size": 16,
  }


def as_flags(changes):
  """Changes as keywords of `arguments` and `run`."""
  return {k.replace(".", "__"): _flag(v) for k, v in changes.items()}


def _flag(value):
  return str(tuple(value)) if isinstance(value, list) else value


def arguments(workdir, **changes):
  changes = SMALL | {k.replace("__", "."): v for k, v in changes.items()}
  return [
    f"--config={pathlib.Path(tiny_recipe.__file__)}",
    f"--workdir={workdir}",
    *(f"--config.{name}={value}" for name, value in changes.items()),
  ]


def run(workdir, *, num_processes, devices, seconds=400, **changes):
  with start(
    workdir, num_processes=num_processes, devices=devices, **changes
  ) as group:
    return group.wait(seconds=seconds)


def start(workdir, *, num_processes, devices, **changes):
  """Starts a run; a `processes.Group`."""
  return processes.start_main(
    arguments(workdir, **changes),
    num_processes=num_processes,
    devices=devices,
    environ=quick_compile.ENVIRON,
  )
