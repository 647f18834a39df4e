"""The training loop of a run that is not saved before its end."""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Mapping
from typing import Any

import numpy as np

from paws_jax.runs import progress as progress_lib
from paws_jax.training import loop
from paws_jax.training import state as state_lib


def run(
  call: Callable[[state_lib.TrainState, Any], Any],
  state: state_lib.TrainState,
  pipeline: Any,
  *,
  total_steps: int,
  steps_per_epoch: int,
  images_per_step: int,
  after_epoch: Callable[[state_lib.TrainState, int], None] | None = None,
) -> state_lib.TrainState:
  """Takes all steps from the first one, then closes the pipeline.

  Args:
    call: takes a step, a result of `step.make_train_call`.
    state: at step 0; its memory is given away.
    pipeline: returns the inputs of a call.
    total_steps: to take.
    steps_per_epoch: of the pipeline.
    images_per_step: for the rate that is shown.
    after_epoch: called with state and step after every epoch.

  Raises:
    errors.NonFiniteError: loss, gradient or update are not finite.
    errors.BadImageError: an image cannot be read.
  """
  progress = progress_lib.Progress(
    total_steps=total_steps, first_step=0, images_per_step=images_per_step
  )

  def log(step: int, values: Mapping[str, np.ndarray]) -> None:
    progress.show(step, {name: float(v[-1]) for name, v in values.items()})

  def evaluate(state: state_lib.TrainState, step: int) -> None:
    if after_epoch is not None:
      with progress.paused():
        after_epoch(state, step)

  def nothing(*unused: Any) -> None:
    """The run is kept when it has ended, not before."""

  try:
    return loop.loop(
      call,
      state,
      pipeline,
      first_step=0,
      total_steps=total_steps,
      every=loop.Intervals(evaluate=steps_per_epoch),
      hooks=loop.Hooks(
        log=log,
        evaluate=evaluate,
        save=nothing,
        stopping=lambda: False,
        rescue=nothing,
        not_finite=nothing,
      ),
    )
  finally:
    progress.end()
    pipeline.close()
