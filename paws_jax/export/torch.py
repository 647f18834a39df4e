"""A classifier's weights under PyTorch's names, as safetensors.

DIRECTORY/encoder.safetensors  trunk and heads, as the public reference has them
DIRECTORY/encoder.py           the PyTorch class of these weights
DIRECTORY/timm.safetensors     the trunk alone, of bottleneck ResNets of width 1
DIRECTORY/bank.safetensors     embeddings and labels of the supports that vote
"""

from __future__ import annotations

import dataclasses
import pathlib
from typing import Any

import numpy as np
import safetensors.numpy

from paws_jax.export import program as program_lib
from paws_jax.export import torch_source
from paws_jax.weights import write_torch

ENCODER, TRUNK, BANK = (
  f"{name}.safetensors" for name in ("encoder", "timm", "bank")
)
MODULE = "encoder.py"
# Of what timm and torchvision have under the same names.
_BOTTLENECKS = ("resnet50", "resnet101", "resnet200")


def write(
  program: program_lib.Program, directory: pathlib.Path
) -> dict[str, Any]:
  """Writes the weights; PyTorch is not needed.

  Args:
    program: whose classifier to write.
    directory: an empty one.

  Returns:
    Entries of model.json about these files.

  Raises:
    OSError: when they cannot be written.
  """
  classifier = program.classifier
  head = None
  if classifier.head is not None:
    head = dataclasses.asdict(classifier.head)
  write_torch.write_torch(
    classifier.variables, directory / ENCODER, layout="paws", head=head
  )
  (directory / MODULE).write_text(
    torch_source.text(classifier), encoding="utf-8"
  )
  files = {"format": "safetensors", "encoder": ENCODER, "module": MODULE}
  model = classifier.model
  if model["name"] in _BOTTLENECKS and model["width"] == 1:
    write_torch.write_torch(
      classifier.variables, directory / TRUNK, layout="timm"
    )
    files["trunk"] = TRUNK
  if head is None:
    support_bank = {
      "embeddings": np.ascontiguousarray(classifier.support_bank.embeddings),
      # As PyTorch indexes.
      "labels": np.asarray(classifier.support_bank.labels, np.int64),
    }
    content = safetensors.numpy.save(support_bank, metadata={"format": "pt"})
    (directory / BANK).write_bytes(content)
    files["bank"] = BANK
  return {"input": _input(program), "files": files}


def _input(program: program_lib.Program) -> dict[str, Any]:
  """What the encoder takes: here nothing is inside."""
  settings = program.classifier.preprocessing
  side = settings.large_size
  return {
    "shape": ["b", settings.channels, side, side],
    "dtype": "float32",
    "before": (
      f"{program.interface['input']['before']}; then the evaluation crop as in "
      "preprocessing, and (level / 255 - mean) / std"
    ),
  }
