"""An encoder: trunk, projection head and prediction head."""

from __future__ import annotations

from typing import Any

import jax
from flax import linen as nn

from paws_jax.models import heads

# Dense-BatchNorm-ReLU layers of the projection head below the classifier.
NUM_PROJECTION_LAYERS = 1


def head_features(encoder: Any, crops: jax.Array) -> jax.Array:
  """What the linear layer stands on, [n, d]; `layers` of an embedder."""
  return encoder.features(
    crops, train=False, num_projection_layers=NUM_PROJECTION_LAYERS
  )


class Encoder(nn.Module):
  """Images to the embeddings h and z.

  Attributes:
    trunk: images [n, H, W, C] to features [n, d].
    projection: features to h, [n, output_dim].
    prediction: h to z, [n, output_dim], or None.
    freeze_bn: `train=True` too uses the running statistics, and updates none.
  """

  trunk: nn.Module
  projection: heads.ProjectionHead
  prediction: heads.PredictionHead | None = None
  freeze_bn: bool = False

  def __call__(
    self, images: jax.Array, *, train: bool, mask: jax.Array | None = None
  ) -> tuple[jax.Array, jax.Array]:
    """Embeds images of one size.

    Args:
      images: [n, H, W, C] float, normalised.
      train: BatchNorm uses the batch's statistics, and updates the running
        ones if "batch_stats" is mutable; not with `freeze_bn`.
      mask: [n] bool, False for rows left out of the statistics (padding);
        None: all in.

    Returns:
      (h, z), each [n, output_dim] float32 (float64 if activations are): after
      the projection head and after the prediction head. Without a prediction
      head z is h. Not normalised.

    Raises:
      ValueError: if `images` has not four axes or `mask` is not [n].
    """
    features = self.features(images, train=train, mask=mask)
    train = train and not self.freeze_bn
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
    """What a classifier is put on: use with `apply(..., method="features")`.

    Args:
      images: [n, H, W, C] float, normalised.
      train: as in `__call__`.
      mask: as in `__call__`.
      num_projection_layers: 0 for the trunk's features, 1 or 2 to pass them
        through so many Dense-BatchNorm-ReLU layers of the projection head
        (the paper fine-tunes on 1).

    Returns:
      [n, d] or [n, hidden_dim] float32 (float64 if activations are).
    """
    if images.ndim != 4:
      raise ValueError(f"images must be [n, H, W, C], got {images.shape}")
    train = train and not self.freeze_bn
    features = self.trunk(images, train=train, mask=mask)
    if num_projection_layers == 0:
      return features
    return self.projection(
      features, train=train, mask=mask, num_hidden=num_projection_layers
    )
