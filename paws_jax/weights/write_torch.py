"""Writes an encoder as weights for PyTorch, in a safetensors file."""

from __future__ import annotations

import os
import pathlib
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np

from paws_jax import errors
from paws_jax.weights import torch_names

LAYOUTS = ("paws", "timm")
# Channels of the first convolution of timm's and torchvision's ResNets.
_TIMM_STEM = 64


def write_torch(
  variables: Mapping[str, Any],
  path: str | os.PathLike[str],
  *,
  layout: str = "paws",
  head: Mapping[str, Any] | None = None,
) -> list[str]:
  """Writes the weights of an encoder for PyTorch; see docs/interop.md.

  Args:
    variables: {"params", "batch_stats"} of an encoder, of arrays.
    path: path of the file; an existing file is replaced.
    layout: "paws": trunk and heads under the public reference's names; "timm":
      the trunk alone, under torchvision's and timm's names of a ResNet of
      width 1.
    head: kernel [d, K] and bias [K] of a fine-tuned classifier, as in
      `classifier.Classifier`. In "paws" it follows the first layer of the
      projection head as "fc.fc2", and the later layers are omitted; in "timm"
      it is "fc", of an encoder without a projection head.

  Returns:
    The names in the file.

  Raises:
    ValueError: the layout is unknown or does not fit the trunk or head, or the
      package safetensors is missing.
    OSError: the file cannot be written.
  """
  state = torch_state(variables, layout=layout, head=head)
  try:
    import safetensors.numpy
  except ImportError:
    raise errors.InputError(
      "writing PyTorch weights needs the package safetensors: pip install "
      "safetensors"
    ) from None
  path = pathlib.Path(path).expanduser()
  unfinished = path.with_name(f".{path.name}.new")
  try:
    safetensors.numpy.save_file(
      state, unfinished, metadata={"format": "pt", "layout": layout}
    )
  except safetensors.SafetensorError as error:
    raise OSError(f"{path} cannot be written: {error}") from error
  os.replace(unfinished, path)
  return list(state)


def torch_state(
  variables: Mapping[str, Any],
  *,
  layout: str,
  head: Mapping[str, Any] | None = None,
) -> dict[str, np.ndarray]:
  """Returns the arrays that `write_torch` writes, each contiguous."""
  if layout not in LAYOUTS:
    raise errors.InputError(
      f"layout is {layout!r}: it must be one of {', '.join(LAYOUTS)}."
    )
  if layout == "timm":
    variables = _trunk(variables, head)
  state = torch_names.to_torch(jax.device_get(variables))
  if head is not None:
    state = {n: a for n, a in state.items() if not _is_replaced(n)}
    name = "fc" if layout == "timm" else "fc.fc2"
    state[f"{name}.weight"] = np.asarray(head["kernel"]).T
    state[f"{name}.bias"] = np.asarray(head["bias"])
  # safetensors writes the memory of an array as it is, and kernels are
  # transposed views.
  return {name: np.ascontiguousarray(array) for name, array in state.items()}


def _is_replaced(name: str) -> bool:
  """Whether an array is after the first layer of the projection head."""
  return name.startswith(("fc.", "pred.")) and not name.startswith(
    ("fc.fc1.", "fc.bn1.")
  )


def _trunk(
  variables: Mapping[str, Any], head: Mapping[str, Any] | None
) -> dict[str, Any]:
  trunk = variables["params"]["trunk"]
  # The bottleneck blocks of a ResNet-50 have a third convolution.
  if "conv3" not in trunk["layer1_0"]:
    raise errors.InputError(
      "layout 'timm' is for ResNets with bottleneck blocks (resnet50, "
      "resnet101, resnet200), but this encoder has none: use 'paws'."
    )
  stem = trunk["conv1"]["kernel"].shape[-1]
  if stem != _TIMM_STEM:
    raise errors.InputError(
      f"layout 'timm' is for ResNets that start with {_TIMM_STEM} channels "
      f"(width 1), but this encoder starts with {stem}: use 'paws'."
    )
  if head is not None and "projection" in variables["params"]:
    raise errors.InputError(
      "layout 'timm' has the classifier on the trunk, but this one is on a "
      "layer of the projection head: use 'paws', or omit the classifier."
    )
  return {name: {"trunk": tree["trunk"]} for name, tree in variables.items()}
