"""An encoder: trunk, projection head and prediction head."""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from paws_jax.models import heads

# Dense-BatchNorm-ReLU layers of the projection head below the classifier.
NUM_PROJECTION_LAYERS = 1


def head_features(encoder: Any, crops: jax.Array) -> jax.Array:
  """Computes the features [n, d] under a linear classifier.

  After the first layer of the projection head, or the trunk where there is
  none.
  """
  return encoder.features(
    crops, train=False, num_projection_layers=NUM_PROJECTION_LAYERS
  )


def trunk_features(encoder: Any, crops: jax.Array) -> jax.Array:
  """Computes the features [n, d] of the trunk, without the projection head."""
  return encoder.features(crops, train=False)


def with_settings(encoder: Encoder, **changes: Any) -> Encoder:
  """Returns an encoder of which all layers have other settings."""
  parts = {
    name: getattr(encoder, name)
    for name in ("trunk", "projection", "prediction")
  }
  return encoder.clone(
    **{
      name: part.clone(settings=dataclasses.replace(part.settings, **changes))
      for name, part in parts.items()
      if part is not None
    }
  )


class Encoder(nn.Module):
  """A network from images to the embeddings h and z.

  Attributes:
    trunk: images [n, H, W, C] to features [n, d].
    projection: features to h, [n, output_dim]; None: h is the features.
    prediction: h to z, [n, output_dim], or None.
    freeze_bn: whether BatchNorm always uses its running statistics and never
      updates them.
    freeze_trunk: the same of the trunk alone, which gets no gradient either.
    features_of: shape of the images [H, W, Ch] whose features are given in
      their place, [n, 1, 1, d], as a training step with a frozen trunk does;
      None: images are given.
    chunking: how a training step divides the rows that it encodes, see
      `methods.chunks`; None: it encodes them at once.
  """

  trunk: nn.Module
  projection: heads.ProjectionHead | None = None
  prediction: heads.PredictionHead | heads.ProjectionHead | None = None
  freeze_bn: bool = False
  freeze_trunk: bool = False
  features_of: tuple[int, int, int] | None = None
  chunking: Any = None

  def __call__(
    self, images: jax.Array, *, train: bool, mask: jax.Array | None = None
  ) -> tuple[jax.Array, jax.Array]:
    """Embeds images of one size.

    Args:
      images: [n, H, W, C] float, normalized.
      train: whether BatchNorm uses the statistics of the batch, and updates the
        running ones if "batch_stats" is mutable; ignored with `freeze_bn`.
      mask: [n] bool, False for rows excluded from the statistics (padding);
        None: all rows are included.

    Returns:
      (h, z), each [n, output_dim] float32 (float64 if activations are): the
      outputs of projection head and prediction head, not normalized. Without
      a prediction head z is h.

    Raises:
      ValueError: `images` does not have four axes or `mask` is not [n].
    """
    features = self.features(images, train=train, mask=mask)
    return self.project(features, train=train, mask=mask)

  def project(
    self, features: jax.Array, *, train: bool, mask: jax.Array | None = None
  ) -> tuple[jax.Array, jax.Array]:
    """Embeds features [n, d] of the trunk; otherwise as `__call__`."""
    train = train and not self.freeze_bn
    h = features
    if self.projection is not None:
      h = self.projection(features, train=train, mask=mask)
    if self.prediction is None:
      return h, h
    return h, self.prediction(h, train=train, mask=mask)

  def features(
    self,
    images: jax.Array,
    *,
    train: bool,
    mask: jax.Array | None = None,
    num_projection_layers: int = 0,
  ) -> jax.Array:
    """Computes the features under a classifier.

    Use it with `apply(..., method="features")`.

    Args:
      images: [n, H, W, C] float, normalized.
      train: as in `__call__`.
      mask: as in `__call__`.
      num_projection_layers: number of Dense-BatchNorm-ReLU layers of the
        projection head after the trunk: 0, 1 (as in the paper's fine-tuning)
        or 2; without a projection head there are none.

    Returns:
      [n, d] or [n, hidden_dim] float32 (float64 if activations are).
    """
    if images.ndim != 4:
      raise ValueError(f"images must be [n, H, W, C], got {images.shape}")
    train = train and not self.freeze_bn
    features = self._trunk_features(images, train=train, mask=mask)
    if num_projection_layers == 0 or self.projection is None:
      return features
    return self.projection(
      features, train=train, mask=mask, num_hidden=num_projection_layers
    )

  def _trunk_features(
    self, images: jax.Array, *, train: bool, mask: jax.Array | None
  ) -> jax.Array:
    if self.features_of is not None:
      if self.is_initializing():
        self.trunk(jnp.zeros((1, *self.features_of), images.dtype), train=False)
      return images.reshape(images.shape[0], -1)
    if not self.freeze_trunk:
      return self.trunk(images, train=train, mask=mask)
    return jax.lax.stop_gradient(self.trunk(images, train=False))
