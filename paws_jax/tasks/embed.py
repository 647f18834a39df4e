"""`--task=embed`: embeddings of any images, as one file.

python -m paws_jax.main --task=embed --workdir=DIR --images=DIR

The same command again embeds the images that have no embedding yet.
"""

from __future__ import annotations

import dataclasses
import hashlib
import os
import pathlib
from collections.abc import Callable
from collections.abc import Iterator
from typing import Any

import ml_collections

from paws_jax import config as config_lib
from paws_jax import errors
from paws_jax.classifier import classifier as classifier_lib
from paws_jax.classifier import files
from paws_jax.classifier import image_list
from paws_jax.predict import embeddings
from paws_jax.predict import find_images
from paws_jax.predict import rows_file
from paws_jax.predict import source as source_lib
from paws_jax.predict import write_rows
from paws_jax.runs import provenance


@dataclasses.dataclass(frozen=True, eq=False)
class EmbedInputs:
  """Inputs of `run`.

  Attributes:
    make: gives the classifier; made of the run if need be.
    images: to be embedded.
    layer: "projection" or "features".
    output: the file of embeddings.
  """

  make: Callable[[], classifier_lib.Classifier]
  images: find_images.ImageFiles
  layer: str
  output: pathlib.Path


def prepare(
  config: config_lib.Recipe | ml_collections.ConfigDict | None,
  workdir: str,
  *,
  images: str | None,
  layer: str,
  classifier: str | None,
  head: str,
  output: str | None,
) -> EmbedInputs:
  """Checks everything a user can get wrong.

  Args:
    config: the run's recipe; None with `classifier`.
    workdir: the run's directory.
    images: a directory, an image, or a CSV file.
    layer: "projection" or "features".
    classifier: directory of one, instead of the run's.
    head: "soft_nn" or "finetuned".
    output: where to write.

  Raises:
    UserError: the input cannot be used; with a message for the user.
    errors.CheckpointError: when the run has no checkpoint.
  """
  if images is None:
    raise errors.InputError(
      "--images is missing: give a directory of images, an image, or a CSV "
      "file with a column of paths."
    )
  found = find_images.find("--images", images)
  default = os.path.join(workdir, "embeddings.npz")
  target = rows_file.check_path(output or default, embeddings.SUFFIXES)
  write_rows.check_not_input(images, found, target, "embeddings")
  recipe = None if config is None else config_lib.resolve(config)
  source = source_lib.find(recipe, workdir, classifier=classifier, head=head)
  return EmbedInputs(make=source.make, images=found, layer=layer, output=target)


def run(prepared: EmbedInputs) -> int:
  """Embeds the images; returns the exit status, 0.

  Raises:
    errors.BadImageError: when no image at all can be read.
    errors.NonFiniteError: when embeddings are not finite.
    errors.WorkdirError, OSError: when the output cannot be written.
  """
  classifier, found = prepared.make(), prepared.images
  for notice in found.notices:
    print(notice)
  about = {
    "classifier": classifier.digest,
    "layer": prepared.layer,
    "images": found.given,
  }

  def stream(images: image_list.ImageList) -> Iterator[Any]:
    parts = classifier.embedded(images, layer=prepared.layer, skip_bad=True)
    for batch, vectors in parts:
      names = [images.name(place) for place in batch.places]
      yield batch, embeddings.rows(names, vectors)

  with embeddings.EmbeddingsFile(
    prepared.output,
    about,
    images=found.names,
    labels=found.labels,
    metadata={
      **about,
      "weights": _weights_digest(classifier),
      "paws_jax": provenance.version(),
    },
  ) as file:
    write_rows.write(
      found,
      file,
      stream,
      classifier.preprocessing,
      noun="embeddings",
    )
  return 0


def _weights_digest(classifier: classifier_lib.Classifier) -> str:
  """Hex sha256 of `encoder.safetensors` in the classifier's directory."""
  packed = files.pack(vars(classifier))
  return hashlib.sha256(packed[files.ENCODER]).hexdigest()
