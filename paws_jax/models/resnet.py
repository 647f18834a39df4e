"""Residual networks of bottleneck blocks, version 1.5.

He et al., "Deep Residual Learning for Image Recognition", 2016, with the
stride in the 3x3 convolution of a block and not in its first 1x1 (the "v1.5"
of the PAWS paper's networks, section 5).
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
from flax import linen as nn

from paws_jax.models import batch_norm
from paws_jax.models import layers

# Output channels of a block over the channels inside it.
EXPANSION = 4


def conv(
  settings: batch_norm.LayerSettings,
  features: int,
  kernel: int,
  *,
  stride: int = 1,
  name: str,
) -> nn.Conv:
  """Makes a convolution without bias and with symmetric padding.

  For stride 2 and an even side, XLA's "SAME" pads the first side by one less;
  for weights of other frameworks images would be shifted.
  """
  padding = kernel // 2
  return nn.Conv(
    features,
    (kernel, kernel),
    strides=stride,
    padding=[(padding, padding)] * 2,
    use_bias=False,
    dtype=settings.dtype,
    param_dtype=settings.param_dtype,
    kernel_init=layers.he_normal_fan_out,
    name=name,
  )


def last_batch_norm(
  settings: batch_norm.LayerSettings, name: str, zero_init: bool
) -> nn.Module:
  """Makes the last BatchNorm of a residual branch, with scale 0 or 1."""
  scale_init = nn.initializers.zeros if zero_init else nn.initializers.ones
  return settings.batch_norm(name, scale_init=scale_init)


class Bottleneck(nn.Module):
  """A block of 1x1, 3x3 (with the stride) and 1x1 convolutions and a shortcut.

  Attributes:
    width: channels of the 3x3 convolution; the block returns 4 * width.
    stride: of the block.
    zero_init_residual: whether the last scale starts at 0, so that the block is
      its shortcut.
    settings: settings of all layers.
  """

  width: int
  stride: int
  zero_init_residual: bool
  settings: batch_norm.LayerSettings

  @nn.compact
  def __call__(
    self, x: jax.Array, *, train: bool, mask: jax.Array | None = None
  ) -> jax.Array:
    """Maps [n, h, w, c] to [n, ceil(h / stride), ceil(w / stride), 4 width]."""
    settings, width = self.settings, self.width
    out = EXPANSION * width
    y = conv(settings, width, 1, name="conv1")(x)
    y = layers.relu(settings.batch_norm("bn1")(y, train=train, mask=mask))
    y = conv(settings, width, 3, stride=self.stride, name="conv2")(y)
    y = layers.relu(settings.batch_norm("bn2")(y, train=train, mask=mask))
    y = conv(settings, out, 1, name="conv3")(y)
    y = last_batch_norm(settings, "bn3", self.zero_init_residual)(
      y, train=train, mask=mask
    )
    if self.stride != 1 or x.shape[-1] != out:
      x = conv(settings, out, 1, stride=self.stride, name="downsample_conv")(x)
      x = settings.batch_norm("downsample_bn")(x, train=train, mask=mask)
    return layers.relu(x + y)


class ResNet(nn.Module):
  """The trunk of a ResNet, from images to pooled features.

  Attributes:
    stage_sizes: blocks in each stage; ResNet-50 is (3, 4, 6, 3).
    stem_width: channels of the stem and of the first stage's 3x3
      convolutions, doubled at each later stage; ResNet-50 has 64.
    zero_init_residual: see `Bottleneck`.
    settings: settings of all layers.
  """

  stage_sizes: tuple[int, ...]
  stem_width: int
  zero_init_residual: bool
  settings: batch_norm.LayerSettings

  @property
  def num_features(self) -> int:
    """Size d of the pooled features."""
    return EXPANSION * self.stem_width * 2 ** (len(self.stage_sizes) - 1)

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
    """
    settings = self.settings
    x = conv(settings, self.stem_width, 7, stride=2, name="conv1")(x)
    x = layers.relu(settings.batch_norm("bn1")(x, train=train, mask=mask))
    # flax pads the maximum with -inf.
    x = nn.max_pool(x, (3, 3), strides=(2, 2), padding=((1, 1), (1, 1)))
    for stage, num_blocks in enumerate(self.stage_sizes):
      for block in range(num_blocks):
        x = Bottleneck(
          width=self.stem_width * 2**stage,
          stride=2 if stage > 0 and block == 0 else 1,
          zero_init_residual=self.zero_init_residual,
          settings=settings,
          name=f"layer{stage + 1}_{block}",
        )(x, train=train, mask=mask)
    return jnp.mean(x, axis=(1, 2), dtype=settings.output_dtype)
