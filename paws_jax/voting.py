"""From embeddings to classes: the vote of a support bank, or a linear head."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from paws_jax import bank as bank_lib
from paws_jax import losses
from paws_jax import sharding


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


def make_voter(
  bank: bank_lib.Bank,
  *,
  num_classes: int,
  temperature: float,
  head: Head | None,
  mesh: jax.sharding.Mesh,
  in_domain_temperature: float | None = None,
) -> Callable[..., Predictions]:
  """Puts a bank on the devices.

  Args:
    bank: the supports.
    num_classes: K.
    temperature: τ of the vote.
    head: decides instead of the vote.
    mesh: queries are spread over its devices.
    in_domain_temperature: of `Predictions.in_domain`; None: without it.

  Returns:
    A function of (features float32 [n, D], num_supports=3, size=rows of the
    compiled program, at least n).
  """
  supports = sharding.replicate(_unit(bank.embeddings), mesh)
  labels = sharding.replicate(bank.labels, mesh)
  linear = None
  if head is not None:
    linear = sharding.replicate((head.kernel, head.bias), mesh)

  def vote(features: np.ndarray, *, num_supports: int, size: int):
    padded = np.zeros(
      (sharding.padded_size(size, mesh), features.shape[1]), np.float32
    )
    padded[: len(features)] = features
    decided = _vote(
      jax.device_put(padded, sharding.batch_sharded(mesh)),
      supports,
      labels,
      linear,
      temperature=temperature,
      num_classes=num_classes,
      num_supports=min(num_supports, len(bank)),
      in_domain_temperature=in_domain_temperature,
    )
    rows = [np.asarray(x)[: len(features)] for x in decided]
    return Predictions(*rows)

  return vote


@jax.jit
def _unit(embeddings: jax.Array) -> jax.Array:
  return losses.normalise(embeddings)


@functools.partial(
  jax.jit,
  static_argnames=(
    "temperature",
    "num_classes",
    "num_supports",
    "in_domain_temperature",
  ),
)
def _vote(
  features: jax.Array,
  supports: jax.Array,
  labels: jax.Array,
  linear: tuple[jax.Array, jax.Array] | None,
  *,
  temperature: float,
  num_classes: int,
  num_supports: int,
  in_domain_temperature: float | None,
) -> tuple[Any, ...]:
  """The fields of `Predictions`, in their order; supports are normalised."""
  highest = jax.lax.Precision.HIGHEST
  similarities = jnp.matmul(
    losses.normalise(features), supports.T, precision=highest
  )
  weights = jax.nn.softmax(similarities / temperature, axis=-1)
  if linear is None:
    # Not a product with one-hot rows: 128,000 supports of 1,000 classes would
    # take half a gigabyte for them.
    probabilities = jax.ops.segment_sum(
      weights.T, labels, num_segments=num_classes
    ).T
  else:
    kernel, bias = linear
    logits = jnp.matmul(features, kernel, precision=highest) + bias[None, :]
    probabilities = jax.nn.softmax(logits, axis=-1)
  logs = jnp.log(jnp.where(probabilities > 0, probabilities, 1))
  nearest, indices = jax.lax.top_k(similarities, max(num_supports, 1))
  decided = (
    probabilities,
    jnp.argmax(probabilities, axis=-1).astype(jnp.int32),
    -jnp.sum(probabilities * logs, axis=-1),
    # Rounding may take a support itself below 0.
    jnp.maximum(1 - nearest[:, 0], 0),
    indices[:, :num_supports],
    jnp.take_along_axis(weights, indices, axis=-1)[:, :num_supports],
  )
  if in_domain_temperature is None:
    return decided
  known = losses.in_domain_probability(
    nearest[:, 0], temperature=in_domain_temperature
  )
  return (*decided, known)
