"""What is kept of a step whose numbers are not finite, to look into it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp
from etils import epath

from paws_jax import distributed
from paws_jax import experiment as experiment_lib
from paws_jax import metrics
from paws_jax import sharding
from paws_jax import train


def keep(
  workdir: epath.Path,
  state: train.TrainState,
  step: int,
  ids: Mapping[str, Sequence[int]],
) -> None:
  """Writes the state before the step and its images, and says where.

  Args:
    workdir: of the run.
    state: before the step.
    step: its number.
    ids: of `image_ids`.
  """
  directory = workdir / "not_finite" / str(step)
  try:
    directory.mkdir(parents=True, exist_ok=True)
    if distributed.is_main():
      text = json.dumps({"step": step, **ids}) + "\n"
      metrics.replace_text(directory / "sample_ids.json", text)
    with ocp.StandardCheckpointer() as writer:
      writer.save(directory / "state", state, force=True)
  except (OSError, ValueError) as error:
    # What was not finite must still be said, by what follows.
    print(f"state and sample ids could not be kept in {directory}: {error}")
    return
  print(f"state, step and sample ids are kept in {directory}")


def image_ids(
  experiment: experiment_lib.Experiment, inputs: Any, step: int
) -> dict[str, list[int]]:
  """Images of a step, of all devices: those of "support" and "unlabelled"."""
  pipeline = experiment.pipeline

  def ids(inputs):
    batch = pipeline.batch(inputs, step)
    parts = {"support": batch.support, "unlabelled": batch.unlabelled}
    return {name: part.id for name, part in parts.items() if part is not None}

  whole = sharding.replicated(experiment.trainer.mesh)
  found = jax.jit(ids, out_shardings=whole)(inputs)
  return {name: np.asarray(rows).tolist() for name, rows in found.items()}
