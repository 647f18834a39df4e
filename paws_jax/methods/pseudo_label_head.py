"""A head that gives images a class: trained in rounds, apart from the encoder.

It stands on unit embeddings of labelled images, which a table holds. A round is
a fresh run of SGD from the weights of the round before; no gradient reaches the
encoder.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax

from paws_jax.models import batch_norm
from paws_jax.models import heads

_MOMENTUM = 0.9
_WEIGHT_DECAY = 1e-4
# Of the learning rate after each of `drops`.
_DROP = 0.1

# {"params", "batch_stats"} of the head.
Variables = dict[str, Any]


class Round(NamedTuple):
  """The result of a round."""

  variables: Variables
  # [epochs · batches of an epoch], NaN for batches without enough rows.
  losses: jax.Array
  # bool scalar, whether there were rows for one batch.
  trained: jax.Array


def create(
  key: jax.Array, width: int, num_classes: int, dtype: Any
) -> Variables:
  """Draws the weights of a head for embeddings of `width`."""
  module = _module(width, num_classes, dtype)
  variables = module.init(key, jnp.zeros((1, width), dtype), train=False)
  return {
    "params": variables["params"],
    "batch_stats": variables["batch_stats"],
  }


def logits(variables: Variables, embeddings: jax.Array) -> jax.Array:
  """Computes the classes' logits [n, K] of embeddings [n, D]."""
  return _apply(variables, embeddings, train=False)


def draw_orders(
  key: jax.Array, filled: jax.Array, num_epochs: int
) -> jax.Array:
  """Draws an order of the rows for each epoch, filled ones first: [E, n]."""

  def draw(key: jax.Array) -> jax.Array:
    draws = jax.random.uniform(key, filled.shape)
    return jnp.argsort(jnp.where(filled, draws, 2))

  return jax.vmap(draw)(jax.random.split(key, num_epochs))


@functools.partial(
  jax.jit, static_argnames=("batch_size", "learning_rate", "drops")
)
def train_round(
  variables: Variables,
  embeddings: jax.Array,
  labels: jax.Array,
  filled: jax.Array,
  orders: jax.Array,
  *,
  batch_size: int,
  learning_rate: float,
  drops: Sequence[int],
) -> Round:
  """Trains the head on the filled rows of a table.

  Args:
    variables: of the round before.
    embeddings: [n, D].
    labels: [n] integers.
    filled: [n] bool, rows that there are.
    orders: [E, n], of each epoch the rows, filled ones first.
    batch_size: rows of a step; the rest of an epoch is left out.
    learning_rate: of the first epochs.
    drops: epochs after which the learning rate falls to a tenth.
  """
  num_epochs, num_rows = orders.shape
  num_batches = num_rows // batch_size
  # Entire batches of filled rows.
  usable = jnp.sum(filled) // batch_size
  batches = orders[:, : num_batches * batch_size]
  batches = batches.reshape(num_epochs * num_batches, batch_size)
  numbers = jnp.tile(jnp.arange(num_batches), num_epochs)
  epochs = jnp.repeat(jnp.arange(num_epochs), num_batches)

  def step(
    carry: tuple[Variables, Any], inputs: tuple[jax.Array, ...]
  ) -> tuple[tuple[Variables, Any], jax.Array]:
    rows, number, epoch = inputs
    rate: jax.Array | float = learning_rate
    for drop in drops:
      rate = rate * jnp.where(epoch >= drop, _DROP, 1.0)
    new, value = _step(*carry, embeddings[rows], labels[rows], rate)
    enough = number < usable
    kept = jax.tree.map(lambda a, b: jnp.where(enough, a, b), new, carry)
    return kept, jnp.where(enough, value, jnp.nan)

  start = variables, jax.tree.map(jnp.zeros_like, variables["params"])
  (variables, _), losses = jax.lax.scan(step, start, (batches, numbers, epochs))
  return Round(variables, losses, usable > 0)


def _step(
  variables: Variables,
  velocity: Any,
  embeddings: jax.Array,
  labels: jax.Array,
  rate: jax.Array | float,
) -> tuple[tuple[Variables, Any], jax.Array]:
  """Takes a step of SGD: ((variables, velocity) after it, loss before it)."""

  def loss(params: Any) -> tuple[jax.Array, Any]:
    logits, stats = _apply(
      {**variables, "params": params}, embeddings, train=True
    )
    each = optax.softmax_cross_entropy_with_integer_labels(logits, labels)
    return jnp.mean(each), stats

  params = variables["params"]
  (value, stats), grads = jax.value_and_grad(loss, has_aux=True)(params)
  velocity = jax.tree.map(
    lambda v, g, w: _MOMENTUM * v + g + _WEIGHT_DECAY * w,
    velocity,
    grads,
    params,
  )
  params = jax.tree.map(
    lambda w, v: w - jnp.asarray(rate, w.dtype) * v, params, velocity
  )
  return ({"params": params, "batch_stats": stats}, velocity), value


def _module(width: int, num_classes: int, dtype: Any) -> heads.ProjectionHead:
  settings = batch_norm.LayerSettings(
    momentum=0.9, dtype=dtype, param_dtype=dtype
  )
  return heads.ProjectionHead(
    hidden_dim=2 * width,
    output_dim=num_classes,
    settings=settings,
    num_layers=2,
  )


def _apply(variables: Variables, embeddings: jax.Array, *, train: bool) -> Any:
  """Applies the head; in training mode returns its new statistics, too."""
  kernel = variables["params"]["fc2"]["kernel"]
  module = _module(embeddings.shape[-1], kernel.shape[-1], kernel.dtype)
  if not train:
    return module.apply(variables, embeddings, train=False)
  result, updated = module.apply(
    variables, embeddings, train=True, mutable=["batch_stats"]
  )
  return result, updated["batch_stats"]
