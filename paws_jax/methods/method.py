"""What all methods share: their section, and a pass through the encoder.

A method is a frozen dataclass with

  views(config)                  -> the crops it needs, as a ViewsConfig
  init(key, batch)               -> (params, model_state)
  state_specs                    -> PartitionSpecs of model_state inside
                                    `shard_map`; so far it is stored replicated
  loss(params, model_state, batch, *, step, key)
                                 -> (loss, (metrics, model_state))

`loss` sees one device's rows inside `shard_map` and returns global values.
"""

from __future__ import annotations

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp

from paws_jax import data
from paws_jax import losses

Params = Any
ModelState = Any

_REMAT_POLICIES = {
  "dots": jax.checkpoint_policies.dots_saveable,
  "all": jax.checkpoint_policies.nothing_saveable,
}


@dataclasses.dataclass(frozen=True)
class MethodConfig:
  """Section `method` of a recipe; fields are explained in config.base."""

  name: str
  temperature: float
  sharpen_temperature: float
  me_max: bool
  support_loss_weight: float


def init_encoder(
  encoder: Any, key: jax.Array, images: jax.Array
) -> tuple[Params, ModelState]:
  """Initialises an encoder for images [n, H, W, Ch]."""
  variables = dict(encoder.init(key, images[:1], train=False))
  params = variables.pop("params")
  return params, variables


def encode(
  encoder: Any,
  params: Params,
  model_state: ModelState,
  images: jax.Array,
  *,
  mask: jax.Array | None = None,
  remat: str = "none",
) -> tuple[jax.Array, jax.Array, ModelState]:
  """Encodes one BatchNorm batch in training mode.

  Args:
    encoder: `models.Encoder`.
    params: its parameters.
    model_state: its batch statistics.
    images: [n, H, W, Ch].
    mask: [n] bool, rows that count in the batch statistics; None: all.
    remat: see config.base.

  Returns:
    h [n, D] and z [n, D], before and after the prediction head, and the updated
    statistics.
  """

  def apply(params, model_state, images):
    return encoder.apply(
      {"params": params, **model_state},
      images,
      train=True,
      mask=mask,
      mutable=list(model_state),
    )

  if remat != "none":
    apply = jax.checkpoint(apply, policy=_REMAT_POLICIES[remat])
  (h, z), model_state = apply(params, model_state, images)
  return h, z, model_state


def fold_views(views: jax.Array) -> jax.Array:
  """[n, V, ...] -> [n·V, ...], image-major: no device has to move anything."""
  return views.reshape(-1, *views.shape[2:])


def view_major(rows: jax.Array, num_views: int) -> jax.Array:
  """[n·V, D] image-major -> [V·n, D] view-major."""
  by_image = rows.reshape(-1, num_views, rows.shape[-1])
  return by_image.swapaxes(0, 1).reshape(rows.shape)


def support_views_mask(batch: data.Views) -> jax.Array | None:
  """[N·V] bool for the folded support views of a device; None: all count."""
  if batch.support_mask is None:
    return None
  return jnp.repeat(batch.support_mask, batch.support.shape[1])


def support_rows(batch: data.Views, *, smoothing: float) -> jax.Array:
  """[N·V, C] label rows of all support views of all devices, image-major."""
  labels = jnp.repeat(batch.support_labels, batch.support.shape[1])
  return losses.label_rows(labels, batch.class_ids, smoothing=smoothing)


def gather_supports(
  embeddings: jax.Array, batch: data.Views, axis_name: Any
) -> jax.Array:
  """Collects the support embeddings of all devices, without the padding.

  Args:
    embeddings: [n_local·V, D].
    batch: the step's views.
    axis_name: mesh axes, or None outside `shard_map`.

  Returns:
    [N·V, D] in the order of `support_rows`.
  """
  if axis_name is not None:
    # The step's one all-gather; its transpose is a reduce-scatter.
    embeddings = jax.lax.all_gather(embeddings, axis_name, tiled=True)
  return _without_padding(embeddings, batch)


def gather_supports_beside(
  embeddings: jax.Array,
  constants: jax.Array,
  batch: data.Views,
  axis_name: Any,
) -> tuple[jax.Array, jax.Array]:
  """`gather_supports` of two arrays at once, of which one needs no gradient.

  Args:
    embeddings: [n_local·V, D].
    constants: [n_local·V, D]; no gradient goes through it.
    batch: the step's views.
    axis_name: mesh axes, or None outside `shard_map`.

  Returns:
    Two arrays [N·V, D].
  """
  constants = jax.lax.stop_gradient(constants)
  if axis_name is not None:
    embeddings, constants = _gather_both(axis_name, embeddings, constants)
  return (
    _without_padding(embeddings, batch),
    _without_padding(constants, batch),
  )


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _gather_both(
  axis_name: Any, embeddings: jax.Array, constants: jax.Array
) -> tuple[jax.Array, jax.Array]:
  """Side by side, so that it is one all-gather."""
  both = jnp.concatenate([embeddings, constants], axis=-1)
  both = jax.lax.all_gather(both, axis_name, tiled=True)
  return tuple(jnp.split(both, 2, axis=-1))


def _gather_both_forward(axis_name, embeddings, constants):
  return _gather_both(axis_name, embeddings, constants), None


def _gather_both_backward(axis_name, unused_residual, gradients):
  """The transpose, but for the half that would carry zeros back."""
  gradient = jax.lax.psum_scatter(gradients[0], axis_name, tiled=True)
  return gradient, jnp.zeros_like(gradient)


_gather_both.defvjp(_gather_both_forward, _gather_both_backward)


def _without_padding(rows: jax.Array, batch: data.Views) -> jax.Array:
  """Padding is at the end."""
  num_views = batch.support.shape[1]
  return rows[: batch.support_labels.shape[0] * num_views]
