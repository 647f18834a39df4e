"""A program as StableHLO in `jax.export`'s container, for other processes.

DIRECTORY/model.jax           the program, for CPU, CUDA and TPU
DIRECTORY/weights.safetensors its first argument
"""

from __future__ import annotations

import pathlib
from typing import Any

import jax
import numpy as np
import safetensors.numpy
from jax import export

from paws_jax.export import program as program_lib

PROGRAM, WEIGHTS = "model.jax", "weights.safetensors"


def write(
  program: program_lib.Program, directory: pathlib.Path
) -> dict[str, Any]:
  """Writes the program and its weights.

  Args:
    program: what to write.
    directory: an empty one.

  Returns:
    Entries of model.json about these files.

  Raises:
    OSError: when they cannot be written.
  """
  exported = exported_program(program)
  (directory / PROGRAM).write_bytes(exported.serialize())
  content = safetensors.numpy.save(
    {k: np.ascontiguousarray(w) for k, w in program.weights.items()}
  )
  (directory / WEIGHTS).write_bytes(content)
  return {
    **program.interface,
    "files": {
      "format": "jax.export",
      "program": PROGRAM,
      "weights": WEIGHTS,
      "arguments": ["weights", "images"],
      "platforms": list(exported.platforms),
      "calling_convention_version": exported.calling_convention_version,
    },
  }


def exported_program(program: program_lib.Program) -> export.Exported:
  """Lowers the program for all platforms, for any number of images."""
  (batch,) = export.symbolic_shape("b")
  weights = {
    name: jax.ShapeDtypeStruct(array.shape, array.dtype)
    for name, array in program.weights.items()
  }
  images = jax.ShapeDtypeStruct((batch, *program.image_shape), np.uint8)
  lower = export.export(jax.jit(program.apply), platforms=program_lib.PLATFORMS)
  with program_lib.without_source_paths():
    return lower(weights, images)
