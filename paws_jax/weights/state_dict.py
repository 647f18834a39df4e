"""The encoder in a file of weights, and its layout.

| layout        | trunk          | fc.*                              | pred.* |
|---------------|----------------|-----------------------------------|--------|
| PAWS          | conv1, layer.. | the projection head: fc1 bn1 ..fc3 | if any |
| fine-tuned    | the same       | fc1, bn1, then a classifier       | no     |
| torchvision,  | the same       | weight, bias: a classifier, or    | no     |
|   timm        |                | nothing                           |        |
| EfficientNet  | _conv_stem ... | _fc: a classifier                 | no     |
| transformers  | see            | no; "head", "pooler" and so on    | no     |
|               |   vit_names    |   are not used                    |        |

In a public PAWS checkpoint the encoder is one entry among others, and its names
start with "module.".
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np

from paws_jax import errors
from paws_jax import text
from paws_jax.weights import lazy_arrays
from paws_jax.weights import torch_names
from paws_jax.weights import vit_names

PAWS = "PAWS"
FINETUNED = "fine-tuned PAWS"
CLASSIFIER = "torchvision or timm"
EFFICIENTNET = "EfficientNet"
TRUNK = "trunk only"

# Entries under which training scripts save the encoder, in this order.
_ENTRIES = ("encoder", "state_dict", "model", "model_state_dict", "net")
# Prefixes of names, from wrappers of the encoder.
_PREFIXES = ("module.", "_orig_mod.")
_LISTED = 8


@dataclasses.dataclass(frozen=True)
class StateDict:
  """The weights of an encoder under PyTorch's names.

  Attributes:
    arrays: array or `StoredArray` by name, without counters.
    layout: PAWS, FINETUNED, CLASSIFIER, EFFICIENTNET, TRUNK, or one of
      `vit_names.LAYOUTS`.
  """

  arrays: Mapping[str, Any]
  layout: str

  @property
  def heads(self) -> frozenset[str]:
    """The heads that the file must hold: "projection", "prediction".

    For a fine-tuned encoder "projection/fc1" and "projection/bn1".
    """
    if self.layout == FINETUNED:
      return frozenset({"projection/fc1", "projection/bn1"})
    heads = {"projection"} if self.layout == PAWS else set()
    if self.names("pred."):
      heads.add("prediction")
    return frozenset(heads)

  def names(self, prefix: str) -> list[str]:
    """Returns the names with a prefix."""
    return [name for name in self.arrays if name.startswith(prefix)]

  def classifier_names(self) -> list[str]:
    """Returns the names of a classifier, which the encoder lacks."""
    if self.layout == PAWS:
      return []
    if self.layout in vit_names.LAYOUTS:
      return [name for name in self.arrays if name.startswith(vit_names.UNUSED)]
    kept = ("fc.fc1", "fc.bn1") if self.layout == FINETUNED else ()
    names = self.names("fc.") + self.names("_fc.")
    return [name for name in names if name.rsplit(".", 1)[0] not in kept]


def find(tree: Any) -> StateDict:
  """Finds the encoder among the contents of a file.

  Args:
    tree: contents, from `open_file.open_weights`.

  Raises:
    WeightsError: there is no encoder; lists the contents.
  """
  arrays = _encoder(tree)
  renamed = {_without_prefixes(name): value for name, value in arrays.items()}
  if len(renamed) < len(arrays):
    raise errors.WeightsError(
      "some names occur twice, with and without 'module.'"
    )
  return from_arrays(renamed)


def from_arrays(arrays: Mapping[str, Any]) -> StateDict:
  """Recognizes the layout by the names."""
  arrays = {
    name: value
    for name, value in arrays.items()
    if name.rsplit(".", 1)[-1] != torch_names.COUNTER
  }
  kind = ""
  if vit_names.is_vit(arrays):
    arrays, kind = vit_names.convert(arrays)
  if any(name.startswith(("fc.fc3.", "pred.")) for name in arrays):
    layout = PAWS
  elif any(name.startswith("fc.fc1.") for name in arrays):
    layout = FINETUNED
  elif kind:
    layout = kind
  elif any(name.startswith("fc.") for name in arrays):
    layout = CLASSIFIER
  elif any(name.startswith("_fc.") for name in arrays):
    layout = EFFICIENTNET
  else:
    layout = TRUNK
  return StateDict(arrays=arrays, layout=layout)


def _encoder(tree: Any) -> Mapping[str, Any]:
  """Finds the dict of arrays in a tree of dicts."""
  if not isinstance(tree, Mapping):
    raise errors.WeightsError(
      f"it holds a {type(tree).__name__}, not a dict of tensors"
    )
  for entry in _ENTRIES:
    if _is_state_dict(tree.get(entry)):
      return tree[entry]
  if _is_state_dict(tree):
    return tree
  there = text.first_few(map(text.printable, tree), most=_LISTED) or "nothing"
  raise errors.WeightsError(
    f"none of its entries is a dict of tensors called "
    f"{', '.join(_ENTRIES)}; it holds {there}"
  )


def _is_state_dict(value: Any) -> bool:
  return (
    isinstance(value, Mapping)
    and bool(value)
    and all(
      isinstance(name, str)
      and isinstance(array, (lazy_arrays.StoredArray, np.ndarray))
      for name, array in value.items()
    )
  )


def _without_prefixes(name: str) -> str:
  for prefix in _PREFIXES:
    name = name.removeprefix(prefix)
  return name
