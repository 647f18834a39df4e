"""Projection and prediction heads on top of an encoder's trunk."""

from __future__ import annotations

import jax
from flax import linen as nn

from paws_jax.models import batch_norm
from paws_jax.models import layers


def _dense(
  settings: batch_norm.LayerSettings,
  x: jax.Array,
  features: int,
  *,
  name: str,
  use_bias: bool = True,
) -> jax.Array:
  """Applies a dense layer with PyTorch's default initialization."""
  init = layers.fan_in_uniform(x.shape[-1])
  return nn.Dense(
    features,
    use_bias=use_bias,
    dtype=settings.dtype,
    param_dtype=settings.param_dtype,
    kernel_init=init,
    bias_init=init,
    name=name,
  )(x)


class ProjectionHead(nn.Module):
  """Dense-BatchNorm-ReLU layers and a Dense layer.

  Two hidden layers are PAWS's head (Assran et al. 2021, arXiv 2104.13963,
  section 5); the other forms are those of MoCo, BYOL, SimSiam and SwAV, and of
  the prediction heads of BYOL and SimSiam.

  Attributes:
    hidden_dim: units of the hidden layers.
    output_dim: size of the output.
    settings: settings of all layers.
    num_layers: number of Dense layers, at least 2: "fc1", "fc2", ...
    norm: whether BatchNorm follows hidden layers.
    bias: Dense layers with a bias: "all", "hidden", "last" or "none".
    final_norm: whether a BatchNorm without scale and bias follows the last
      layer.
  """

  hidden_dim: int
  output_dim: int
  settings: batch_norm.LayerSettings
  num_layers: int = 3
  norm: bool = True
  bias: str = "all"
  final_norm: bool = False

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
      ValueError: `num_hidden` is neither None nor that of a hidden layer.
    """
    settings, last = self.settings, self.num_layers
    if num_hidden not in (None, *range(1, last)):
      raise ValueError(
        f"num_hidden must be None or 1 to {last - 1}, got {num_hidden}"
      )
    for i in range(1, (num_hidden or last - 1) + 1):
      bias = self.bias in ("all", "hidden")
      x = _dense(settings, x, self.hidden_dim, name=f"fc{i}", use_bias=bias)
      if self.norm:
        x = settings.batch_norm(f"bn{i}")(x, train=train, mask=mask)
      x = layers.relu(x)
    if num_hidden is None:
      bias = self.bias in ("all", "last")
      x = _dense(settings, x, self.output_dim, name=f"fc{last}", use_bias=bias)
      if self.final_norm:
        norm = settings.batch_norm(f"bn{last}", affine=False)
        x = norm(x, train=train, mask=mask)
    return x.astype(settings.output_dtype)


class PredictionHead(nn.Module):
  """BatchNorm, Dense to a quarter, BatchNorm, ReLU, Dense back.

  It follows the projection head of PAWS's ImageNet recipes, for anchors and not
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
