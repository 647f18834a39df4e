"""Wide residual networks for small images.

Zagoruyko and Komodakis, "Wide Residual Networks", 2016, in the form of the
PAWS paper's CIFAR-10 encoder: normalization before each convolution, biases
in the convolutions, the stride in a block's second convolution, no dropout.
"""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp
from flax import linen as nn

from paws_jax import errors
from paws_jax.models import batch_norm
from paws_jax.models import layers

STEM_WIDTH = 16
STAGE_WIDTHS = (16, 32, 64)


def _conv(
  settings: batch_norm.LayerSettings,
  x: jax.Array,
  features: int,
  kernel: int,
  *,
  stride: int = 1,
  name: str,
) -> jax.Array:
  """Convolves `x` with a bias and symmetric padding."""
  padding = kernel // 2
  init = layers.fan_in_uniform(math.prod((kernel, kernel, x.shape[-1])))
  return nn.Conv(
    features,
    (kernel, kernel),
    strides=stride,
    padding=[(padding, padding)] * 2,
    dtype=settings.dtype,
    param_dtype=settings.param_dtype,
    kernel_init=init,
    bias_init=init,
    name=name,
  )(x)


class WideBlock(nn.Module):
  """A block of two 3x3 convolutions, each after BatchNorm-ReLU, and a shortcut.

  Attributes:
    width: output channels.
    stride: stride of the second convolution.
    settings: settings of all layers.
  """

  width: int
  stride: int
  settings: batch_norm.LayerSettings

  @nn.compact
  def __call__(
    self, x: jax.Array, *, train: bool, mask: jax.Array | None = None
  ) -> jax.Array:
    """Maps [n, h, w, c] to [n, ceil(h / stride), ceil(w / stride), width]."""
    settings = self.settings
    y = layers.relu(settings.batch_norm("bn1")(x, train=train, mask=mask))
    y = _conv(settings, y, self.width, 3, name="conv1")
    y = layers.relu(settings.batch_norm("bn2")(y, train=train, mask=mask))
    y = _conv(settings, y, self.width, 3, stride=self.stride, name="conv2")
    if self.stride != 1 or x.shape[-1] != self.width:
      # Applied to the input of the block, before BatchNorm and ReLU.
      x = _conv(settings, x, self.width, 1, stride=self.stride, name="shortcut")
    return x + y


class WideResNet(nn.Module):
  """The trunk of a wide ResNet, from images to pooled features.

  Attributes:
    depth: number of convolutions and dense layers as the paper counts them,
      6 k + 4 for k blocks in each of the three stages.
    width: factor of the 16, 32 and 64 channels (not of the stem's 16).
    final_momentum: momentum of the running statistics of the last BatchNorm;
      the others have `settings.momentum`.
    settings: settings of all layers.
  """

  depth: int
  width: int
  final_momentum: float
  settings: batch_norm.LayerSettings

  @property
  def num_features(self) -> int:
    """Size d of the pooled features."""
    return STAGE_WIDTHS[-1] * self.width

  @nn.compact
  def __call__(
    self, x: jax.Array, *, train: bool, mask: jax.Array | None = None
  ) -> jax.Array:
    """Embeds images.

    Args:
      x: [n, H, W, C] float, normalized images of any side.
      train: mode of BatchNorm.
      mask: [n] bool, False for rows excluded from the statistics; None: all
        rows are included.

    Returns:
      [n, num_features] float32 (float64 if activations are).

    Raises:
      ValueError: if `depth` is not 6 k + 4.
    """
    num_blocks, rest = divmod(self.depth - 4, 6)
    if rest or num_blocks < 1:
      raise errors.InputError(
        f"depth of a wide ResNet must be 10, 16, 22, ... (6 k + 4),"
        f" got {self.depth}"
      )
    settings = self.settings
    x = _conv(settings, x, STEM_WIDTH, 3, name="conv1")
    for stage, stage_width in enumerate(STAGE_WIDTHS):
      for block in range(num_blocks):
        x = WideBlock(
          width=stage_width * self.width,
          stride=2 if stage > 0 and block == 0 else 1,
          settings=settings,
          name=f"layer{stage + 1}_{block}",
        )(x, train=train, mask=mask)
    x = settings.batch_norm("bn1", momentum=self.final_momentum)(
      x, train=train, mask=mask
    )
    return jnp.mean(layers.relu(x), axis=(1, 2), dtype=settings.output_dtype)
