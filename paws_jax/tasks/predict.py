"""`--task=predict`: classes for any images, each with the supports that voted.

python -m paws_jax.main --task=predict --workdir=DIR --images=DIR

The same command again predicts the images that have no row yet.
"""

from __future__ import annotations

import dataclasses
import os
import pathlib
from collections.abc import Callable
from collections.abc import Iterator
from collections.abc import Mapping
from collections.abc import Sequence
from typing import Any

import ml_collections
from etils import epath

from paws_jax import config as config_lib
from paws_jax import errors
from paws_jax.classifier import classifier as classifier_lib
from paws_jax.classifier import files
from paws_jax.classifier import image_list
from paws_jax.classifier import summary
from paws_jax.predict import find_images
from paws_jax.predict import rows_file
from paws_jax.predict import source as source_lib
from paws_jax.predict import table
from paws_jax.predict import write_rows
from paws_jax.runs import files as files_lib
from paws_jax.runs import workdir as workdir_lib
from paws_jax.training import save_classifier


@dataclasses.dataclass(frozen=True, eq=False)
class PredictInputs:
  """What `run` does.

  Attributes:
    make: gives the classifier; made of the run if need be.
    images: to be predicted; None: a classifier is only extended.
    added: images of classes to add, by name.
    output: the file of predictions, or the directory of the classifier.
  """

  make: Callable[[], classifier_lib.Classifier]
  images: find_images.ImageFiles | None
  added: Mapping[str, find_images.ImageFiles]
  output: pathlib.Path | epath.Path


def prepare(
  config: config_lib.Recipe | ml_collections.ConfigDict | None,
  workdir: str,
  *,
  images: str | None,
  classifier: str | None,
  add_class: Sequence[str],
  head: str,
  output: str | None,
) -> PredictInputs:
  """Checks everything a user can get wrong.

  Args:
    config: the run's recipe; None with `classifier`.
    workdir: the run's directory; "": none.
    images: a directory, an image, or a CSV file; None: only extend.
    classifier: directory of one, instead of the run's.
    add_class: NAME=DIR of each class to add.
    head: "soft_nn" or "finetuned".
    output: where to write.

  Raises:
    UserError: the input cannot be used; with a message for the user.
    errors.CheckpointError: when the run has no checkpoint.
  """
  if images is None and not add_class:
    raise errors.InputError(
      "--images is missing: give a directory of images, an image, or a CSV "
      "file with a column of paths."
    )
  added = _classes_to_add(add_class)
  found = None if images is None else find_images.find("--images", images)
  target = _target(images, workdir, output)
  if images and found is not None:
    write_rows.check_not_input(images, found, target, "predictions")
  recipe = None if config is None else config_lib.resolve(config)
  source = source_lib.find(recipe, workdir, classifier=classifier, head=head)
  names = list(source.class_names)
  for name in added:
    classifier_lib.check_new_class(name, names, has_head=source.has_head)
    names.append(name)
  if found is not None and not added and not source.has_head:
    classifier_lib.check_voters(source.labels, source.class_names)
  return PredictInputs(
    make=source.make, images=found, added=added, output=target
  )


def run(prepared: PredictInputs) -> int:
  """Predicts, or saves an extended classifier; returns the exit status, 0.

  Raises:
    errors.BadImageError: when no image at all can be read.
    errors.NonFiniteError: when embeddings are not finite.
    errors.WorkdirError, OSError: when the output cannot be written.
  """
  classifier = prepared.make()
  for name, found in prepared.added.items():
    classifier = _extended(classifier, name, found)
  if prepared.images is None:
    save_classifier.save(classifier, prepared.output)
    print(
      f"classifier  {prepared.output} ({len(classifier.class_names)} classes, "
      f"{len(classifier.support_bank)} supports)"
    )
    return 0
  if prepared.added:
    print("the added classes are not saved: to save them, leave --images out")
  decides = "a vote of the supports"
  if classifier.head is not None:
    decides = "the head of the fine-tuned run"
    if summary.head_words(classifier) == "a class head":
      decides = "the class head of the run"
  print(
    f"{len(classifier.class_names)} classes, {len(classifier.support_bank)} "
    f"supports; {decides} decides"
  )
  _predict(classifier, prepared.images, prepared.output)
  return 0


def _classes_to_add(
  given: Sequence[str],
) -> dict[str, find_images.ImageFiles]:
  """Images by class, out of NAME=DIR."""
  added = {}
  for text in given:
    name, equals, directory = text.partition("=")
    if not equals or not name.strip() or not directory:
      raise errors.InputError(
        f"--add_class={text}: give NAME=DIR, the name of the class and a "
        "directory of its images."
      )
    if name in added:
      raise errors.InputError(
        f"--add_class gives class {name!r} twice: put its images into one "
        "directory."
      )
    added[name] = find_images.find(f"--add_class={name}", directory)
  return added


def _target(
  images: str | None, workdir: str, output: str | None
) -> pathlib.Path | epath.Path:
  """Where to write."""
  if images is None:
    if not output:
      raise errors.InputError(
        "--add_class without --images makes a new classifier: say where with "
        "--output=DIR, or give --images."
      )
    if output.endswith((".csv", ".parquet")):
      raise errors.InputError(
        f"--output={output} is where the extended classifier goes, a "
        "directory; predictions need --images."
      )
    directory = files_lib.resolve(output)
    workdir_lib.check_not_own(directory, f"--output={output}")
    files.check_free(directory)
    files_lib.check_writable(
      directory / files.SETTINGS,
      "give yourself the right to write there, or name another directory with "
      "--output=DIR",
    )
    return directory
  default = os.path.join(workdir, "predictions.csv")
  return rows_file.check_path(output or default, table.SUFFIXES)


def _extended(
  classifier: classifier_lib.Classifier,
  name: str,
  found: find_images.ImageFiles,
) -> classifier_lib.Classifier:
  for notice in found.notices:
    print(notice)
  # Named by their absolute paths, as the classifier may be used anywhere.
  images = image_list.ImageList(
    [os.path.abspath(found.path(name)) for name in found.names],
    classifier.preprocessing,
  )
  extended, bad = classifier.add_from(name, images, skip_bad=True)
  count = len(extended.support_bank) - len(classifier.support_bank)
  print(f"class {name!r} is added, supports: {count}")
  for path, reason in bad.items():
    print(f"  left out: {path}: {reason}")
  return extended


def _predict(
  classifier: classifier_lib.Classifier,
  found: find_images.ImageFiles,
  output: pathlib.Path,
) -> None:
  for notice in found.notices:
    print(notice)
  header = table.columns(
    len(classifier.class_names),
    len(classifier.support_bank),
    in_domain=classifier.in_domain_temperature is not None,
  )
  about = {
    "classifier": classifier.digest,
    "images": found.given,
  }

  def stream(images: image_list.ImageList) -> Iterator[Any]:
    parts = classifier.stream(
      images, num_supports=table.NUM_SUPPORTS, skip_bad=True
    )
    for batch, predictions in parts:
      names = [images.name(place) for place in batch.places]
      yield batch, table.rows(names, predictions, classifier)

  with table.PredictionsFile(output, header, about, images=found.names) as file:
    write_rows.write(
      found,
      file,
      stream,
      classifier.preprocessing,
      noun="predictions",
    )
