"""EfficientNet-Lite: small networks with public ImageNet weights.

Inverted residual blocks (Sandler et al., "MobileNetV2", 2018) scaled as in Tan
and Le, "EfficientNet", 2019, without squeeze-and-excitation and with ReLU6: the
"Lite" networks of Google, 2020, for devices without a GPU. As there, a
convolution of stride 2 pads the end of an even side by one more than its start.
Stochastic depth, with which the public weights were trained, is left out.
"""

from __future__ import annotations

import dataclasses
import functools
import math

import jax
import jax.numpy as jnp
from flax import linen as nn

from paws_jax.models import batch_norm
from paws_jax.models import layers

_EPSILON = 1e-3
_STEM_WIDTH = 32
_HEAD_WIDTH = 1280


@dataclasses.dataclass(frozen=True)
class Stage:
  """Blocks of one width.

  Attributes:
    repeats: number of blocks.
    kernel: side of the depthwise filters.
    stride: of the first block.
    expansion: channels inside a block over its input channels.
    width: output channels.
  """

  repeats: int
  kernel: int
  stride: int
  expansion: int
  width: int


def stages(repeats: str, widths: tuple[int, ...]) -> tuple[Stage, ...]:
  """Makes the seven stages of a network: repeats as digits, output channels."""
  return tuple(
    Stage(int(number), kernel, stride, expansion, width)
    for number, kernel, stride, expansion, width in zip(
      repeats,
      (3, 3, 5, 3, 5, 5, 3),
      (1, 2, 2, 2, 1, 2, 1),
      (1, 6, 6, 6, 6, 6, 6),
      widths,
      strict=True,
    )
  )


STAGES = {
  "efficientnet_lite0": stages("1223341", (16, 24, 40, 80, 112, 192, 320)),
  "efficientnet_lite1": stages("1334451", (16, 24, 40, 80, 112, 192, 320)),
  "efficientnet_lite2": stages("1334451", (16, 24, 48, 88, 120, 208, 352)),
}


def relu6(x: jax.Array) -> jax.Array:
  """Computes min(max(x, 0), 6); the gradient is 0 at both ends."""
  return jnp.where(x >= 6, 6, layers.relu(x))


def depthwise(x: jax.Array, kernel: jax.Array, stride: int) -> jax.Array:
  """Filters each channel by itself, with padding as "SAME" of TensorFlow.

  XLA's CPU backend takes 8 to 11 times as long for a convolution of as many
  groups as channels as for the sum of k * k products of shifted images (three
  layers, 8 images of 160 pixels, two cores, JAX 0.10.2), so a program for a CPU
  computes the sum.

  Args:
    x: [n, h, w, c] of any float dtype.
    kernel: [k, k, 1, c] of the same dtype.
    stride: of both axes.

  Returns:
    [n, ceil(h / stride), ceil(w / stride), c].
  """
  return jax.lax.platform_dependent(
    x,
    kernel,
    cpu=functools.partial(shifted_products, stride=stride),
    default=functools.partial(grouped_convolution, stride=stride),
  )


def grouped_convolution(
  x: jax.Array, kernel: jax.Array, *, stride: int
) -> jax.Array:
  """Computes `depthwise` as a convolution with a group for each channel."""
  return jax.lax.conv_general_dilated(
    x,
    kernel,
    (stride, stride),
    "SAME",
    dimension_numbers=("NHWC", "HWIO", "NHWC"),
    feature_group_count=x.shape[-1],
  )


def shifted_products(
  x: jax.Array, kernel: jax.Array, *, stride: int
) -> jax.Array:
  """Computes `depthwise` as a sum of products of shifted images."""
  sides = x.shape[1:3]
  window = kernel.shape[:2]
  pads = jax.lax.padtype_to_pads(sides, window, (stride, stride), "SAME")
  padded = jnp.pad(x, [(0, 0), *pads, (0, 0)])
  height, width = (math.ceil(side / stride) for side in sides)
  total = jnp.zeros((1,) * 4, x.dtype)
  for row in range(window[0]):
    for column in range(window[1]):
      shifted = padded[
        :,
        row : row + stride * (height - 1) + 1 : stride,
        column : column + stride * (width - 1) + 1 : stride,
      ]
      total += shifted * kernel[row : row + 1, column : column + 1]
  return total


class DepthwiseConv(nn.Module):
  """A depthwise convolution without bias.

  Attributes:
    kernel: side of the filters.
    stride: of both axes.
    settings: settings of all layers.
  """

  kernel: int
  stride: int
  settings: batch_norm.LayerSettings

  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    """Maps [n, h, w, c] to [n, ceil(h / stride), ceil(w / stride), c]."""
    kernel = self.param(
      "kernel",
      layers.he_normal_fan_in,
      (self.kernel, self.kernel, 1, x.shape[-1]),
      self.settings.param_dtype,
    )
    dtype = self.settings.dtype
    return depthwise(x.astype(dtype), kernel.astype(dtype), self.stride)


def _conv(
  settings: batch_norm.LayerSettings,
  features: int,
  name: str,
  *,
  kernel: int = 1,
  stride: int = 1,
) -> nn.Conv:
  return nn.Conv(
    features,
    (kernel, kernel),
    strides=stride,
    padding="SAME",
    use_bias=False,
    dtype=settings.dtype,
    param_dtype=settings.param_dtype,
    kernel_init=layers.he_normal_fan_out,
    name=name,
  )


class InvertedResidual(nn.Module):
  """A block: 1x1 to more channels, depthwise, 1x1 to `width` without ReLU6.

  Attributes:
    kernel: side of the depthwise filters.
    stride: of the block.
    expansion: channels inside over input channels; 1: no first convolution.
    width: output channels.
    settings: settings of all layers.
  """

  kernel: int
  stride: int
  expansion: int
  width: int
  settings: batch_norm.LayerSettings

  @nn.compact
  def __call__(
    self, x: jax.Array, *, train: bool, mask: jax.Array | None = None
  ) -> jax.Array:
    """Maps [n, h, w, c] to [n, ceil(h / stride), ceil(w / stride), width]."""
    settings = self.settings

    def norm(name: str, y: jax.Array) -> jax.Array:
      layer = settings.batch_norm(name, epsilon=_EPSILON)
      return layer(y, train=train, mask=mask)

    y = x
    if self.expansion > 1:
      y = _conv(settings, x.shape[-1] * self.expansion, "expand_conv")(y)
      y = relu6(norm("norm0", y))
    y = DepthwiseConv(
      self.kernel, self.stride, settings, name="depthwise_conv"
    )(y)
    y = relu6(norm("norm1", y))
    y = norm("norm2", _conv(settings, self.width, "project_conv")(y))
    keeps_shape = self.stride == 1 and x.shape[-1] == self.width
    return x + y if keeps_shape else y


class EfficientNetLite(nn.Module):
  """A trunk of inverted residual blocks.

  Attributes:
    stages: of blocks, in order.
    width: multiplies the channels of all layers.
    settings: settings of all layers.
  """

  stages: tuple[Stage, ...]
  width: int
  settings: batch_norm.LayerSettings

  @property
  def num_features(self) -> int:
    """Size d of the pooled features."""
    return _HEAD_WIDTH * self.width

  @nn.compact
  def __call__(
    self, x: jax.Array, *, train: bool, mask: jax.Array | None = None
  ) -> jax.Array:
    """Embeds images; arguments and result as in `resnet.ResNet`."""
    settings = self.settings

    def norm(name: str, y: jax.Array) -> jax.Array:
      layer = settings.batch_norm(name, epsilon=_EPSILON)
      return relu6(layer(y, train=train, mask=mask))

    stem = _STEM_WIDTH * self.width
    x = _conv(settings, stem, "conv_stem", kernel=3, stride=2)(x)
    x = norm("norm0", x)
    number = 0
    for stage in self.stages:
      for repeat in range(stage.repeats):
        x = InvertedResidual(
          kernel=stage.kernel,
          stride=1 if repeat else stage.stride,
          expansion=stage.expansion,
          width=stage.width * self.width,
          settings=settings,
          name=f"block_{number}",
        )(x, train=train, mask=mask)
        number += 1
    x = norm("norm1", _conv(settings, self.num_features, "conv_head")(x))
    return jnp.mean(x, axis=(1, 2), dtype=settings.output_dtype)
