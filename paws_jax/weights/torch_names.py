"""Conversion of weights from and to names and layouts of PyTorch; numpy only.

| here                                | PyTorch's state dict               |
|-------------------------------------|------------------------------------|
| trunk/layer1_0/conv1/kernel         | layer1.0.conv1.weight              |
| trunk/layer1_0/downsample_conv, _bn | layer1.0.downsample.0, .1          |
| trunk/layer1_0/shortcut             | layer1.0.shortcut.0                |
| trunk/block_0/norm1 (EfficientNet)  | _blocks.0._bn1                     |
| trunk/.../depthwise_conv and so on  | ..._depthwise_conv                 |
| trunk/blocks_0/layer_norm1 (ViT)    | blocks.0.norm1, as timm            |
| trunk/patch_embed, .../attn_qkv     | patch_embed.proj, ...attn.qkv      |
| trunk/cls_token, pos_embed, ls1     | cls_token, pos_embed, ls1          |
| projection/fc1, prediction/fc1      | fc.fc1, pred.fc1                   |
| kernel HWIO, or [in, out]           | weight OIHW, or [out, in]          |
| scale; bias; mean; var              | weight; bias; running_mean, _var   |
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from collections.abc import Mapping
from typing import Any

import numpy as np

from paws_jax import errors

# Parts of an encoder, and the prefix of their names in PyTorch.
PARTS = {"trunk": (), "projection": ("fc",), "prediction": ("pred",)}
_MODULES = {
  "downsample_conv": "downsample.0",
  "downsample_bn": "downsample.1",
  "shortcut": "shortcut.0",
  # Names of EfficientNets, which do not occur in ResNets.
  "norm0": "_bn0",
  "norm1": "_bn1",
  "norm2": "_bn2",
  "conv_stem": "_conv_stem",
  "conv_head": "_conv_head",
  "expand_conv": "_expand_conv",
  "depthwise_conv": "_depthwise_conv",
  "project_conv": "_project_conv",
  # Of vision transformers.
  "patch_embed": "patch_embed.proj",
  "layer_norm": "norm",
  "layer_norm1": "norm1",
  "layer_norm2": "norm2",
  "attn_qkv": "attn.qkv",
  "attn_proj": "attn.proj",
  "mlp_fc1": "mlp.fc1",
  "mlp_fc2": "mlp.fc2",
}
_NUMBERED = (
  (re.compile(r"^(layer\d+)_(\d+)$"), r"\1.\2"),
  (re.compile(r"^block_(\d+)$"), r"_blocks.\1"),
  (re.compile(r"^blocks_(\d+)$"), r"blocks.\1"),
)
_LEAVES = {
  "kernel": "weight",
  "scale": "weight",
  "bias": "bias",
  "mean": "running_mean",
  "var": "running_var",
  # Tokens [1, t, d] and scales [d] of vision transformers.
  **{name: name for name in ("cls_token", "pos_embed", "reg_token", "gamma")},
}
# Last part of the names of BatchNorm's counters, which do not exist here.
COUNTER = "num_batches_tracked"


def from_torch(
  state: Mapping[str, np.ndarray], template: Mapping[str, Any]
) -> dict[str, Any]:
  """Converts the weights of a PyTorch encoder to variables.

  Args:
    state: state dict of a PyTorch encoder as numpy arrays. Counters
      (`num_batches_tracked`) are ignored.
    template: {"params": ..., "batch_stats": ...} of the encoder to fill, as
      arrays or `jax.ShapeDtypeStruct`s, which give shapes and dtypes.

  Returns:
    A tree like `template` of numpy arrays.

  Raises:
    ValueError: tensors are missing, unknown or of another shape; lists them
      by name, with shapes in PyTorch's layout.
  """
  wanted_shapes = shapes(template)
  given = {name for name in state if name.rsplit(".", 1)[-1] != COUNTER}
  missing = [name for name in wanted_shapes if name not in given]
  problems = [f"missing: {name}" for name in missing]
  problems += [
    f"unknown: {name}" for name in sorted(given - set(wanted_shapes))
  ]
  for name, wanted in wanted_shapes.items():
    if name in given and tuple(np.shape(state[name])) != wanted:
      problems.append(
        f"shape of {name}: given {tuple(np.shape(state[name]))},"
        f" the encoder has {wanted}"
      )
  if problems:
    raise errors.InputError(
      "the PyTorch weights do not fit this encoder:\n  " + "\n  ".join(problems)
    )
  variables: dict[str, Any] = {}
  for name, path, leaf in _walk(template):
    node = variables
    for key in path[:-1]:
      node = node.setdefault(key, {})
    node[path[-1]] = _from_torch_layout(np.asarray(state[name])).astype(
      leaf.dtype
    )
  return variables


def shapes(template: Mapping[str, Any]) -> dict[str, tuple[int, ...]]:
  """Returns the shapes of an encoder's arrays in PyTorch, by their names."""
  return {name: _torch_shape(leaf.shape) for name, _, leaf in _walk(template)}


def to_torch(variables: Mapping[str, Any]) -> dict[str, np.ndarray]:
  """Converts variables of an encoder to PyTorch's names and layouts.

  `num_batches_tracked` is omitted; `load_state_dict` accepts a plain dict
  without it.

  Args:
    variables: {"params": ..., "batch_stats": ...}, or one of the two, of
      arrays. For a tree of gradients pass {"params": gradients}.

  Returns:
    Arrays by name, in the dtype of `variables`.
  """
  return {
    name: _to_torch_layout(np.asarray(leaf))
    for name, _, leaf in _walk(variables)
  }


def _walk(
  variables: Mapping[str, Any],
) -> Iterator[tuple[str, tuple[str, ...], Any]]:
  """Yields (name in PyTorch, path here, leaf)."""
  for collection in variables:
    for path, leaf in _leaves(variables[collection]):
      yield _torch_name(path), (collection, *path), leaf


def _leaves(
  tree: Mapping[str, Any], path: tuple[str, ...] = ()
) -> Iterator[tuple[tuple[str, ...], Any]]:
  for key, node in tree.items():
    if isinstance(node, Mapping):
      yield from _leaves(node, (*path, key))
    else:
      yield (*path, key), node


def _torch_name(path: tuple[str, ...]) -> str:
  """Maps ("trunk", "layer1_0", "bn1", "scale") to "layer1.0.bn1.weight"."""
  part, *modules, leaf = path
  if part not in PARTS or leaf not in _LEAVES:
    raise errors.InputError(
      f"{'/'.join(path)} is not a variable of an encoder: expected"
      f" {' or '.join(PARTS)}/.../{' or '.join(_LEAVES)}"
    )
  names = [_module_name(module) for module in modules]
  return ".".join([*PARTS[part], *names, _LEAVES[leaf]])


def _module_name(module: str) -> str:
  for pattern, name in _NUMBERED:
    module = pattern.sub(name, module)
  return _MODULES.get(module, module)


def _torch_shape(shape: tuple[int, ...]) -> tuple[int, ...]:
  if len(shape) == 4:
    height, width, inputs, outputs = shape
    return outputs, inputs, height, width
  return shape if len(shape) == 3 else tuple(reversed(shape))


def _to_torch_layout(array: np.ndarray) -> np.ndarray:
  if array.ndim == 3:
    return array
  return array.transpose((3, 2, 0, 1)) if array.ndim == 4 else array.T


def _from_torch_layout(array: np.ndarray) -> np.ndarray:
  if array.ndim == 3:
    return array
  return array.transpose((2, 3, 1, 0)) if array.ndim == 4 else array.T
