"""Projection and prediction heads on top of an encoder's trunk."""

from __future__ import annotations

import jax
from flax import linen as nn

from paws_jax.models import batch_norm
from paws_jax.models import layers


def _dense(
  settings: batch_norm.LayerSettings, x: jax.Array, features: int, *, name: str
) -> jax.Array:
  """Applies a dense layer with PyTorch's default initialization."""
  init = layers.fan_in_uniform(x.shape[-1])
  return nn.Dense(
    features,
    dtype=settings.dtype,
    param_dtype=settings.param_dtype,
    kernel_init=init,
    bias_init=init,
    name=name,
  )(x)


class ProjectionHead(nn.Module):
  """Two Dense-BatchNorm-ReLU layers and a Dense layer.

  (PAWS, Assran et al. 2021, arXiv 2104.13963, section 5.)

  Attributes:
    hidden_dim: units of the two hidden layers.
    output_dim: size of the output.
    settings: settings of all layers.
  """

  hidden_dim: int
  output_dim: int
  settings: batch_norm.LayerSettings

  # Number of Dense-BatchNorm-ReLU layers before the last layer.
  NUM_HIDDEN = 2

  @nn.compact
  def __call__(
    self,
    x: jax.Array,
    *,
    train: bool,
    mask: jax.Array | None = None,
    num_hidden: int | None = None,
  ) -> jax.Array:
    """Applies the head.

    Args:
      x: [n, d].
      train: mode of BatchNorm.
      mask: [n] bool, False for rows excluded from the statistics; None: all
        rows are included.
      num_hidden: number of hidden layers to apply (fine-tuning uses the first);
        None: apply all layers.

    Returns:
      [n, output_dim], or [n, hidden_dim] after a hidden layer, float32
      (float64 if activations are).

    Raises:
      ValueError: `num_hidden` is not None, 1 or 2.
    """
    if num_hidden not in (None, *range(1, self.NUM_HIDDEN + 1)):
      raise ValueError(
        f"num_hidden must be None or 1 to {self.NUM_HIDDEN}, got {num_hidden}"
      )
    settings = self.settings
    for i in range(1, (num_hidden or self.NUM_HIDDEN) + 1):
      x = _dense(settings, x, self.hidden_dim, name=f"fc{i}")
      x = layers.relu(settings.batch_norm(f"bn{i}")(x, train=train, mask=mask))
    if num_hidden is None:
      x = _dense(settings, x, self.output_dim, name="fc3")
    return x.astype(settings.output_dtype)


class PredictionHead(nn.Module):
  """BatchNorm, Dense to a quarter, BatchNorm, ReLU, Dense back.

  It follows the projection head of the ImageNet recipes, for anchors and not
  for targets (PAWS, appendix on implementation).

  Attributes:
    output_dim: size of input and output, at least 4.
    settings: settings of all layers.
  """

  output_dim: int
  settings: batch_norm.LayerSettings

  @nn.compact
  def __call__(
    self, x: jax.Array, *, train: bool, mask: jax.Array | None = None
  ) -> jax.Array:
    """Applies the head to [n, output_dim]; see `ProjectionHead`."""
    settings = self.settings
    # The first BatchNorm accepts any dtype and returns that of activations.
    x = settings.batch_norm("bn1")(x, train=train, mask=mask)
    x = _dense(settings, x, self.output_dim // 4, name="fc1")
    x = layers.relu(settings.batch_norm("bn2")(x, train=train, mask=mask))
    x = _dense(settings, x, self.output_dim, name="fc2")
    return x.astype(settings.output_dtype)
