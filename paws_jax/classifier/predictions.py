"""What a classifier says of images."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np


@dataclasses.dataclass(frozen=True, eq=False)
class Head:
  """A linear classifier, on features after one projection layer.

  Attributes:
    kernel: float32 [d, K].
    bias: float32 [K].
  """

  kernel: np.ndarray
  bias: np.ndarray


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
  """

  probabilities: np.ndarray
  classes: np.ndarray
  entropy: np.ndarray
  novelty: np.ndarray
  support_indices: np.ndarray
  support_weights: np.ndarray
  in_domain: np.ndarray | None = None

  def __len__(self) -> int:
    """Number of images."""
    return len(self.classes)


def concatenate(parts: Sequence[Predictions]) -> Predictions:
  """The predictions of several lists of images, at least one, as one."""
  fields = [field.name for field in dataclasses.fields(Predictions)]
  if parts[0].in_domain is None:
    fields.remove("in_domain")
  return Predictions(
    **{f: np.concatenate([getattr(part, f) for part in parts]) for f in fields}
  )
