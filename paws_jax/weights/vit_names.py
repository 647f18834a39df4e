"""Names of vision transformers in files of others, brought to those of timm.

| timm, and here            | facebookresearch   | Hugging Face                |
|---------------------------|--------------------|-----------------------------|
| cls_token, pos_embed      | the same           | embeddings.cls_token ...    |
| reg_token                 | register_tokens,   | embeddings.register_tokens  |
|                           |   storage_tokens   |                             |
| patch_embed.proj          | the same           | patch_embeddings.projection |
| blocks.0.norm1            | the same           | layer.0.layernorm_before    |
| blocks.0.attn.qkv         | the same           | attention.query, key, value |
| blocks.0.mlp.fc1          | the same, mlp.w12  | intermediate.dense, mlp.fc1 |
| blocks.0.ls1.gamma        | the same           | layer_scale1.lambda1        |
| norm                      | the same           | layernorm                   |

DINOv3 has no bias of keys, and timm's files of DINOv3 none of queries and
values: here they are 0. Where timm adds no position to the class token, its
position here is 0.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from collections.abc import Sequence
from typing import Any

import numpy as np

from paws_jax.models import vit
from paws_jax.weights import lazy_arrays

VIT = "vision transformer"
DINOV2 = "DINOv2"
DINOV3 = "DINOv3"
LAYOUTS = (VIT, DINOV2, DINOV3)

_BLOCK = re.compile(r"blocks\.\d+\.")
# Beginnings of names of what the encoder lacks.
UNUSED = ("mask_token", "head.", "classifier.", "pooler.", "rope_embed.")
_MODELS = "vit|dinov2|dinov2_with_registers|dinov3_vit|model|backbone"
# Each is tried, in this order.
_RENAMED = tuple(
  (re.compile(pattern), name)
  for pattern, name in (
    (rf"^(?:(?:{_MODELS})\.)+", ""),
    (r"^embeddings\.", ""),
    (r"^(?:encoder\.)?layers?\.(\d+)\.", r"blocks.\1."),
    (r"^position_embeddings$", "pos_embed"),
    (r"^(?:register_tokens|storage_tokens)$", "reg_token"),
    (r"^patch_embeddings\.(?:projection\.)?", "patch_embed.proj."),
    (r"^layernorm\.", "norm."),
    (r"\.layernorm_before\.", ".norm1."),
    (r"\.layernorm_after\.", ".norm2."),
    (r"\.attention\.attention\.(query|key|value)\.", r".attn.\1."),
    (r"\.attention\.output\.dense\.", ".attn.proj."),
    (r"\.attention\.o_proj\.", ".attn.proj."),
    (r"\.attention\.q_proj\.", ".attn.query."),
    (r"\.attention\.k_proj\.", ".attn.key."),
    (r"\.attention\.v_proj\.", ".attn.value."),
    (r"\.attn\.q_bias$", ".attn.query.bias"),
    (r"\.attn\.v_bias$", ".attn.value.bias"),
    (r"\.intermediate\.dense\.", ".mlp.fc1."),
    (r"^(blocks\.\d+)\.output\.dense\.", r"\1.mlp.fc2."),
    (r"\.mlp\.(?:weights_in|w12)\.", ".mlp.fc1."),
    (r"\.mlp\.(?:weights_out|w3|down_proj)\.", ".mlp.fc2."),
    (r"\.layer_scale(\d)\.lambda1$", r".ls\1.gamma"),
    (r"\.gamma_(\d)$", r".ls\1.gamma"),
  )
)


def is_vit(names: Mapping[str, Any]) -> bool:
  """Whether names are those of a vision transformer."""
  return any(name.rsplit(".", 1)[-1] == "cls_token" for name in names)


def convert(arrays: Mapping[str, Any]) -> tuple[dict[str, Any], str]:
  """Renames the arrays of a vision transformer, and joins those of queries.

  Args:
    arrays: array or `StoredArray` by name, as a file has them.

  Returns:
    The same under timm's names, and VIT, DINOV2 or DINOV3.
  """
  renamed = {_rename(name): array for name, array in arrays.items()}
  blocks = {match[0]: None for name in renamed if (match := _BLOCK.match(name))}
  for block in blocks:
    _join_attention(renamed, f"{block}attn.")
    _join_gate(renamed, f"{block}mlp.")
  position = renamed.get("pos_embed")
  if position is not None and _is_square(position, extra=0):
    renamed["pos_embed"] = _with_class(position)
  if "blocks.0.ls1.gamma" not in renamed:
    return renamed, VIT
  return renamed, DINOV2 if position is not None else DINOV3


def fit_positions(
  arrays: dict[str, Any], shapes: Mapping[str, tuple[int, ...]]
) -> str:
  """Interpolates position embeddings for the number that an encoder has.

  Args:
    arrays: under timm's names; changed.
    shapes: of the encoder's arrays.

  Returns:
    What was done, for the user; "": nothing.
  """
  given, wanted = arrays.get("pos_embed"), shapes.get("pos_embed", ())
  if given is None or len(wanted) != 3 or not _is_square(given, extra=1):
    return ""
  if given.shape == wanted or given.shape[2] != wanted[2]:
    return ""
  before, after = (math.isqrt(n - 1) for n in (given.shape[1], wanted[1]))
  value = np.asarray(given)
  matrix = vit.resize_matrix(before, after)
  patches = value[0, 1:].reshape(before, before, -1).astype(np.float64)
  patches = np.einsum("yh,xw,hwd->yxd", matrix, matrix, patches)
  patches = patches.reshape(1, after * after, -1).astype(value.dtype)
  arrays["pos_embed"] = np.concatenate([value[:, :1], patches], axis=1)
  return (
    f"pos_embed of {before} x {before} patches is interpolated to {after} x "
    f"{after}"
  )


def _rename(name: str) -> str:
  for pattern, new in _RENAMED:
    name = pattern.sub(new, name)
  return name


def _is_square(array: Any, *, extra: int) -> bool:
  """Whether [1, n, d] is of a square of patches, and some tokens more."""
  if len(array.shape) != 3 or array.shape[0] != 1 or array.shape[1] <= extra:
    return False
  patches = array.shape[1] - extra
  return math.isqrt(patches) ** 2 == patches


def _join_attention(arrays: dict[str, Any], block: str) -> None:
  """Makes one array of those of queries, keys and values."""
  parts = [f"{block}{part}" for part in ("query", "key", "value")]
  weight, bias = f"{block}qkv.weight", f"{block}qkv.bias"
  if all(f"{part}.weight" in arrays for part in parts):
    arrays[weight] = _joined([arrays.pop(f"{part}.weight") for part in parts])
  mask = arrays.pop(f"{block}qkv.bias_mask", None)
  if bias not in arrays and weight in arrays:
    like = arrays[weight]
    zeros = np.zeros(like.shape[0] // 3, like.dtype)
    arrays[bias] = _joined(
      [arrays.pop(f"{part}.bias", zeros) for part in parts]
    )
  if bias in arrays and mask is not None:
    arrays[bias] = _masked(arrays[bias], mask)


def _join_gate(arrays: dict[str, Any], block: str) -> None:
  """Makes the first layer of one, or of a gate and what it gates."""
  for kind in ("weight", "bias"):
    names = [f"{block}{name}_proj.{kind}" for name in ("gate", "up")]
    if parts := [arrays.pop(name) for name in names if name in arrays]:
      arrays[f"{block}fc1.{kind}"] = _joined(parts)


def _joined(arrays: Sequence[Any]) -> lazy_arrays.StoredArray:
  """Joins arrays along the first axis."""
  first = arrays[0]
  size = sum(array.shape[0] for array in arrays)
  return lazy_arrays.StoredArray(
    (size, *first.shape[1:]),
    first.dtype,
    lambda: np.concatenate([np.asarray(array) for array in arrays]),
  )


def _masked(bias: Any, mask: Any) -> lazy_arrays.StoredArray:
  """Sets to 0 what a mask excludes: there, a bias may be anything."""

  def read() -> np.ndarray:
    value = np.asarray(bias)
    kept = np.nan_to_num(np.asarray(mask)) != 0
    return np.where(kept, value, np.zeros_like(value))

  return lazy_arrays.StoredArray(bias.shape, bias.dtype, read)


def _with_class(positions: Any) -> lazy_arrays.StoredArray:
  """Puts a position of the class token, 0, before those of the patches."""
  _, patches, dim = positions.shape
  return lazy_arrays.StoredArray(
    (1, patches + 1, dim),
    positions.dtype,
    lambda: np.pad(np.asarray(positions), ((0, 0), (1, 0), (0, 0))),
  )
