"""What a classifier says of images."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np

from paws_jax import errors
from paws_jax import text

# Of the sum of probabilities; 21,000 of them in 32 bits are within 1e-3.
_SUM_TOLERANCE = 1e-2


@dataclasses.dataclass(frozen=True, eq=False)
class Head:
  """A linear classifier, on features after one projection layer.

  Attributes:
    kernel: float32 [d, K].
    bias: float32 [K].
  """

  kernel: np.ndarray
  bias: np.ndarray

  def __repr__(self) -> str:
    """Its size."""
    return f"Head(kernel {list(self.kernel.shape)})"


@dataclasses.dataclass(frozen=True, eq=False)
class Predictions:
  """What is said of n images, on the host.

  Attributes:
    probabilities: float32 [n, K]; rows sum to 1.
    classes: int32 [n], the most probable; of equal ones the lower number.
    entropy: float32 [n], of the probabilities, in nats.
    novelty: float32 [n], 1 - the highest cosine similarity to a support: 0 for
      a support itself, up to 2.
    support_indices: int32 [n, k], the k supports nearest to the image, in the
      order of their similarity.
    support_weights: float32 [n, k], the share of the vote that each has.
    in_domain: float32 [n] in [0, 1], the prior probability of being of a known
      class, by the nearest support (RoPAWS); None: the classifier has none.
    class_names: K names, those of the classifier.
  """

  probabilities: np.ndarray
  classes: np.ndarray
  entropy: np.ndarray
  novelty: np.ndarray
  support_indices: np.ndarray
  support_weights: np.ndarray
  in_domain: np.ndarray | None = None
  class_names: tuple[str, ...] = ()

  def __len__(self) -> int:
    """Number of images."""
    return len(self.classes)

  def __repr__(self) -> str:
    """The first predicted classes."""
    first = text.first_few(map(repr, self.predicted_classes))
    return f"Predictions({len(self)} images: {first})"

  @property
  def predicted_classes(self) -> list[str]:
    """Names of `classes`, one for each image."""
    return [self.class_names[k] for k in self.classes]


def check(predictions: Predictions, names: Sequence[str]) -> None:
  """Refuses probabilities that are none; called before anything is written.

  Args:
    predictions: of images.
    names: of the images.

  Raises:
    errors.NonFiniteError: naming the images.
  """
  rows = predictions.probabilities
  # NaN is not below the limit.
  good = np.abs(rows.sum(axis=-1) - 1) < _SUM_TOLERANCE
  good &= rows.min(axis=-1) >= 0
  good &= np.isfinite(predictions.entropy) & np.isfinite(predictions.novelty)
  if predictions.in_domain is not None:
    good &= np.isfinite(predictions.in_domain)
  bad = np.flatnonzero(~good).tolist()
  if len(bad):
    raise errors.NonFiniteError(
      f"the probabilities of {len(bad)} of {len(names)} images are not finite, "
      f"or do not add up to 1: {text.first_few(names[i] for i in bad)}. The "
      "classifier's temperature, support bank or head is damaged: make it anew."
    )


def concatenate(parts: Sequence[Predictions]) -> Predictions:
  """The predictions of several lists of images, at least one, as one."""
  fields = [field.name for field in dataclasses.fields(Predictions)]
  fields.remove("class_names")
  if parts[0].in_domain is None:
    fields.remove("in_domain")
  return Predictions(
    **{f: np.concatenate([getattr(part, f) for part in parts]) for f in fields},
    class_names=parts[0].class_names,
  )
