"""Builds and saves the classifier of a training run."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np
from etils import epath

from paws_jax import config as config_lib
from paws_jax.classifier import classifier as classifier_lib
from paws_jax.classifier import files
from paws_jax.classifier import on_device
from paws_jax.classifier import predictions as predictions_lib
from paws_jax.classifier import preprocessing as preprocessing_lib
from paws_jax.classifier import support_bank as support_bank_lib
from paws_jax.runs import files as files_lib
from paws_jax.runs import workdir as workdir_lib
from paws_jax.training import experiment as experiment_lib
from paws_jax.training import restore
from paws_jax.training import state as state_lib


def save(made: classifier_lib.Classifier, directory: epath.Path) -> None:
  """Saves a classifier over the one that a task has saved before.

  One that somebody has changed, or put there, is renamed, which is printed.

  Raises:
    ValueError: when something else is in the directory.
    OSError: when it cannot be written.
  """
  settings = directory / files.SETTINGS
  if settings.exists():
    files.check_free(directory)
    known = files_lib.is_recorded(settings)
    if not known:
      kept = files_lib.set_aside(directory)
      what = "was changed"
      if known is None:
        what = "is not recorded as written by a task"
      print(f"{settings} {what}: it is kept in {kept}")
  files.write(directory, files.pack(vars(made)))
  files_lib.record(settings)


def save_state(
  recipe: config_lib.Recipe,
  workdir: epath.Path,
  experiment: experiment_lib.Experiment,
  state: state_lib.TrainState,
  *,
  step: int,
) -> None:
  """Saves the classifier of a state into the run's directory."""
  method = experiment.trainer.method
  variables = method.encoder_variables(state)
  made = from_trained(
    restore.TrainedRun(
      recipe=recipe,
      workdir=workdir,
      experiment=experiment,
      params=variables["params"],
      batch_stats=variables["batch_stats"],
      step=step,
      head=method.head(state),
    )
  )
  save(made, workdir / workdir_lib.CLASSIFIER)


def from_trained(
  trained: restore.TrainedRun,
  *,
  params: Any = None,
  batch_stats: Any = None,
  head: predictions_lib.Head | Mapping[str, Any] | None = None,
) -> classifier_lib.Classifier:
  """Builds the classifier of a run; of several processes all call it.

  Args:
    trained: the run.
    params: parameters of the encoder; None: the run's.
    batch_stats: batch statistics of the encoder; None: the run's.
    head: kernel and bias of a fine-tuned run; None: the run's.

  Raises:
    errors.BadImageError: when an image cannot be read and data.on_bad_image is
      "error", or fewer than two classes have readable labelled images.
    errors.NonFiniteError: when embeddings of labelled images are not finite.
  """
  recipe, dataset = trained.recipe, trained.experiment.dataset
  params = trained.params if params is None else params
  stats = trained.batch_stats if batch_stats is None else batch_stats
  head = trained.head if head is None else head
  encoder = {
    # The weights that training started from may have been deleted.
    "model": dataclasses.asdict(recipe.model) | {"init_from": ""},
    "variables": jax.device_get({"params": params, "batch_stats": stats}),
    "preprocessing": preprocessing_lib.from_run(recipe, dataset),
  }
  embedder = on_device.OnDevice(**encoder, has_head=head is not None)
  support_bank = support_bank_lib.embed_labelled(
    dataset.labelled,
    embedder.embed_pixels,
    batch_size=recipe.eval.batch_size,
    name=dataset.name,
  )
  return classifier_lib.Classifier(
    **encoder,
    class_names=tuple(dataset.class_names),
    temperature=float(trained.experiment.temperature),
    support_bank=support_bank,
    head=_head(head),
    # Training did not compare the features under a head.
    in_domain_temperature=recipe.method.in_domain_temperature
    if head is None
    else None,
    batch_size=recipe.eval.batch_size,
    origin={
      "dataset": dataset.name,
      "step": int(trained.step),
      "split_hash": dataset.split.hash,
    },
  )


def _head(
  head: predictions_lib.Head | Mapping[str, Any] | None,
) -> predictions_lib.Head | None:
  if head is None or isinstance(head, predictions_lib.Head):
    return head
  return predictions_lib.Head(
    kernel=np.asarray(head["kernel"], np.float32),
    bias=np.asarray(head["bias"], np.float32),
  )
