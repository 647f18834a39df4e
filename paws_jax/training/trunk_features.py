"""Training on the features of a frozen trunk (`model.trunk = "frozen"`).

The features of some augmented views of each image are computed once and kept in
the run's directory; the heads then learn from them by any method, in a fraction
of the time. The state has the trunk's weights too, so that whatever reads a run
sees an encoder of images.
"""

from __future__ import annotations

import dataclasses
import pathlib
import re
import shutil
import time
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np
from etils import epath

from paws_jax import config as config_lib
from paws_jax import errors
from paws_jax import models
from paws_jax.data import feature_pipeline
from paws_jax.runs import out_of_memory
from paws_jax.runs import progress
from paws_jax.runs import workdir as workdir_lib
from paws_jax.training import experiment as experiment_lib
from paws_jax.training import feature_file
from paws_jax.training import trunk_encoder

DIRECTORY = "features"


def check(recipe: config_lib.Recipe, workdir: epath.Path) -> None:
  """Refuses what cannot keep the features of a frozen trunk.

  Raises:
    errors.InputError: of several processes, or of a directory in a bucket.
  """
  if recipe.model.trunk != "frozen":
    return
  if jax.process_count() > 1:
    raise errors.InputError(
      "model.trunk is 'frozen', for which one process computes the features: "
      f"there are {jax.process_count()}; start one."
    )
  if "://" in str(workdir):
    raise errors.InputError(
      f"--workdir={workdir} is in a bucket, but the features of a frozen trunk "
      "(model.trunk) are kept on a disk: give a local directory."
    )


def create(
  recipe: config_lib.Recipe,
  full: experiment_lib.Experiment,
  workdir: epath.Path,
) -> experiment_lib.Experiment:
  """Builds an experiment on features, which it computes where they are missing.

  Args:
    recipe: of the run; without a frozen trunk the images are kept.
    full: its experiment on images.
    workdir: of the run, where the features are kept.

  Raises:
    MemoryError: the devices' memory does not suffice.
    errors.BadImageError: an image cannot be read.
    errors.NonFiniteError: features are not finite.
    errors.WorkdirError: another process uses the directory.
    UserError: as for `init_from.init_from`.
  """
  if recipe.model.trunk != "frozen":
    return full
  with workdir_lib.run_lock(workdir), out_of_memory.training(recipe):
    source = trunk_encoder.TrunkEncoder(recipe, full, workdir)
    arrays = _features(source, pathlib.Path(workdir) / DIRECTORY)
    return _build(recipe, full, arrays, source.embedders())


def stand_in(
  recipe: config_lib.Recipe, full: experiment_lib.Experiment
) -> experiment_lib.Experiment:
  """Builds an experiment on features that are all 0, to time its steps."""
  width = models.create(recipe.model).trunk.num_features
  arrays = {
    name: np.zeros((len(rows), spec.count, width), np.float16)
    for name, (spec, rows) in _parts(recipe, full).items()
  }
  source = trunk_encoder.TrunkEncoder(recipe, full, None)
  return _build(recipe, full, arrays, source.embedders())


def disk_bytes(
  recipe: config_lib.Recipe, full: experiment_lib.Experiment
) -> int:
  """Returns the most that the features of a run take on disk."""
  width = models.create(recipe.model).trunk.num_features
  return sum(
    feature_file.num_bytes(len(rows), spec.count, width)
    for spec, rows in _parts(recipe, full).values()
  )


def seconds(
  recipe: config_lib.Recipe, full: experiment_lib.Experiment
) -> float:
  """Estimates how long computing all features takes, from a batch of each."""
  source = trunk_encoder.TrunkEncoder(recipe, full, None)
  total = 0.0
  for name, (spec, rows) in _parts(recipe, full).items():
    if len(rows):
      size = source.batch_size(spec)
      batches = source.encode(name, spec, np.resize(rows, 2 * size))
      next(batches)  # Compiles.
      start = time.perf_counter()
      next(batches)
      total += (time.perf_counter() - start) / size * len(rows)
      batches.close()
  return total


def _parts(
  recipe: config_lib.Recipe, full: experiment_lib.Experiment
) -> dict[str, tuple[config_lib.ViewSpec, np.ndarray]]:
  """Returns the views to compute, and of which training images, by name."""
  section, rows = recipe.views, np.arange(len(full.dataset.train_images))
  specs = {
    name: dataclasses.replace(spec, count=section.cached)
    for name, spec in full.trainer.views.crops.items()
  }
  parts = {name: (spec, rows) for name, spec in specs.items()}
  if full.trainer.method.needs_support:
    spec = dataclasses.replace(section.support, count=section.cached_support)
    parts["support"] = spec, full.dataset.split.labelled_ids
  return parts


def _build(
  recipe: config_lib.Recipe,
  full: experiment_lib.Experiment,
  arrays: dict[str, np.ndarray],
  embedders: Mapping[str, Any],
) -> experiment_lib.Experiment:
  """Builds an experiment on features [n, V, d] of the views of `_parts`."""
  dataset, mesh = full.dataset, full.trainer.mesh
  method, _, support = experiment_lib.create_method(
    recipe,
    dataset_name=dataset.name,
    num_classes=dataset.num_classes,
    num_devices=mesh.size,
  )
  stored = feature_pipeline.Stored(
    views={name: a for name, a in arrays.items() if name != "support"},
    support=arrays.get("support"),
    place=feature_pipeline.places(
      dataset.split.labelled_ids, num_images=len(dataset.train_images)
    ),
  )
  pipeline = dataset.make_pipeline(
    support=support if method.needs_support else None,
    batch_size=recipe.train.batch_size,
    seed=recipe.seed,
    mesh=mesh,
    with_unlabelled=bool(stored.views),
    features=stored,
  )
  return experiment_lib.create(
    recipe,
    devices=list(mesh.devices.flat),
    like=dataclasses.replace(
      full,
      pipeline=pipeline,
      **embedders,
      features_of=dataset.crop_shape,
    ),
  )


def _features(
  source: trunk_encoder.TrunkEncoder, directory: pathlib.Path
) -> dict[str, np.ndarray]:
  """Reads the features that are there, and computes the others.

  Before, those of other settings, of an attempt without a checkpoint, are
  removed: their space may be needed.
  """
  full = source.full
  parts = _parts(source.recipe, full)
  digests = full.dataset.digests(np.arange(len(full.dataset.train_images)))
  keys = {name: source.key(name, spec) for name, (spec, _) in parts.items()}
  for path in directory.iterdir() if directory.exists() else ():
    is_key = re.fullmatch("[0-9a-f]{16}", path.name)
    if is_key and path.name not in keys.values():
      shutil.rmtree(path)
  arrays: dict[str, np.ndarray] = {}
  for name, (spec, rows) in parts.items():
    file = feature_file.FeatureFile(
      directory / keys[name],
      name,
      [digests[row] for row in rows],
      num_views=spec.count,
      num_features=source.encoder.trunk.num_features,
    )
    if len(file.missing):
      _fill(source, file, name, spec, rows)
    arrays[name] = file.features
  return arrays


def _fill(
  source: trunk_encoder.TrunkEncoder,
  file: feature_file.FeatureFile,
  name: str,
  spec: config_lib.ViewSpec,
  rows: np.ndarray,
) -> None:
  """Computes the features that a file lacks."""
  missing = rows[file.missing]
  places = dict(zip(missing.tolist(), file.missing.tolist(), strict=True))
  print(f"computing the features of {len(missing):,} images ({name})")
  done: set[int] = set()
  with progress.Images("encoded") as line:
    for ids, features in source.encode(name, spec, missing):
      if not np.isfinite(features).all():
        raise errors.NonFiniteError(
          f"features of model.init_from={source.recipe.model.init_from} are "
          "not finite in 16 bits: use other weights, or check views.mean and "
          "views.std."
        )
      file.write(np.asarray([places[number] for number in ids]), features)
      done.update(ids)
      line.show(len(done), len(missing))
