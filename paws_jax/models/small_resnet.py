"""Residual networks for small images: for a laptop CPU, and that of CIFAR-10.

Basic blocks of He et al., "Deep Residual Learning for Image Recognition", 2016,
with the stride in the first convolution, which saves computation at full
resolution. There are no biases; BatchNorm follows each convolution.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
from flax import linen as nn

from paws_jax.models import batch_norm
from paws_jax.models import layers
from paws_jax.models import resnet


class BasicBlock(nn.Module):
  """A block of two 3x3 convolutions and a shortcut.

  Attributes:
    width: output channels.
    stride: stride of the first convolution.
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
    """Maps [n, h, w, c] to [n, ceil(h / stride), ceil(w / stride), width]."""
    settings, width = self.settings, self.width
    y = resnet.conv(settings, width, 3, stride=self.stride, name="conv1")(x)
    y = layers.relu(settings.batch_norm("bn1")(y, train=train, mask=mask))
    y = resnet.conv(settings, width, 3, name="conv2")(y)
    y = resnet.last_batch_norm(settings, "bn2", self.zero_init_residual)(
      y, train=train, mask=mask
    )
    if self.stride != 1 or x.shape[-1] != width:
      x = resnet.conv(
        settings, width, 1, stride=self.stride, name="downsample_conv"
      )(x)
      x = settings.batch_norm("downsample_bn")(x, train=train, mask=mask)
    return layers.relu(x + y)


class SmallResNet(nn.Module):
  """A trunk of a 3x3 stem and stages of blocks, without max-pooling.

  Attributes:
    stem_width: channels of the stem.
    num_stages: number of stages.
    zero_init_residual: see `BasicBlock`.
    settings: settings of all layers.
    blocks: blocks of each stage.
    keep_first: whether the first stage keeps width and resolution of the stem,
      as that of a ResNet-18; each other one doubles and halves them.
  """

  stem_width: int
  num_stages: int
  zero_init_residual: bool
  settings: batch_norm.LayerSettings
  blocks: int = 1
  keep_first: bool = False

  @property
  def num_features(self) -> int:
    """Size d of the pooled features."""
    return self.stem_width * 2 ** (self.num_stages - self.keep_first)

  @nn.compact
  def __call__(
    self, x: jax.Array, *, train: bool, mask: jax.Array | None = None
  ) -> jax.Array:
    """Embeds images; arguments and result as in `resnet.ResNet`."""
    settings = self.settings
    x = resnet.conv(settings, self.stem_width, 3, name="conv1")(x)
    x = layers.relu(settings.batch_norm("bn1")(x, train=train, mask=mask))
    for stage in range(self.num_stages):
      halvings = stage + 1 - self.keep_first
      for block in range(self.blocks):
        x = BasicBlock(
          width=self.stem_width * 2**halvings,
          stride=2 if halvings and block == 0 else 1,
          zero_init_residual=self.zero_init_residual,
          settings=settings,
          name=f"layer{stage + 1}_{block}",
        )(x, train=train, mask=mask)
    return jnp.mean(x, axis=(1, 2), dtype=settings.output_dtype)
