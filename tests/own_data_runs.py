"""Runs on images of one's own, in files, whose weights are random.

Paths are relative to the directory that holds data and runs, as on a command
line there. Nothing is compiled to make a run.
"""

import dataclasses
import pathlib

import jax
import numpy as np
from PIL import Image

from paws_jax.runs import checkpoint
from paws_jax.runs import workdir as workdir_lib
from paws_jax.tasks import pretrain
from paws_jax.training import checkpoints
from paws_jax.training import measure
from tests import small_runs
from tests import tiny_recipe
from tests.data.sources import idx_test

# How the images are given: in folders, by a table, by a list of labelled ones,
# and as a file of arrays, which is read into memory.
LAYOUTS = ("folders", "table", "list", "memory")


def write(root):
  """Writes the images of all layouts: photos, photos/*.csv, idx."""
  photos = small_runs.write_photos(root / "photos")
  for k, path in enumerate(sorted(photos.glob("labelled/*/*.png"))):
    to = photos / "test" / path.parent.name / f"t{k}.png"
    to.parent.mkdir(parents=True, exist_ok=True)
    to.write_bytes(path.read_bytes())
  names = sorted(
    str(path.relative_to(photos)) for path in photos.rglob("*.png")
  )
  lines = ["path,label,split"]
  for name in names:
    part, label = name.split("/")[0], name.split("/")[1]
    label = "" if part == "unlabelled" else label
    lines.append(f"{name},{label},{'test' if part == 'test' else ''}")
  (photos / "labels.csv").write_text("\n".join(lines) + "\n")
  (photos / "labelled.txt").write_text(
    "\n".join(name for name in names if name.startswith("labelled/")) + "\n"
  )
  rng = np.random.default_rng(2)
  (root / "idx").mkdir()
  for part, count in (("train", 40), ("t10k", 8)):
    images = rng.integers(0, 256, (count, 8, 8))
    labels = np.arange(count) % 2
    for kind, values in (("images-idx3", images), ("labels-idx1", labels)):
      path = root / "idx" / f"{part}-{kind}-ubyte"
      path.write_bytes(idx_test.idx_bytes(values))
  return root


def config(layout, **changes):
  """The recipe, with relative paths; section__field=value changes a field."""
  made = tiny_recipe.get_config()
  fields = {
    "data.source": "idx",
    "data.dir": "idx",
    "support.classes_per_step": 2,
    "train.batch_size": 16,
    "train.epochs": 1,
    "eval.every_steps": 1,
    "eval.batch_size": 16,
  }
  if layout != "memory":
    fields |= {
      "data.source": "folder",
      "data.pipeline": "host",
      "data.labels_per_class": 0,
      "data.canvas_size": 24,
      "views.mean": [0.5] * 3,
      "views.std": [0.25] * 3,
    }
  fields |= {
    "folders": {
      "data.dir": "photos/labelled",
      "data.unlabelled_dir": "photos/unlabelled",
      "data.test_dir": "photos/test",
    },
    "table": {"data.dir": "photos", "data.manifest": "photos/labels.csv"},
    "list": {
      "data.dir": "photos",
      "data.manifest": "photos/labels.csv",
      "data.labels_file": "photos/labelled.txt",
    },
    "memory": {},
  }[layout]
  fields |= {name.replace("__", "."): value for name, value in changes.items()}
  made.update_from_flattened_dict(fields)
  return made


def make(made, workdir):
  """Makes a run that has taken all its steps, by a recipe; returns its path."""
  prepared = pretrain.prepare(made, str(workdir))
  experiment = prepared.experiment
  rng = np.random.default_rng(0)

  def draw(leaf):
    if not np.issubdtype(leaf.dtype, np.floating):
      return jax.numpy.zeros(leaf.shape, leaf.dtype)
    # Variances must be positive, and embeddings differ.
    drawn = rng.normal(size=leaf.shape) / np.sqrt(np.prod(leaf.shape[:-1]))
    drawn = drawn if leaf.ndim > 1 else np.abs(drawn) + 0.5
    return jax.numpy.asarray(drawn.astype(np.float32))

  shapes = experiment.state_shapes()
  state = jax.tree.map(draw, shapes).replace(
    step=jax.numpy.int32(experiment.total_steps),
    finite=jax.numpy.ones((), bool),
  )
  meta = {
    "spent": dataclasses.asdict(measure.Spent(1.0, 1.0, 1.0)),
    "pending_metrics": [],
  }
  directory = prepared.workdir / workdir_lib.CHECKPOINTS
  with checkpoint.Checkpointer(directory) as checkpointer:
    checkpoints.save(
      checkpointer, experiment.trainer, experiment.total_steps, state, meta
    )
  return prepared.workdir


def save_image(path, pixels):
  """Saves uint8 [h, w] or [h, w, 3], and makes the directory."""
  path = pathlib.Path(path)
  path.parent.mkdir(parents=True, exist_ok=True)
  Image.fromarray(pixels).save(path)


def copy(source, to):
  """Copies a file, and makes the directory."""
  to = pathlib.Path(to)
  to.parent.mkdir(parents=True, exist_ok=True)
  to.write_bytes(pathlib.Path(source).read_bytes())
