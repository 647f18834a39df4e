"""Soft nearest-neighbor evaluation: every example is counted exactly once.

PAWS-NN of the paper (section 5, 2021): the labelled images are the supports,
with hard labels, and every image is embedded from its evaluation crop.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from paws_jax import augment
from paws_jax import config as config_lib
from paws_jax.models import encoder as encoder_lib
from paws_jax.parallel import mesh as mesh_lib


def last_layer(encoder: Any, crops: jax.Array) -> jax.Array:
  """z, [n, D]: what soft nearest neighbors compare."""
  _, z = encoder(crops, train=False)
  return z


def make_embedders(encoder: Any, **options: Any) -> dict[str, Any]:
  """Makes `Experiment.embed` and `embed_trunk`; options of `make_embedder`."""
  trunk = encoder_lib.trunk_features
  return {
    "embed": make_embedder(encoder, **options),
    "embed_trunk": make_embedder(encoder, layers=trunk, **options),
  }


def make_embedder(
  encoder: Any,
  *,
  view: config_lib.EvalView,
  batch_size: int,
  mesh: jax.sharding.Mesh,
  resize: Callable[[np.ndarray], np.ndarray] = lambda images: images,
  layers: Callable[[Any, jax.Array], jax.Array] = last_layer,
) -> Callable[[Any, Any, np.ndarray], np.ndarray]:
  """Compiles the way from images to embeddings.

  Args:
    encoder: `models.Encoder`.
    view: the evaluation crop and the normalization.
    batch_size: images at once; made a multiple of the devices.
    mesh: images are spread over its devices.
    resize: what the recipe does to images once when they are loaded.
    layers: of (encoder, crops), gives [n, D]; called inside the encoder's
      `apply`. Default z: after the prediction head, if there is one.

  Returns:
    A function of (params, batch_stats, images [n, S, S', Ch] uint8) which gives
    [n, D] float32 on the host. The last batch is padded and the padding
    dropped.
  """
  batch_size = mesh_lib.padded_size(batch_size, mesh)
  whole, spread = mesh_lib.replicated(mesh), mesh_lib.batch_sharded(mesh)
  # Of every batch a process looks only at the images of its own devices.
  mine = mesh_lib.local_rows(batch_size, mesh, mesh_lib.local_devices(mesh))

  # Every process gets all embeddings.
  @jax.jit(in_shardings=(whole, whole, spread), out_shardings=whole)
  def embed_batch(params: Any, stats: Any, images: jax.Array) -> jax.Array:
    size = jnp.asarray(images.shape[1:3], jnp.int32)
    crops = augment.evaluation_view(
      images,
      jnp.broadcast_to(size[None, :], (images.shape[0], 2)),
      resize=view.eval_resize,
      size=view.eval_size,
    )
    crops = augment.normalize(crops, view.mean, view.std)
    return encoder.apply(
      {"params": params, "batch_stats": stats}, crops, method=layers
    )

  def embed(params: Any, batch_stats: Any, images: Any) -> np.ndarray:
    rows: list[Any] = []
    for first in range(0, len(images), batch_size):
      places = mine + first
      there = places < len(images)
      chosen = images[places[there]]
      local = np.zeros((len(mine), *chosen.shape[1:]), chosen.dtype)
      local[there] = chosen
      batch = mesh_lib.from_local_rows(resize(local), mesh)
      rows.append(embed_batch(params, batch_stats, batch))
      # One batch late: the device goes on, and keeps two results at most.
      rows[-2:-1] = [np.array(row) for row in rows[-2:-1]]
    return np.concatenate(rows)[: len(images)]

  return embed
