"""Which classifier a task works with: a saved one, or that of a run."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable
from collections.abc import Sequence

import ml_collections
import numpy as np
from etils import epath

from paws_jax import classifier as classifier_lib
from paws_jax import classifier_files
from paws_jax import sharding
from paws_jax import trained as trained_lib
from paws_jax import workdir as workdir_lib

# In a run's directory.
DIRECTORY = "classifier"
FINETUNED = "finetuned"


@dataclasses.dataclass(frozen=True)
class Source:
  """A classifier that is there, or can be made of a run.

  Attributes:
    make: gives it.
    class_names: of it.
    labels: int32 [N], of its supports.
    has_head: whether a fine-tuned head decides.
  """

  make: Callable[[], classifier_lib.Classifier]
  class_names: Sequence[str]
  labels: np.ndarray
  has_head: bool = False


def find(
  config: ml_collections.ConfigDict | None,
  workdir: str,
  *,
  classifier: str | None,
  head: str,
) -> Source:
  """The classifier that the flags mean; only a run's newest is made anew.

  Args:
    config: the run's recipe; None with `classifier`.
    workdir: the run's directory.
    classifier: --classifier, a directory; None: that of the run.
    head: --head, "soft_nn" or "finetuned".

  Raises:
    ValueError: when there is none, or it is damaged.
    TypeError, FileNotFoundError, checkpoint.CheckpointError: as `trained.load`.
  """
  if classifier:
    if config is None:
      settings = classifier_files.settings_in(classifier) or {}
      sharding.use_cpu_cores(settings.get("batch_size", 1))
    source = _saved(classifier)
    if head == "finetuned" and not source.has_head:
      raise ValueError(
        f"--head=finetuned but --classifier={classifier} has no head: leave "
        "--head out, or name the directory of a fine-tuned classifier."
      )
    return source
  if head == "finetuned":
    directory = workdir_lib.resolve(workdir) / FINETUNED
    if not (directory / classifier_files.SETTINGS).exists():
      raise ValueError(
        f"--head=finetuned but {directory} holds no classifier: fine-tune "
        "first, with --task=finetune, or leave --head out."
      )
    return _saved(directory)
  return of_run(config, workdir)


def _saved(directory: str | os.PathLike[str]) -> Source:
  loaded = classifier_lib.Classifier.load(directory)
  return Source(
    make=lambda: loaded,
    class_names=loaded.class_names,
    labels=loaded.bank.labels,
    has_head=loaded.head is not None,
  )


def of_run(config: ml_collections.ConfigDict, workdir: str) -> Source:
  """WORKDIR/classifier; made anew when the run's checkpoint is a newer one.

  Args:
    config: the run's recipe.
    workdir: the run's directory.

  Raises:
    ValueError, TypeError, FileNotFoundError, checkpoint.CheckpointError: as
      `trained.load`.
  """
  directory = workdir_lib.resolve(workdir) / DIRECTORY
  reason = _why_anew(config, directory)
  if not reason:
    try:
      return _saved(directory)
    except classifier_files.ClassifierError as error:
      reason = f"it cannot be used ({error})"
  trained = trained_lib.load(config, workdir)

  def make() -> classifier_lib.Classifier:
    print(f"making {directory} of step {trained.step}: {reason}")
    made = classifier_lib.from_trained(trained)
    made.save(directory)
    return made

  dataset = trained.experiment.dataset
  return Source(
    make=make, class_names=dataset.class_names, labels=dataset.labelled.labels
  )


def _why_anew(config: ml_collections.ConfigDict, directory: epath.Path) -> str:
  """Why a run's classifier has to be made; "": it need not be."""
  try:
    settings = classifier_files.settings_in(directory)
  except classifier_files.ClassifierError as error:
    return f"it cannot be used ({error})"
  if settings is None:
    return "it is not there yet"
  model = {**settings["model"], "init_from": config.model.init_from}
  if model != dict(config.model):
    return "section model of the recipe is another"
  checkpoints = directory.parent / workdir_lib.CHECKPOINTS
  paths = {}
  if checkpoints.exists():
    paths = {int(p.name): p for p in checkpoints.iterdir() if p.name.isdigit()}
  if not paths:
    return ""
  newest = max(paths)
  step = settings["origin"].get("step")
  if step != newest:
    return f"the one there is of step {step}"
  if _changed(paths[newest]) > _changed(directory / classifier_files.SETTINGS):
    return "the checkpoint is newer"
  return ""


def _changed(path: epath.Path) -> float:
  """When, in seconds; the same for disks and buckets."""
  return epath.Path(path).stat().mtime
