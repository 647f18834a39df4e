"""Data without a labelled image: which methods accept them, what follows."""

from __future__ import annotations

from paws_jax import errors
from paws_jax import methods
from paws_jax.data import dataset as dataset_lib

_HOW = "a folder for each class in data.dir, or the column label of a table"
NO_RESULT = (
  "no image is labelled: no accuracy is measured, and no classifier is saved."
)
# What can be done with a run that has used no labels.
ADVICE = (
  f"Label some images of each class ({_HOW}), and start from the weights of "
  "this run with them, in a new directory: --config.model.init_from=RUN "
  "--workdir=NEW, for example with --config.method.name=paws."
)


def check(name: str, dataset: dataset_lib.Dataset) -> None:
  """Refuses data without labels where a method needs some.

  Args:
    name: of the method.
    dataset: the data.

  Raises:
    errors.InputError: naming the methods that need none.
  """
  if dataset.labelled or not methods.METHODS[name].needs_support:
    return
  others = [
    other for other, kind in methods.METHODS.items() if not kind.needs_support
  ]
  raise errors.InputError(
    f"{dataset.name}: none of the {len(dataset.train_images)} training images "
    f"has a label that is used, and method.name={name} learns from labels: "
    f"label at least one image of each class ({_HOW}), or use a method that "
    f"needs none: {', '.join(others)}."
  )


def check_run(workdir: object, dataset: dataset_lib.Dataset) -> None:
  """Refuses a task that compares images with labelled ones.

  Raises:
    errors.InputError: the run was trained without labels; says what to do.
  """
  if not dataset.labelled:
    raise errors.InputError(
      f"the run in {workdir} was trained without labels, and this task "
      f"compares images with labelled ones. {ADVICE}"
    )
