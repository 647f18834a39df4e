"""`--task=doctor`: a check of a recipe and its data before training.

It reads each file that it does not know from an earlier call, builds everything
that training would build, and reports its findings. A finding does not end it:
every other check still runs.
"""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Iterator

import jax
import ml_collections
import numpy as np

from paws_jax import config as config_lib
from paws_jax import text as text_lib
from paws_jax.data import load_dataset
from paws_jax.data.labels import split as split_lib
from paws_jax.data.sources import arrays
from paws_jax.data.sources import catalog
from paws_jax.doctor import balance
from paws_jax.doctor import check_cache
from paws_jax.doctor import crop_sizes
from paws_jax.doctor import duration
from paws_jax.doctor import existing_run
from paws_jax.doctor import files
from paws_jax.doctor import findings
from paws_jax.doctor import frozen as frozen_lib
from paws_jax.doctor import initial_weights
from paws_jax.doctor import inspect
from paws_jax.doctor import labels
from paws_jax.doctor import measure
from paws_jax.doctor import near_duplicates
from paws_jax.doctor import sizes
from paws_jax.doctor import values
from paws_jax.doctor import view_sheet
from paws_jax.plan import auto_chunks
from paws_jax.runs import files as files_lib
from paws_jax.runs import progress as progress_lib
from paws_jax.runs import recipe as recipe_lib
from paws_jax.runs import requirements
from paws_jax.runs import workdir as workdir_lib

# Errors of reading data and building an experiment that a user can fix.
_USER_ERRORS = (
  ValueError,
  TypeError,
  OSError,
  ImportError,
  MemoryError,
  jax.errors.JaxRuntimeError,
)


@dataclasses.dataclass(frozen=True, eq=False)
class Inspection:
  """The data of a recipe, and the results of reading its files.

  Attributes:
    listing: all images.
    labelled_ids: int [m], the training images whose label is used.
    groups: the images by purpose.
    checks: results of reading them, by name of the group.
  """

  listing: catalog.Catalog
  labelled_ids: np.ndarray
  groups: list[inspect.Group]
  checks: dict[str, list[inspect.ImageCheck]]


def run(
  config: config_lib.Recipe | ml_collections.ConfigDict,
  workdir: str,
  *,
  train_command: str,
  time_steps: bool = False,
  classifier: str | None = None,
) -> int:
  """Checks a recipe and its data, and prints a report.

  Args:
    config: the recipe, with overrides.
    workdir: directory or bucket for views.png; nothing else is written there.
    train_command: the command that trains; printed at the end.
    time_steps: whether to time a few steps, and report the time of training.
    classifier: directory of one that finds near duplicates; None: they are
      not looked for.

  Returns:
    The exit status: 1 if there is a problem, else 0.
  """
  report = findings.Report()
  report.block("Recipe")
  recipe = inspection = None
  with _report_errors(report):
    recipe = config_lib.build(config)
    config_lib.resolve(recipe)
    report.say("every field is in its range")
  valid = not report.num_problems
  # The data are inspected even if another section is wrong.
  if recipe is not None:
    with _report_errors(report):
      inspection = _inspect(report, recipe)
  if valid:
    _check_training(report, recipe, inspection, workdir, time_steps=time_steps)
  if valid and inspection is not None:
    _draw_views(report, recipe, inspection, workdir)
  if inspection is not None and classifier:
    report.block("Near duplicates")
    with _report_errors(report):
      near_duplicates.check(
        report, inspection.groups, inspection.checks, classifier
      )
  return report.end(train_command)


def _check_training(
  report: findings.Report,
  recipe: config_lib.Recipe,
  inspection: Inspection | None,
  workdir: str,
  *,
  time_steps: bool,
) -> None:
  """Builds the training run; reports its steps, sizes, memory and time."""
  report.block("Training")
  with _report_errors(report):
    requirements.check_loggers(recipe.log)
  experiment, message = None, ""
  try:
    if not recipe.train.chunks and "://" not in workdir:
      path = files_lib.resolve(workdir)
      recipe = recipe_lib.with_length(config_lib.resolve(recipe), path)
    recipe, experiment = auto_chunks.create(recipe)
  except _USER_ERRORS as error:
    message = _message(error)
  if inspection is not None:
    sizes.steps(
      report,
      recipe,
      inspection.listing,
      num_labelled=len(inspection.labelled_ids),
      crops=experiment.trainer.views.crops
      if experiment
      else recipe.views.crops,
    )
  sizes.learning_rate(report, recipe)
  if experiment is None:
    # Last, since it names only the first problem.
    report.error(message)
    return
  frozen = recipe.model.trunk == "frozen"
  if frozen:
    with _report_errors(report):
      frozen_lib.space(report, recipe, experiment, workdir)
  else:
    sizes.memory(report, recipe, experiment)
  # A bucket may hold no run yet, and asking it takes credentials.
  if "://" not in workdir:
    with _report_errors(report):
      existing_run.compare(report, recipe, experiment, workdir)
  if not time_steps:
    duration.hint(report)
  elif not report.num_problems:
    with _report_errors(report):
      if frozen:
        experiment = frozen_lib.time(report, recipe, experiment)
      duration.training_time(report, experiment)
  if recipe.model.init_from:
    report.block("Initial weights")
    with _report_errors(report):
      initial_weights.check(report, recipe, experiment)


def _draw_views(
  report: findings.Report,
  recipe: config_lib.Recipe,
  inspection: Inspection,
  workdir: str,
) -> None:
  """Writes views.png."""
  report.block("Views")
  with _report_errors(report):
    path = view_sheet.draw(
      recipe,
      inspection.listing,
      inspection.groups,
      inspection.checks,
      files_lib.resolve(workdir),
    )
    report.say(
      f"{path} shows crops of a few images: if they do not show the class, "
      "raise the scales in section views"
    )
    mirrored = [
      f"--config.views.{name}.flip_probability=0"
      for name, spec in recipe.views.specs.items()
      if spec.flip_probability and spec.count
    ]
    if mirrored:
      report.say(
        "some are mirrored: where left and right matter, as in writing, set "
        + " ".join(mirrored)
      )


@contextlib.contextmanager
def _report_errors(report: findings.Report) -> Iterator[None]:
  """Reports errors of the user as problems."""
  try:
    yield
  except (*_USER_ERRORS, *workdir_lib.storage_errors()) as error:
    report.error(_message(error))


def _message(error: Exception) -> str:
  """Returns the message of an error in one line."""
  lines = str(error).splitlines() or [type(error).__name__]
  # XLA's messages fill pages.
  short = isinstance(error, jax.errors.JaxRuntimeError)
  return lines[0] if short else " ".join(lines)


def _inspect(report: findings.Report, recipe: config_lib.Recipe) -> Inspection:
  """Lists the images, chooses the labelled ones, and reads all files."""
  report.block("Data")
  section = recipe.data.with_home()
  if section.pipeline == "host":
    dataset: catalog.Catalog | arrays.Arrays
    dataset = listing = load_dataset.open_catalog(section)
    decode_size = measure.file_size_in_pixels(
      max_pixels=section.max_pixels,
      canvas_size=section.canvas_size,
      white_level=section.white_level,
    )
  else:
    dataset = loaded = arrays.load(
      section.source, directory=section.dir, tfds_name=section.tfds_name
    )
    listing = inspect.as_catalog(loaded)
    height, width = loaded.train_images.shape[1:3]
    decode_size = measure.array_size(height, width)
  labelled_ids = np.flatnonzero(listing.train.labels >= 0)
  report.say(
    f"data set {listing.name!r}: {len(listing.train.labels):,} training "
    f"images, {len(labelled_ids):,} of them with a label; "
    f"{text_lib.count(listing.num_classes, 'class', 'classes')}"
  )
  with _report_errors(report):
    labelled_ids = _choose_split(report, dataset, section)
  labels.class_sizes(report, listing, labelled_ids, recipe.support)
  balance.class_balance(report, listing, labelled_ids, recipe)
  labels.class_names(report, listing)
  groups = inspect.image_groups(listing, labelled_ids)
  report.block("Files")
  with (
    progress_lib.Images() as progress,
    check_cache.CheckCache(
      check_cache.default_path(),
      max_pixels=section.max_pixels,
      canvas_size=section.canvas_size,
      white_level=section.white_level,
    ) as cache,
  ):
    checks = inspect.check_images(
      groups,
      decode_size,
      progress=progress.show,
      cache=cache,
      eval_resize=recipe.views.eval_resize if listing is dataset else 0,
    )
  if cache.num_known:
    report.say(
      f"{text_lib.count(cache.num_known, 'image')} unchanged since an earlier "
      f"call, and not read again ({cache.path})"
    )
  files.other_files(report, listing)
  files.image_files(report, groups, checks, recipe, listing.class_names)
  crop_sizes.advise(report, recipe, checks)
  values.value_ranges(report, groups, checks, section)
  files.duplicates(report, inspect.duplicates(groups, checks))
  return Inspection(listing, labelled_ids, groups, checks)


def _choose_split(
  report: findings.Report,
  dataset: split_lib.Dataset,
  section: config_lib.Data,
) -> np.ndarray:
  """Returns the rows of the labelled images, chosen as in training."""
  split = split_lib.choose(
    dataset,
    labels_per_class=section.labels_per_class,
    labels_fraction=section.labels_fraction,
    split_seed=section.split_seed,
    labels_file=section.labels_file,
  )
  report.say(
    f"labels used in training: {len(split.labelled_ids):,} ({split.rule})"
  )
  return split.labelled_ids
