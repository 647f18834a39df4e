"""State and images of a step whose numbers are not finite, for debugging."""

from __future__ import annotations

import json
from collections.abc import Mapping
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp
from etils import epath

from paws_jax.distributed import lifecycle
from paws_jax.parallel import mesh
from paws_jax.runs import files
from paws_jax.training import experiment as experiment_lib
from paws_jax.training import state as state_lib


def keep(
  workdir: epath.Path,
  state: state_lib.TrainState,
  step: int,
  ids: Mapping[str, Sequence[int]],
) -> None:
  """Writes the state before the step and its image ids; prints where.

  Args:
    workdir: of the run.
    state: before the step.
    step: its number.
    ids: a result of `image_ids`.
  """
  directory = workdir / "not_finite" / str(step)
  try:
    directory.mkdir(parents=True, exist_ok=True)
    if lifecycle.is_main():
      text = json.dumps({"step": step, **ids}) + "\n"
      files.replace_output(directory / "sample_ids.json", text)
    with ocp.StandardCheckpointer() as writer:
      writer.save(directory / "state", state, force=True)
  except (OSError, ValueError) as error:
    # The caller still reports the number that is not finite.
    print(f"state and sample ids could not be kept in {directory}: {error}")
    return
  print(f"state, step and sample ids are kept in {directory}")


def image_ids(
  experiment: experiment_lib.Experiment, inputs: Any, step: int
) -> dict[str, list[int]]:
  """Returns image ids of a step on all devices, "support" and "unlabelled"."""
  pipeline = experiment.pipeline

  def ids(inputs: Any) -> dict[str, jax.Array]:
    batch = pipeline.batch(inputs, step)
    parts = {"support": batch.support, "unlabelled": batch.unlabelled}
    return {name: part.id for name, part in parts.items() if part is not None}

  replicated = mesh.replicated(experiment.trainer.mesh)
  found = jax.jit(ids, out_shardings=replicated)(inputs)
  return {name: np.asarray(rows).tolist() for name, rows in found.items()}
