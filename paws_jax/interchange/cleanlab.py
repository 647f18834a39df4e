"""cleanlab: features, pred_probs and labels, to search for wrong labels.

Examples:
  >>> arrays = cleanlab.support_arrays(paws_jax.Classifier.load(directory))
  >>> cleanlab_filter.find_label_issues(arrays.labels, arrays.pred_probs)
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np

from paws_jax import errors
from paws_jax import text
from paws_jax.classifier import classifier as classifier_lib
from paws_jax.classifier import predictions as predictions_lib
from paws_jax.data.labels import copies
from paws_jax.evaluation import soft_nn


@dataclasses.dataclass(frozen=True, eq=False)
class Arrays:
  """Arrays under the names that cleanlab gives them.

  Attributes:
    features: float32 [n, D], embeddings.
    pred_probs: float32 [n, K], out of sample.
    labels: int64 [n], places in `class_names`.
    class_names: K of them.
    names: of the n images.
  """

  features: np.ndarray
  pred_probs: np.ndarray
  labels: np.ndarray
  class_names: tuple[str, ...]
  names: tuple[str, ...]


def support_arrays(classifier: classifier_lib.Classifier) -> Arrays:
  """Classifies each labelled image of a classifier by the others.

  Images of equal embeddings are copies, and do not vote on each other. The
  encoder has seen these labels in training: what it has memorized is not
  found.

  Args:
    classifier: one whose labelled images vote.

  Raises:
    InputError: a fine-tuned head decides, which has learned from all of its
      labels; or there are no two different images.
  """
  if classifier.head is not None:
    raise errors.InputError(
      "a fine-tuned head has learned from all of its labels, and can say "
      "nothing of them: give the classifier of the pre-trained run."
    )
  support_bank = classifier.support_bank
  groups = copies.of_arrays(support_bank.embeddings)
  if len(np.unique(groups)) < 2:
    raise errors.InputError(
      f"the {len(support_bank)} labelled images are copies of one: there is "
      "nothing to compare."
    )
  probabilities = soft_nn.soft_nn_probabilities(
    support_bank.embeddings,
    support_bank.embeddings,
    support_bank.labels,
    num_classes=classifier.num_classes,
    temperature=classifier.temperature,
    leave_one_out=True,
    copies=groups,
  )
  return Arrays(
    features=support_bank.embeddings,
    pred_probs=probabilities,
    labels=support_bank.labels.astype(np.int64),
    class_names=tuple(classifier.class_names),
    names=tuple(support_bank.names),
  )


def prediction_arrays(
  predictions: predictions_lib.Predictions,
  embeddings: np.ndarray,
  labels: Sequence[str],
  *,
  names: Sequence[str] = (),
) -> Arrays:
  """Images with labels that the classifier has not seen.

  Args:
    predictions: of `Classifier.predict`. Of the classifier's own labelled
      images they are not out of sample: see `support_arrays`.
    embeddings: float [n, D], of `Classifier.embed` or a file of `--task=embed`.
    labels: the class of each image, by name.
    names: of the images; default: their numbers.

  Raises:
    InputError: for other numbers of images, or a label that is no class.
  """
  count = len(predictions)
  names = tuple(names) or tuple(map(str, range(count)))
  for what, others in (
    ("embeddings", embeddings),
    ("labels", labels),
    ("names", names),
  ):
    if len(others) != count:
      raise errors.InputError(
        f"there are {count} predictions and {len(others)} {what}: give those "
        "of the same images."
      )
  places = {name: k for k, name in enumerate(predictions.class_names)}
  unknown = [
    f"{label!r} ({name})"
    for name, label in zip(names, labels, strict=True)
    if label not in places
  ]
  if unknown:
    raise errors.InputError(
      f"{len(unknown)} labels are no class of the classifier: "
      f"{text.first_few(unknown)}. Its classes are "
      f"{text.first_few(map(repr, places))}."
    )
  return Arrays(
    features=np.asarray(embeddings, np.float32),
    pred_probs=predictions.probabilities,
    labels=np.asarray([places[label] for label in labels], np.int64),
    class_names=tuple(predictions.class_names),
    names=names,
  )
