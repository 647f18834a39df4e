"""`--task=evaluate --test`: a run's classifier on images of known classes.

The classifier has the labelled images that it was trained with. So neither the
training data need be there, nor must they be as they were.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from collections.abc import Iterator
from typing import Any

import jax
import numpy as np
from etils import epath

from paws_jax import config as config_lib
from paws_jax import errors
from paws_jax.classifier import classifier as classifier_lib
from paws_jax.classifier import image_list
from paws_jax.classifier import summary
from paws_jax.evaluation import protocols
from paws_jax.evaluation import result_rows
from paws_jax.evaluation import tables_and_plots
from paws_jax.predict import labelled_set
from paws_jax.predict import source
from paws_jax.runs import files as files_lib
from paws_jax.runs import recipe as recipe_lib
from paws_jax.runs import results
from paws_jax.runs import workdir as workdir_lib


@dataclasses.dataclass(frozen=True, eq=False)
class ScoreInputs:
  """A run's classifier, and the images to judge it on.

  Attributes:
    recipe: of the run.
    workdir: of the run.
    make: gives the classifier; made of the run if need be.
    images: the images.
  """

  recipe: config_lib.Recipe
  workdir: epath.Path
  make: Callable[[], classifier_lib.Classifier]
  images: labelled_set.LabelledSet


def prepare(
  recipe: config_lib.Recipe, workdir: str, *, test: str
) -> ScoreInputs:
  """Finds the classifier and the images.

  Args:
    recipe: of the run.
    workdir: of the run.
    test: --test.

  Raises:
    UserError: the input cannot be used; with a message for the user.
  """
  if jax.process_count() > 1:
    raise errors.InputError(
      f"--test={test} is measured by one process: start it without the others."
    )
  found = source.from_run(recipe, workdir)
  images = labelled_set.find(test, found.class_names)
  path = files_lib.resolve(workdir)
  # What cannot be read now could not be added to later.
  results.read_results(path)
  workdir_lib.check_writable(path, tables_and_plots.CHECKED)
  return ScoreInputs(recipe, path, found.make, images)


def run(prepared: ScoreInputs) -> int:
  """Measures, writes and shows; the exit status: 0.

  Raises:
    errors.BadImageError: naming an image that cannot be read.
    errors.NonFiniteError: when embeddings are not finite.
    errors.WorkdirError: when another process is using the directory.
  """
  images = prepared.images
  for notice in images.files.notices:
    print(notice)
  with workdir_lib.run_lock(prepared.workdir):
    classifier = prepared.make()
    print(f"embedding {len(images.labels)} images of {images.files.given} ...")
    outcomes = list(score(classifier, images, part=f"{images.name} (--test)"))
    rows = result_rows.rows(_describe(prepared, classifier), outcomes)
    results.append_new(prepared.workdir, rows)
    digest = rows[0]["test_hash"][:8]
    subdirectory = f"{images.name}-{digest}"
    tables_and_plots.write(
      prepared.workdir,
      outcomes,
      class_names=classifier.class_names,
      source=f"{images.name}, step {rows[0]['step']}",
      subdirectory=subdirectory,
    )
  print(f"\n{result_rows.evaluation_table(rows)}\n")
  for line in tables_and_plots.places(prepared.workdir, subdirectory):
    print(line)
  return 0


def _describe(
  prepared: ScoreInputs, classifier: classifier_lib.Classifier
) -> dict[str, Any]:
  """Fields of every row: which run, which labels, which images."""
  recipe, origin = prepared.recipe, classifier.origin
  return {
    "method": recipe.method.name,
    "dataset": origin.get("dataset", ""),
    "split_hash": origin.get("split_hash", ""),
    "seed": recipe.seed,
    "recipe": files_lib.sha256(prepared.workdir / recipe_lib.RECIPE),
    "step": origin.get("step"),
    "num_labels": len(classifier.support_bank),
    "test": prepared.images.files.given,
    "test_hash": prepared.images.digest(classifier.class_names),
  }


def score(
  classifier: classifier_lib.Classifier,
  images: labelled_set.LabelledSet,
  *,
  part: str,
) -> Iterator[protocols.Outcome]:
  """Embeds the images and lets the classifier's supports decide.

  Args:
    classifier: whose classes the labels of `images` number.
    images: to be judged on.
    part: what results call them.

  Yields:
    soft_nn and knn for every k; of a classifier with a linear head only what
    that decides.

  Raises:
    errors.BadImageError: naming an image that cannot be read.
    errors.NonFiniteError: naming images whose embeddings are not finite.
  """
  files = images.files
  listed = image_list.ImageList(
    [files.path(name) for name in files.names],
    classifier.preprocessing,
    names=files.names,
  )
  num_classes = classifier.num_classes
  if classifier.head is not None:
    parts = [made.probabilities for _, made in classifier.stream(listed)]
    probabilities = np.concatenate(parts)
    name = "class" if summary.is_class_head(classifier) else "linear"
    on_trunk = summary.is_on_trunk(classifier)
    yield protocols.Outcome(
      title=f"{name} head",
      protocol=f"{name}_head",
      part=part,
      settings={"embedding": "trunk" if on_trunk else "h"},
      ranks=protocols.ranked(probabilities),
      labels=images.labels,
      num_classes=num_classes,
      probabilities=probabilities,
    )
    return
  bank = classifier.support_bank
  queries = protocols.EmbeddedImages(
    {"z": np.concatenate([rows for _, rows in classifier.embedded(listed)])},
    images.labels,
  )
  supports = protocols.EmbeddedImages({"z": bank.embeddings}, bank.labels)
  yield protocols.soft_nn(
    part,
    queries,
    supports,
    num_classes=num_classes,
    temperature=classifier.temperature,
  )
  yield from protocols.knn(part, queries, supports, num_classes=num_classes)
