"""`--task=doctor`: looks for what would spoil a run, before an hour is wasted.

It reads every file once, builds all that training would build, and says what
it finds. A finding does not end it: whatever can still be looked at is.
"""

from __future__ import annotations

import contextlib
import dataclasses
import sys
import time
from collections.abc import Iterator

import jax
import ml_collections
import numpy as np

from paws_jax import config as config_lib
from paws_jax.data import load_dataset
from paws_jax.data.labels import split as split_lib
from paws_jax.data.sources import arrays
from paws_jax.data.sources import catalog
from paws_jax.doctor import files
from paws_jax.doctor import findings
from paws_jax.doctor import inspect
from paws_jax.doctor import labels
from paws_jax.doctor import sizes
from paws_jax.doctor import view_sheet
from paws_jax.runs import files as files_lib
from paws_jax.runs import workdir as workdir_lib
from paws_jax.training import experiment as experiment_lib

# What reading data and building an experiment raise for a user to mend.
_USER_ERRORS = (
  ValueError,
  TypeError,
  OSError,
  ImportError,
  MemoryError,
  jax.errors.JaxRuntimeError,
)
_SECONDS_BETWEEN_LINES = 10.0


@dataclasses.dataclass(frozen=True, eq=False)
class Inspection:
  """A data set as the recipe sees it, with what its files told.

  Attributes:
    catalog: all images.
    labelled_ids: int [m], the training images whose label is used.
    groups: the images by their purpose.
    seen: what reading them told, by group.
  """

  catalog: catalog.Catalog
  labelled_ids: np.ndarray
  groups: list[inspect.Group]
  seen: dict[str, list[inspect.ImageCheck]]


def run(
  config: ml_collections.ConfigDict, workdir: str, *, train_command: str
) -> int:
  """Examines a recipe and its data, and prints a report.

  Args:
    config: the recipe, with overrides.
    workdir: views.png is written there, and nothing else; a bucket will do.
    train_command: what to type to train; printed at the end.

  Returns:
    The exit status: 1 when training could not work, else 0.
  """
  report = findings.Report()
  report.block("Recipe")
  with _report_errors(report):
    config_lib.validate(config)
    report.say("every field is in its range")
  valid = not report.num_problems
  examined = None
  with _report_errors(report):
    examined = _inspect(report, config)
  if valid:
    report.block("Training")
    experiment, refusal = None, ""
    try:
      experiment = experiment_lib.create(config)
    except _USER_ERRORS as error:
      refusal = _message(error)
    if examined is not None:
      sizes.steps(
        report,
        config,
        examined.catalog,
        num_labelled=len(examined.labelled_ids),
        views=experiment.trainer.views if experiment else config.views,
      )
    sizes.learning_rate(report, config)
    if experiment is not None:
      sizes.memory(report, experiment)
    else:
      # Last, since it names only the first thing that is wrong.
      report.refused(refusal)
  if valid and examined is not None:
    report.block("Views")
    with _report_errors(report):
      path = view_sheet.draw(
        config,
        examined.catalog,
        examined.groups,
        examined.seen,
        files_lib.resolve(workdir),
      )
      report.say(
        f"{path} shows crops of a few images: if you cannot tell the class by "
        "them, raise the scales in section views"
      )
      if config.views.flip_probability:
        report.say(
          "some are mirrored: set views.flip_probability to 0 where left and "
          "right matter, as in writing"
        )
  return report.end(train_command)


@contextlib.contextmanager
def _report_errors(report: findings.Report) -> Iterator[None]:
  """Makes a problem of what cannot be built."""
  try:
    yield
  except (*_USER_ERRORS, *workdir_lib.storage_errors()) as error:
    report.refused(_message(error))


def _message(error: Exception) -> str:
  """What an error says, in one line."""
  lines = str(error).splitlines() or [type(error).__name__]
  # XLA's messages go on for pages.
  short = isinstance(error, jax.errors.JaxRuntimeError)
  return lines[0] if short else " ".join(lines)


def _inspect(
  report: findings.Report, config: ml_collections.ConfigDict
) -> Inspection:
  """Lists the images, chooses the labelled ones, and reads all files."""
  report.block("Data")
  section = config_lib.Data(**config.data).with_home()
  if section.pipeline == "host":
    found = whole = load_dataset.open_catalog(section)
    decode_size = inspect.file_size_in_pixels(
      max_pixels=section.max_pixels, canvas_size=section.canvas_size
    )
  else:
    whole = arrays.load(
      section.source, directory=section.dir, tfds_name=section.tfds_name
    )
    found = inspect.as_catalog(whole)
    height, width = whole.train_images.shape[1:3]
    decode_size = lambda content, name: (height, width)  # noqa: E731
  report.say(
    f"{found.name}: {len(found.train.labels):,} training images, "
    f"{found.num_classes:,} classes"
  )
  labelled_ids = np.flatnonzero(found.train.labels >= 0)
  with _report_errors(report):
    labelled_ids = _choose_split(report, whole, section)
  labels.class_sizes(report, found, labelled_ids, config.support)
  labels.class_names(report, found)
  groups = inspect.image_groups(found, labelled_ids)
  report.block("Files")
  with Progress() as progress:
    seen = inspect.check_images(
      groups,
      decode_size,
      progress=progress.show,
      eval_resize=config.views.eval_resize if found is whole else 0,
    )
  files.other_files(report, found)
  files.image_files(report, groups, seen, config, found.class_names)
  files.duplicates(report, inspect.duplicates(groups, seen))
  return Inspection(found, labelled_ids, groups, seen)


def _choose_split(
  report: findings.Report,
  dataset: split_lib.Dataset,
  section: config_lib.Data,
) -> np.ndarray:
  """Rows of the labelled images, as training chooses them."""
  split = split_lib.choose(
    dataset,
    labels_per_class=section.labels_per_class,
    labels_fraction=section.labels_fraction,
    split_seed=section.split_seed,
    labels_file=section.labels_file,
  )
  num_labels = len(split.labelled_ids)
  report.say(f"labels of {num_labels:,} of them are used ({split.rule})")
  return split.labelled_ids


class Progress:
  """A line that says how many files have been read."""

  def __init__(self):
    self._start = self._shown = time.perf_counter()
    self._in_place = sys.stdout.isatty()
    self._width = 0

  def __enter__(self) -> Progress:
    return self

  def __exit__(self, *_) -> None:
    if self._width:
      print(f"\r{' ' * self._width}\r", end="", flush=True)

  def show(self, done: int, total: int) -> None:
    """Shows the line when it is time; rewrites it on a terminal."""
    now = time.perf_counter()
    interval = 0.5 if self._in_place else _SECONDS_BETWEEN_LINES
    if now - self._shown < interval:
      return
    self._shown = now
    rate = done / (now - self._start)
    line = (
      f"  read {done:,} of {total:,} images  {rate:.3g} img/s  "
      f"ETA {(total - done) / rate:.0f} s"
    )
    if self._in_place:
      print("\r" + line.ljust(self._width), end="", flush=True)
      self._width = len(line)
    else:
      print(line, flush=True)
