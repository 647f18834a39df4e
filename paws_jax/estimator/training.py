"""The training run of a fit: its recipe, its directory, its devices."""

from __future__ import annotations

import contextlib
import csv
import dataclasses
import io
import os
import pathlib
import shutil
import signal
import tempfile
from collections.abc import Iterator
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np

from paws_jax import config as config_lib
from paws_jax import errors
from paws_jax import text
from paws_jax.classifier import classifier as classifier_lib
from paws_jax.config import overrides
from paws_jax.config import recipe_files
from paws_jax.data import load_dataset
from paws_jax.data.sources import arrays as arrays_lib
from paws_jax.data.sources import paths
from paws_jax.estimator import images as images_lib
from paws_jax.estimator import labels as labels_lib
from paws_jax.parallel import cpu_devices
from paws_jax.runs import compilation_cache
from paws_jax.runs import files
from paws_jax.runs import newest_checkpoint
from paws_jax.runs import workdir as workdir_lib
from paws_jax.tasks import pretrain

# In the directory of a run on files: their paths and labels.
TABLE = "images_of_fit.csv"
# Fields about which images there are and which are labelled: X and y say so.
_PLACES = ("dir", "manifest", "unlabelled_dir", "test_dir")
_NOTHING = {
  **{f"data.{name}": "" for name in (*_PLACES, "tfds_name", "labels_file")},
  "data.labels_per_class": 0,
  "data.labels_fraction": 0.0,
}


@dataclasses.dataclass(frozen=True)
class Data:
  """X and y of a fit; `labels` is None where the images' place has them."""

  images: images_lib.Place | images_lib.Files | images_lib.Pixels
  labels: labels_lib.Labels | None


def recipe(
  name: str | os.PathLike[str],
  fields: Mapping[str, Any],
  seed: int | None,
  data: Data,
) -> config_lib.Recipe:
  """Makes the recipe of a fit.

  Args:
    name: of the recipe, or its file.
    fields: result of `overrides.flatten`.
    seed: of the run; None: that of the recipe.
    data: what to train on.

  Raises:
    UserError: there is no such recipe, or a field is wrong.
  """
  config = recipe_files.load(os.fspath(name), flag="recipe=")
  place = _place(data.images)
  for field, value in place.items():
    if value and fields.get(field, value) != value:
      raise errors.InputError(
        f"{field} is {fields[field]!r} but X is {value}: leave out the field, "
        "since X says where the images are."
      )
  overrides.apply(config, _NOTHING | dict(fields) | place)
  section = config.data
  if isinstance(data.images, images_lib.Pixels):
    section.source, section.pipeline = "arrays", "memory"
    # It has been used for the labels.
    section.real_labels = ""
    if "data.white_level" not in fields:
      section.white_level = 0
  else:
    section.source, section.pipeline = "folder", "host"
    if "data.image_size" not in fields:
      section.image_size = 0
  if seed is not None:
    config.seed = seed
  made = config_lib.resolve(config)
  asked = made.support.classes_per_step
  given = "support.classes_per_step" in fields
  if asked and not given and asked > _num_classes(made, data):
    # All of them.
    section = dataclasses.replace(made.support, classes_per_step=0)
    made = dataclasses.replace(made, support=section)
  return made


def _num_classes(recipe: config_lib.Recipe, data: Data) -> int:
  if data.labels is not None:
    return len(data.labels.classes)
  listing = load_dataset.open_catalog(paths.absolute(recipe).data)
  return len(listing.class_names)


def _place(images: Any) -> dict[str, str]:
  if not isinstance(images, images_lib.Place):
    return {}
  name = "dir" if os.path.isdir(images.path) else "manifest"
  return {f"data.{name}": images.path}


@contextlib.contextmanager
def directory(workdir: str | os.PathLike[str] | None) -> Iterator[str]:
  """The directory of a run; one for this fit alone is removed at the end.

  It is kept where training has been stopped or has failed, with a note.

  Args:
    workdir: of the user; None: a temporary one.
  """
  if workdir is not None:
    yield os.fspath(files.resolve(workdir))
    return
  path = tempfile.mkdtemp(prefix="paws_jax-fit-")
  try:
    yield path
  except BaseException as error:
    if not newest_checkpoint.steps(files.resolve(path)) and not isinstance(
      error, errors.NonFiniteError
    ):
      shutil.rmtree(path, ignore_errors=True)
    else:
      error.add_note(f"The run is kept: {_how_to_continue(path)}")
    raise
  shutil.rmtree(path, ignore_errors=True)


def _how_to_continue(path: str) -> str:
  return f"fit with workdir={path!r} continues it."


def run(
  recipe: config_lib.Recipe, data: Data, workdir: str
) -> tuple[classifier_lib.Classifier, dict[str, Any]]:
  """Trains as `--task=pretrain` does, and continues a stopped run.

  Returns:
    The classifier of the run, and its result row.

  Raises:
    UserError: as for `pretrain.prepare` and `pretrain.train`.
    KeyboardInterrupt: training was stopped; its state is saved.
  """
  arrays, labels = None, data.labels
  if labels is not None:
    if isinstance(data.images, images_lib.Pixels):
      arrays = _arrays(recipe, data.images.images, labels)
    elif isinstance(data.images, images_lib.Files):
      recipe = _listed(recipe, data.images, labels, workdir)
  # JAX adds the fields of its configuration at run time.
  config: Any = jax.config
  if config.jax_compilation_cache_dir is None:
    compilation_cache.enable()
  devices = _devices(recipe.train.batch_size // (recipe.train.chunks or 1))
  with cpu_devices.limit_blas_threads():
    prepared = pretrain.prepare(recipe, workdir, arrays=arrays, devices=devices)
    _check_classes(prepared.experiment.dataset)
    outcome = pretrain.train(prepared)
  if outcome.row is None:
    print(f"stopped at step {outcome.step}: {_how_to_continue(workdir)}")
    signal.raise_signal(outcome.stopped_by or signal.SIGINT)
    raise KeyboardInterrupt
  print(f"\n{pretrain.table(outcome.row)}")
  made = os.path.join(workdir, workdir_lib.CLASSIFIER)
  return classifier_lib.Classifier.load(made), outcome.row


def _arrays(
  recipe: config_lib.Recipe, images: np.ndarray, labels: labels_lib.Labels
) -> arrays_lib.Arrays:
  """The images as the memory pipeline takes them."""
  if images.shape[-1] == 1 and len(recipe.views.mean) == 3:
    # Grey becomes color, as it does in `Classifier.predict`.
    images = np.repeat(images, 3, axis=-1)
  return arrays_lib.Arrays(
    name="X",
    class_names=labels.names,
    train_images=images,
    train_labels=labels.codes,
    test_images=images[:0],
    test_labels=np.zeros(0, np.int32),
  )


def root_of(files_of_fit: images_lib.Files) -> str:
  """The directory that names of images are relative to."""
  return os.path.commonpath(map(os.path.dirname, files_of_fit.paths))


def _listed(
  recipe: config_lib.Recipe,
  images: images_lib.Files,
  labels: labels_lib.Labels,
  workdir: str,
) -> config_lib.Recipe:
  """Writes paths and labels as a manifest, and names it in the recipe."""
  place = files.resolve(workdir)
  if not isinstance(place, pathlib.Path):
    raise errors.WorkdirError(
      f"workdir={workdir!r} is in a bucket, and a fit to files writes a table "
      "there that is read from a disk: give a directory on a disk, and copy "
      "it, or give the images as arrays."
    )
  root = root_of(images)
  names = (*labels_lib.table_names(labels.names), "")
  count = len(images.paths)
  stream = io.StringIO(newline="")
  table = csv.writer(stream, quoting=csv.QUOTE_ALL, lineterminator="\n")
  table.writerow(("path", "label", "split"))
  table.writerows(
    (text.escape(os.path.relpath(path, root)), names[code], split)
    for path, code, split in zip(
      images.paths,
      labels.codes.tolist(),
      images.splits or [""] * count,
      strict=True,
    )
  )
  path = os.path.join(workdir, TABLE)
  _write(path, stream.getvalue().encode(), workdir)
  section = dataclasses.replace(recipe.data, manifest=path, dir=root)
  return dataclasses.replace(recipe, data=section)


def _write(path: str, content: bytes, workdir: str) -> None:
  """Writes the table; one of another run is not replaced."""
  if os.path.exists(path):
    if files.read_bytes(path) == content:
      return
    if newest_checkpoint.holds_run(files.resolve(workdir)):
      raise errors.WorkdirError(
        f"workdir={workdir!r} holds a run on other images or labels (those of "
        f"{path}): give each fit a workdir of its own, or None."
      )
    files.set_aside(files.resolve(path))
  os.makedirs(workdir, exist_ok=True)
  with open(path, "wb") as file:
    file.write(content)


def _devices(batch_size: int) -> list[jax.Device] | None:
  """Selects as many devices as divide a batch; None: all."""
  # A program that has used JAX before keeps its devices.
  with contextlib.suppress(RuntimeError):
    cpu_devices.use_cpu_cores(batch_size, limit_blas=False)
  if jax.process_count() > 1:
    return None
  devices = jax.devices()
  counts = range(1, len(devices) + 1)
  return devices[: max(n for n in counts if batch_size % n == 0)]


def _check_classes(dataset: Any) -> None:
  """Refuses a folder or table without two labelled classes."""
  present = np.count_nonzero(dataset.split.class_counts)
  if present < 2:
    raise errors.InputError(
      f"X ({dataset.name}) has labelled images of {present} classes: put "
      "images of two or more classes into folders of their own, or label them "
      "in the table."
    )
