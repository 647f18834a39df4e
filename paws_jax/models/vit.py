"""Vision transformers with a class token, of three kinds of public weights.

Dosovitskiy et al., "An Image is Worth 16x16 Words", 2021, in the sizes B, L, S
(Touvron et al., "Training data-efficient image transformers", 2021) and g.
DINOv2 (Oquab et al., 2023) adds LayerScale, in size g SwiGLU, and register
tokens (Darcet et al., 2023); DINOv3 (Simeoni et al., 2025) has rotations of
queries and keys instead of position embeddings. Dropout and stochastic depth
are left out.
"""

from __future__ import annotations

import dataclasses
import math

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from paws_jax import errors
from paws_jax.models import batch_norm

# Initial scale of LayerScale, that of DINOv2 and DINOv3.
_LAYER_SCALE = 1e-5
_ROPE_BASE = 100.0
# Of Keys' cubic convolution, as in Pillow and PyTorch with antialiasing.
_CUBIC = -0.5

_init = nn.initializers.truncated_normal(0.02)


@dataclasses.dataclass(frozen=True)
class Shape:
  """The form of a network.

  Attributes:
    patch: side of the square patches in pixels.
    dim: width of the tokens.
    depth: number of blocks.
    heads: of the attention.
    grid: patches of a side for which position embeddings are stored; 0: there
      are rotations of queries and keys instead, as in DINOv3.
    registers: number of register tokens.
    layer_scale: whether the branches of a block have learned scales.
    swiglu: whether the hidden layer is gated, of DINOv2's size.
    epsilon: of LayerNorm.
  """

  patch: int
  dim: int
  depth: int
  heads: int
  grid: int = 14
  registers: int = 0
  layer_scale: bool = False
  swiglu: bool = False
  epsilon: float = 1e-6

  @property
  def hidden_dim(self) -> int:
    """Width of the hidden layer of a block, before a gate."""
    if not self.swiglu:
      return 4 * self.dim
    return (8 * self.dim // 3 + 7) // 8 * 8

  def widened(self, factor: int) -> Shape:
    """Returns the form with so many times as many heads, of the same width."""
    return dataclasses.replace(
      self, dim=self.dim * factor, heads=self.heads * factor
    )


_SIZES = {
  "s": (384, 12, 6),
  "b": (768, 12, 12),
  "l": (1024, 24, 16),
}


def _shapes() -> dict[str, Shape]:
  """Makes the networks by name."""
  # 10,596 parameters with 3 channels: for tests.
  shapes = {"vit_tiny": Shape(4, 24, 1, 2, grid=2)}
  for size, form in _SIZES.items():
    shapes[f"vit_{size}16"] = Shape(16, *form)
  giant = {"g": (1536, 40, 24)}
  for size, form in (_SIZES | giant).items():
    # DINOv2: for images of 518 pixels.
    dinov2 = Shape(14, *form, grid=37, layer_scale=True, swiglu=size == "g")
    shapes[f"vit_{size}14"] = dinov2
    shapes[f"vit_{size}14_reg4"] = dataclasses.replace(dinov2, registers=4)
  for size, form in _SIZES.items():
    shapes[f"vit_{size}16_dinov3"] = Shape(
      16, *form, grid=0, registers=4, layer_scale=True, epsilon=1e-5
    )
  return shapes


SHAPES = _shapes()


def resize_matrix(inputs: int, outputs: int) -> np.ndarray:
  """Weights [outputs, inputs] of bicubic interpolation with antialiasing.

  As `torch.nn.functional.interpolate(..., mode="bicubic", antialias=True)`.
  """
  scale = max(inputs / outputs, 1)
  centers = (np.arange(outputs) + 0.5) * inputs / outputs
  x = np.abs(np.arange(inputs) + 0.5 - centers[:, None]) / scale
  near = ((_CUBIC + 2) * x - (_CUBIC + 3)) * x * x + 1
  far = _CUBIC * (((x - 5) * x + 8) * x - 4)
  weights = np.where(x < 1, near, np.where(x < 2, far, 0))
  return weights / weights.sum(1, keepdims=True)


def resize_positions(embeddings: jax.Array, grid: tuple[int, int]) -> jax.Array:
  """Interpolates position embeddings for another number of patches.

  As DINOv2's networks with registers, and timm, do; those without registers
  differ slightly where facebookresearch's code runs them, without
  antialiasing.

  Args:
    embeddings: [1, 1 + g * g, d], that of the class token first.
    grid: patches of the two sides.

  Returns:
    [1, 1 + height * width, d].
  """
  side = math.isqrt(embeddings.shape[1] - 1)
  if grid == (side, side):
    return embeddings
  rows, columns = (
    jnp.asarray(resize_matrix(side, size), embeddings.dtype) for size in grid
  )
  patches = embeddings[0, 1:].reshape(side, side, -1)
  patches = jnp.einsum(
    "yh,hwd->ywd", rows, patches, precision=jax.lax.Precision.HIGHEST
  )
  patches = jnp.einsum(
    "xw,ywd->yxd", columns, patches, precision=jax.lax.Precision.HIGHEST
  )
  patches = patches.reshape(1, math.prod(grid), -1)
  return jnp.concatenate([embeddings[:, :1], patches], axis=1)


def rotations(grid: tuple[int, int], head_dim: int) -> np.ndarray:
  """Computes cosine and sine [2, patches, head_dim] of DINOv3's rotations."""
  quarter = head_dim // 4
  periods = _ROPE_BASE ** (2 * np.arange(quarter) / (head_dim // 2))
  sides = [2 * (np.arange(size) + 0.5) / size - 1 for size in grid]
  places = np.stack(np.meshgrid(*sides, indexing="ij"), -1).reshape(-1, 2)
  angles = 2 * np.pi * places[:, :, None] / periods
  angles = np.tile(angles.reshape(len(places), -1), 2)
  return np.stack([np.cos(angles), np.sin(angles)])


def _rotate(x: jax.Array, rotation: np.ndarray) -> jax.Array:
  """Rotates the patches among the tokens of x [n, tokens, heads, d]."""
  first = x.shape[1] - rotation.shape[1]
  patches = x[:, first:]
  cosine, sine = (
    jnp.asarray(part, x.dtype)[None, :, None] for part in rotation
  )
  low, high = _halves(patches)
  turned = jnp.concatenate([-high, low], axis=-1)
  patches = patches * cosine + turned * sine
  return jnp.concatenate([x[:, :first], patches], axis=1)


def _halves(x: jax.Array) -> tuple[jax.Array, jax.Array]:
  # Slices, which can be written as ONNX.
  half = x.shape[-1] // 2
  return x[..., :half], x[..., half:]


class LayerScale(nn.Module):
  """A learned factor for each channel, "gamma"."""

  settings: batch_norm.LayerSettings

  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    """Scales tokens [n, t, d]."""
    gamma = self.param(
      "gamma",
      nn.initializers.constant(_LAYER_SCALE),
      x.shape[-1:],
      self.settings.param_dtype,
    )
    return x * gamma.astype(x.dtype)[None, None]


class Block(nn.Module):
  """Attention and two dense layers, each after LayerNorm, with shortcuts.

  Attributes:
    shape: of the network.
    settings: settings of all layers.
  """

  shape: Shape
  settings: batch_norm.LayerSettings

  @nn.compact
  def __call__(
    self, x: jax.Array, rotation: np.ndarray | None = None
  ) -> jax.Array:
    """Maps tokens [n, t, d] to [n, t, d]."""
    for number, branch in enumerate((self._attention, self._mlp), 1):
      y = norm(self.shape, self.settings, f"layer_norm{number}")(x)
      y = branch(y, rotation)
      if self.shape.layer_scale:
        y = LayerScale(self.settings, name=f"ls{number}")(y)
      x = x + y
    return x

  def _dense(self, features: int, name: str) -> nn.Dense:
    return nn.Dense(
      features,
      dtype=self.settings.dtype,
      param_dtype=self.settings.param_dtype,
      kernel_init=_init,
      name=name,
    )

  def _attention(self, x: jax.Array, rotation: np.ndarray | None) -> jax.Array:
    n, tokens, dim = x.shape
    heads = self.shape.heads
    qkv = self._dense(3 * dim, "attn_qkv")(x)
    qkv = qkv.reshape(n, tokens, 3, heads, dim // heads)
    q, k, v = (qkv[:, :, part] for part in range(3))
    if rotation is not None:
      q, k = _rotate(q, rotation), _rotate(k, rotation)
    q = q * (dim // heads) ** -0.5
    scores = jnp.einsum("nqhd,nkhd->nhqk", q, k)
    scores = scores.astype(self.settings.output_dtype)
    weights = jax.nn.softmax(scores, axis=-1).astype(x.dtype)
    y = jnp.einsum("nhqk,nkhd->nqhd", weights, v)
    return self._dense(dim, "attn_proj")(y.reshape(n, tokens, dim))

  def _mlp(self, x: jax.Array, rotation: np.ndarray | None) -> jax.Array:
    del rotation
    hidden = self.shape.hidden_dim
    if self.shape.swiglu:
      gate, y = _halves(self._dense(2 * hidden, "mlp_fc1")(x))
      y = jax.nn.silu(gate) * y
    else:
      y = jax.nn.gelu(self._dense(hidden, "mlp_fc1")(x), approximate=False)
    return self._dense(x.shape[-1], "mlp_fc2")(y)


def norm(
  shape: Shape, settings: batch_norm.LayerSettings, name: str
) -> nn.LayerNorm:
  """Makes a LayerNorm, whose statistics are those of each token."""
  return nn.LayerNorm(
    epsilon=shape.epsilon,
    dtype=settings.dtype,
    param_dtype=settings.param_dtype,
    use_fast_variance=False,
    name=name,
  )


class ViT(nn.Module):
  """The trunk of a vision transformer, from images to the class token.

  Attributes:
    shape: of the network.
    settings: settings of all layers.
  """

  shape: Shape
  settings: batch_norm.LayerSettings

  @property
  def num_features(self) -> int:
    """Size d of the class token."""
    return self.shape.dim

  @nn.compact
  def __call__(
    self, x: jax.Array, *, train: bool, mask: jax.Array | None = None
  ) -> jax.Array:
    """Embeds images.

    Args:
      x: [n, H, W, C] float, normalized images, whose sides are multiples of the
        patch.
      train: ignored, since nothing depends on the other images.
      mask: ignored.

    Returns:
      [n, num_features] float32 (float64 if activations are).

    Raises:
      InputError: a side of the images is no multiple of the patch.
    """
    del train, mask
    shape, settings = self.shape, self.settings
    grid = self._grid(x.shape)
    x = nn.Conv(
      shape.dim,
      (shape.patch, shape.patch),
      strides=shape.patch,
      padding="VALID",
      dtype=settings.dtype,
      param_dtype=settings.param_dtype,
      kernel_init=_init,
      name="patch_embed",
    )(x)
    x = x.reshape(x.shape[0], -1, shape.dim)
    first = [self._tokens("cls_token", 1)]
    if shape.grid:
      positions = self._tokens("pos_embed", 1 + shape.grid**2)
      positions = resize_positions(positions, grid).astype(x.dtype)
      first[0] = first[0].astype(x.dtype) + positions[:, :1]
      x = x + positions[:, 1:]
    if shape.registers:
      first.append(self._tokens("reg_token", shape.registers))
    rows = [jnp.broadcast_to(t, (x.shape[0], *t.shape[1:])) for t in first]
    x = jnp.concatenate([*(t.astype(x.dtype) for t in rows), x], axis=1)
    rotation = None
    if not shape.grid:
      rotation = rotations(grid, shape.dim // shape.heads)
    for number in range(shape.depth):
      x = Block(shape, settings, name=f"blocks_{number}")(x, rotation)
    x = norm(shape, settings, "layer_norm")(x[:, 0])
    return x.astype(settings.output_dtype)

  def _tokens(self, name: str, count: int) -> jax.Array:
    """Returns the parameters of tokens [1, count, d]."""
    size = (1, count, self.shape.dim)
    return self.param(name, _init, size, self.settings.param_dtype)

  def _grid(self, images: tuple[int, ...]) -> tuple[int, int]:
    """Computes the patches of the two sides."""
    _, height, width, _ = images
    patch = self.shape.patch
    if not height or not width or height % patch or width % patch:
      raise errors.InputError(
        f"the network has patches of {patch} x {patch} pixels, but images of "
        f"{height} x {width} pixels came: both sides must be multiples of "
        f"{patch}. They are views.large.size, views.small.size and, where it "
        "is set, views.eval_size of the recipe."
      )
    return height // patch, width // patch
