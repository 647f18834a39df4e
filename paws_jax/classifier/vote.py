"""From embeddings to classes: the vote of a support bank, or a linear head."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from paws_jax import losses
from paws_jax.classifier import predictions
from paws_jax.classifier import support_bank as support_bank_lib
from paws_jax.parallel import mesh as mesh_lib


def make_voter(
  support_bank: support_bank_lib.SupportBank,
  *,
  num_classes: int,
  temperature: float,
  head: predictions.Head | None,
  mesh: jax.sharding.Mesh,
  in_domain_temperature: float | None = None,
  class_names: tuple[str, ...] = (),
) -> Callable[..., predictions.Predictions]:
  """Puts a support bank on the devices.

  Args:
    support_bank: the supports.
    num_classes: K.
    temperature: τ of the vote.
    head: decides instead of the vote.
    mesh: queries are spread over its devices.
    in_domain_temperature: of `Predictions.in_domain`; None: without it.
    class_names: of `Predictions`.

  Returns:
    A function of (features float32 [n, D], num_supports=3, size=rows of the
    compiled program, at least n).
  """
  supports = mesh_lib.replicate(_unit(support_bank.embeddings), mesh)
  labels = mesh_lib.replicate(support_bank.labels, mesh)
  linear = None
  if head is not None:
    linear = mesh_lib.replicate((head.kernel, head.bias), mesh)

  def vote(
    features: np.ndarray, *, num_supports: int, size: int
  ) -> predictions.Predictions:
    padded = np.zeros(
      (mesh_lib.padded_size(size, mesh), features.shape[1]), np.float32
    )
    padded[: len(features)] = features
    decided = _vote(
      jax.device_put(padded, mesh_lib.batch_sharded(mesh)),
      supports,
      labels,
      linear,
      temperature=temperature,
      num_classes=num_classes,
      num_supports=min(num_supports, len(support_bank)),
      in_domain_temperature=in_domain_temperature,
    )
    rows = (np.asarray(x)[: len(features)] for x in decided)
    return _as_predictions(*rows, class_names=class_names)

  return vote


def _as_predictions(
  *rows: np.ndarray, class_names: tuple[str, ...]
) -> predictions.Predictions:
  """Makes predictions of the results of `_vote`."""
  probabilities, classes, entropy, novelty, indices, weights, *known = rows
  return predictions.Predictions(
    probabilities,
    classes,
    entropy,
    novelty,
    indices,
    weights,
    known[0] if known else None,
    class_names,
  )


@jax.jit
def _unit(embeddings: jax.Array) -> jax.Array:
  return losses.normalize(embeddings)


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
  """The fields of `Predictions`, in their order; supports are normalized."""
  highest = jax.lax.Precision.HIGHEST
  similarities = jnp.matmul(
    losses.normalize(features), supports.T, precision=highest
  )
  weights = losses.vote_weights(similarities, temperature=temperature)
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
  nearest, indices = jax.lax.top_k(similarities, max(num_supports, 1))
  decided = (
    probabilities,
    jnp.argmax(probabilities, axis=-1).astype(jnp.int32),
    -losses.negative_entropy(probabilities),
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
