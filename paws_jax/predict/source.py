"""Which classifier a task works with: a saved one, or that of a run."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from collections.abc import Sequence

import numpy as np
from etils import epath

from paws_jax import config as config_lib
from paws_jax import errors
from paws_jax.classifier import classifier as classifier_lib
from paws_jax.classifier import files
from paws_jax.classifier import summary
from paws_jax.parallel import cpu_devices
from paws_jax.runs import newest_checkpoint
from paws_jax.runs import recipe as recipe_lib
from paws_jax.runs import workdir as workdir_lib
from paws_jax.training import restore
from paws_jax.training import save_classifier

# In a classifier's origin: the run's newest checkpoint, where it was damaged.
_NEWEST = "newest_step"


@dataclasses.dataclass(frozen=True)
class Source:
  """A classifier that is there, or can be made of a run.

  Attributes:
    make: gives it.
    class_names: of it.
    labels: int32 [N], of its supports.
    has_head: whether a linear layer decides.
  """

  make: Callable[[], classifier_lib.Classifier]
  class_names: Sequence[str]
  labels: np.ndarray
  has_head: bool = False


def find(
  recipe: config_lib.Recipe | None,
  workdir: str,
  *,
  classifier: str | None,
  head: str,
) -> Source:
  """The classifier that the flags mean; only a run's newest is rebuilt.

  Args:
    recipe: the run's recipe; None with `classifier`.
    workdir: the run's directory.
    classifier: --classifier, a directory; None: that of the run.
    head: --head, "finetuned", or "soft_nn" for what training has made: the
      vote of the labelled images, or a class head.

  Raises:
    UserError: there is none, it is damaged, or the run has another recipe.
  """
  if classifier:
    if recipe is None:
      settings = files.settings_in(classifier) or {}
      cpu_devices.use_cpu_cores(settings.get("batch_size", 1))
    loaded = classifier_lib.Classifier.load(classifier)
    if head == "finetuned" and not _is_finetuned(loaded):
      raise errors.InputError(
        f"--head=finetuned but --classifier={classifier} is not fine-tuned: "
        "leave --head out, or name the directory of a fine-tuned classifier."
      )
    return _source(loaded)
  assert recipe is not None
  if head == "finetuned":
    return _finetuned(recipe, workdir)
  return from_run(recipe, workdir)


def _is_finetuned(loaded: classifier_lib.Classifier) -> bool:
  """Returns whether fine-tuning has made it, not training alone."""
  if loaded.origin.get("finetuned"):
    # One of protocol "suncet" has no head: its labelled images vote.
    return True
  return loaded.head is not None and not summary.is_class_head(loaded)


def _finetuned(recipe: config_lib.Recipe, workdir: str) -> Source:
  """WORKDIR/finetuned; says so when the run has gone on since."""
  path = recipe_lib.check_recipe(workdir, recipe)
  directory = path / workdir_lib.FINETUNED
  if files.settings_in(directory) is None:
    raise errors.InputError(
      f"--head=finetuned but {directory} holds no classifier: fine-tune "
      "first, with --task=finetune, or leave --head out."
    )
  loaded = _load(directory, recipe)
  step, newest = (
    loaded.origin.get("step"),
    max(newest_checkpoint.steps(path), default=0),
  )
  if newest and step != newest:
    print(
      f"{directory} was fine-tuned from step {step}, and the run has a "
      f"checkpoint of step {newest}: --task=finetune makes it anew"
    )
  return _source(loaded)


def _load(
  directory: epath.Path, recipe: config_lib.Recipe
) -> classifier_lib.Classifier:
  """A run's classifier, which takes as many images at once as asked for now."""
  loaded = classifier_lib.Classifier.load(directory)
  return dataclasses.replace(loaded, batch_size=recipe.eval.batch_size)


def _source(loaded: classifier_lib.Classifier) -> Source:
  return Source(
    make=lambda: loaded,
    class_names=loaded.class_names,
    labels=loaded.support_bank.labels,
    has_head=loaded.head is not None,
  )


def from_run(recipe: config_lib.Recipe, workdir: str) -> Source:
  """WORKDIR/classifier; rebuilt when the run's checkpoint is a newer one.

  Args:
    recipe: the run's recipe.
    workdir: the run's directory.

  Raises:
    UserError: as for `restore.load`; also when it must be created and its
      directory holds other files.
  """
  path = recipe_lib.check_recipe(workdir, recipe)
  directory = path / workdir_lib.CLASSIFIER
  reason = _why_anew(recipe, directory)
  if not reason:
    try:
      return _source(_load(directory, recipe))
    except errors.ClassifierError as error:
      reason = f"it cannot be used ({error})"
  files.check_free(directory)
  newest = max(newest_checkpoint.steps(path), default=0)
  trained = restore.load(recipe, workdir)

  def make() -> classifier_lib.Classifier:
    print(f"making {directory} of step {trained.step}: {reason}")
    made = save_classifier.from_trained(trained)
    if newest > trained.step:
      # It is damaged: rebuilding it each time would not help.
      origin = {**made.origin, _NEWEST: newest}
      made = dataclasses.replace(made, origin=origin)
    try:
      save_classifier.save(made, directory)
    except OSError as error:
      # The run may be somebody else's.
      print(f"it is not kept: {directory} cannot be written ({error})")
    return made

  dataset = trained.experiment.dataset
  return Source(
    make=make,
    class_names=dataset.class_names,
    labels=dataset.labelled.labels,
    has_head=trained.head is not None,
  )


def _why_anew(recipe: config_lib.Recipe, directory: epath.Path) -> str:
  """Why a run's classifier has to be made; "": it need not be."""
  try:
    settings = files.settings_in(directory)
  except errors.ClassifierError as error:
    return f"it cannot be used ({error})"
  if settings is None:
    return "it is not there yet"
  model = {**settings["model"], "init_from": recipe.model.init_from}
  if model != dataclasses.asdict(recipe.model):
    return "section model of the recipe is another"
  known = newest_checkpoint.steps(directory.parent)
  if not known:
    return ""
  newest = known[-1]
  step = settings["origin"].get("step")
  if newest not in (step, settings["origin"].get(_NEWEST)):
    return f"the one there is of step {step}"
  temperature = recipe.method.in_domain_temperature
  if settings["in_domain_temperature"] != temperature:
    there = settings["in_domain_temperature"]
    return f"its in_domain_temperature is {there}, and the run's {temperature}"
  checkpoint = directory.parent / workdir_lib.CHECKPOINTS / str(newest)
  if _changed(checkpoint) > _changed(directory / files.SETTINGS):
    return "the checkpoint is newer"
  return ""


def _changed(path: epath.Path) -> float:
  """When, in seconds; the same for disks and buckets."""
  return epath.Path(path).stat().mtime
