"""Soft nearest-neighbour evaluation: every example is counted exactly once.

PAWS-NN of the paper (section 5, 2021): the labelled images are the supports,
with hard labels, and every image is embedded from its evaluation crop.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from paws_jax import augment
from paws_jax import nearest_neighbours
from paws_jax import sharding

# Two-sided 95 % of the normal distribution.
_Z = 1.959963984540054


def last_layer(encoder: Any, crops: jax.Array) -> jax.Array:
  """z, [n, D]: what soft nearest neighbours compare."""
  _, z = encoder(crops, train=False)
  return z


@dataclasses.dataclass(frozen=True)
class EvalConfig:
  """Section `eval` of a recipe; fields are explained in config.base."""

  every_steps: int
  batch_size: int


def make_embedder(
  encoder: Any,
  *,
  views: augment.ViewsConfig,
  batch_size: int,
  mesh: jax.sharding.Mesh,
  resize: Callable[[np.ndarray], np.ndarray] = lambda images: images,
  layers: Callable[[Any, jax.Array], jax.Array] = last_layer,
) -> Callable[[Any, Any, np.ndarray], np.ndarray]:
  """Compiles the way from images to embeddings.

  Args:
    encoder: `models.Encoder`.
    views: for the evaluation crop and the normalisation.
    batch_size: images at once; made a multiple of the devices.
    mesh: images are spread over its devices.
    resize: what the recipe does to images once when they are loaded.
    layers: of (encoder, crops), gives [n, D]; called inside the encoder's
      `apply`. Default z: after the prediction head, if there is one.

  Returns:
    A function of (params, model_state, images [n, S, S', Ch] uint8) which gives
    [n, D] float32 on the host. The last batch is padded and the padding
    dropped.
  """
  batch_size = sharding.padded_size(batch_size, mesh)
  whole, spread = sharding.replicated(mesh), sharding.batch_sharded(mesh)
  # Of every batch a process looks only at the images of its own devices.
  mine = sharding.local_rows(batch_size, mesh, sharding.local_devices(mesh))

  # Every process gets all embeddings.
  @jax.jit(in_shardings=(whole, whole, spread), out_shardings=whole)
  def embed_batch(params, model_state, images):
    size = jnp.asarray(images.shape[1:3], jnp.int32)
    crops = augment.evaluation_view(
      images,
      jnp.broadcast_to(size[None, :], (images.shape[0], 2)),
      resize=views.eval_resize,
      size=views.large_size,
    )
    crops = augment.normalise(crops, views.mean, views.std)
    return encoder.apply(
      {"params": params, **model_state}, crops, method=layers
    )

  def embed(params, model_state, images):
    rows = []
    for first in range(0, len(images), batch_size):
      places = mine + first
      there = places < len(images)
      chosen = images[places[there]]
      local = np.zeros((len(mine), *chosen.shape[1:]), chosen.dtype)
      local[there] = chosen
      batch = sharding.from_local_rows(resize(local), mesh)
      rows.append(embed_batch(params, model_state, batch))
      # One batch late: the device goes on, and keeps two results at most.
      rows[-2:-1] = [np.array(row) for row in rows[-2:-1]]
    return np.concatenate(rows)[: len(images)]

  return embed


def soft_nn_probabilities(
  queries: np.ndarray,
  supports: np.ndarray,
  support_labels: np.ndarray,
  *,
  num_classes: int,
  temperature: float,
  batch_size: int = 1024,
  leave_one_out: bool = False,
) -> np.ndarray:
  """Class probabilities by a vote of the supports.

  Args:
    queries: [n, D] embeddings.
    supports: [N, D] embeddings.
    support_labels: [N] integers in [0, num_classes).
    num_classes: K.
    temperature: τ > 0.
    batch_size: queries at once; changes nothing but memory. The supports are
      met in chunks, too: see `nearest_neighbours.vote`.
    leave_one_out: query i does not vote for itself; queries are the supports.

  Returns:
    [n, K] on the host.

  Raises:
    ValueError: for shapes that do not fit, none of either, labels outside the
      range, or embeddings that are not finite.
  """
  support_labels = np.asarray(support_labels)
  if len(supports) != len(support_labels):
    raise ValueError(
      f"{len(supports)} supports but {len(support_labels)} support_labels."
    )
  _check_labels("support_labels", support_labels, num_classes)
  for name, rows in (("queries", queries), ("supports", supports)):
    bad = int((~np.isfinite(rows)).any(axis=-1).sum())
    if bad:
      raise ValueError(
        f"{bad} of {len(rows)} {name} have embeddings that are not finite: the "
        "encoder has diverged or is of another recipe."
      )
  if not len(queries) or not len(supports):
    raise ValueError(
      f"{len(queries)} queries and {len(supports)} supports: a vote needs at "
      "least one of each."
    )
  if leave_one_out and (len(supports) < 2 or len(queries) != len(supports)):
    raise ValueError(
      f"leave_one_out needs queries that are the supports, at least 2; got "
      f"{len(queries)} queries and {len(supports)} supports."
    )
  return nearest_neighbours.vote(
    queries,
    supports,
    support_labels,
    num_classes=num_classes,
    temperature=temperature,
    batch_size=batch_size,
    leave_one_out=leave_one_out,
  )


def top_k_accuracy(probs: np.ndarray, labels: np.ndarray, k: int) -> float:
  """Fraction of rows whose label is among the k most probable classes.

  Args:
    probs: [n, K].
    labels: [n] integers in [0, K).
    k: with K < k every row counts as right.

  Returns:
    A fraction in [0, 1]. Of equally probable classes the lower number wins.
  """
  order = np.argsort(-probs, axis=-1, kind="stable")[:, :k]
  return float((order == np.asarray(labels)[:, None]).any(axis=-1).mean())


def soft_nn_accuracy(
  queries: np.ndarray,
  query_labels: np.ndarray,
  supports: np.ndarray,
  support_labels: np.ndarray,
  *,
  num_classes: int,
  temperature: float,
  batch_size: int = 1024,
  leave_one_out: bool = False,
) -> dict[str, float]:
  """Top-1 and top-5 accuracy of soft nearest neighbours.

  Args:
    queries: [n, D] embeddings.
    query_labels: [n] integers in [0, num_classes).
    supports: [N, D] embeddings.
    support_labels: [N] integers in [0, num_classes).
    num_classes: K.
    temperature: τ > 0.
    batch_size: queries at once; changes nothing but memory.
    leave_one_out: see `soft_nn_probabilities`.

  Returns:
    {"top1", "top5"}: fractions in [0, 1].

  Raises:
    ValueError: see `soft_nn_probabilities`; also for no queries, or labels that
      do not fit the queries.
  """
  query_labels = np.asarray(query_labels)
  if len(queries) != len(query_labels) or not len(queries):
    raise ValueError(
      f"{len(queries)} queries but {len(query_labels)} query_labels: give one "
      "label per query, and at least one."
    )
  _check_labels("query_labels", query_labels, num_classes)
  probs = soft_nn_probabilities(
    queries,
    supports,
    support_labels,
    num_classes=num_classes,
    temperature=temperature,
    batch_size=batch_size,
    leave_one_out=leave_one_out,
  )
  return {f"top{k}": top_k_accuracy(probs, query_labels, k) for k in (1, 5)}


def confidence_interval(fraction: float, count: int) -> tuple[float, float]:
  """Wilson's 95 % interval of a fraction measured on `count` examples.

  It holds for small counts and near 0 and 1 (Wilson, 1927).
  """
  centre = fraction + _Z**2 / (2 * count)
  half = _Z * math.sqrt(
    fraction * (1 - fraction) / count + _Z**2 / (4 * count**2)
  )
  scale = 1 + _Z**2 / count
  return max(0.0, (centre - half) / scale), min(1.0, (centre + half) / scale)


def _check_labels(name: str, labels: np.ndarray, num_classes: int) -> None:
  if len(labels) and not 0 <= labels.min() <= labels.max() < num_classes:
    raise ValueError(
      f"{name} lie in [{labels.min()}, {labels.max()}], outside [0, "
      f"{num_classes})."
    )
