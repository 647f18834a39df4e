"""The training loop around the compiled step."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np

from paws_jax import errors
from paws_jax.training import state as state_lib

# Metrics that stop the run when they are not finite.
_MUST_BE_FINITE = ("loss", "grad_norm", "update_norm")


@dataclasses.dataclass(frozen=True)
class Hooks:
  """Functions that the loop calls between two calls of the train step."""

  # Logs metrics [k] of the k steps up to a given one; all are finite.
  log: Callable[[int, Mapping[str, np.ndarray]], None]
  evaluate: Callable[[state_lib.TrainState, int], None]
  save: Callable[[state_lib.TrainState, int], None]
  # Whether the run has been asked to stop; called before and after each call.
  stopping: Callable[[], bool]
  # Saves before an error that other processes may not have.
  rescue: Callable[[state_lib.TrainState, int], None]
  # Receives the state, step and inputs when a number is not finite.
  not_finite: Callable[[state_lib.TrainState, int, Any], None]
  # Returns the state to continue with; called at multiples of `epoch_steps`.
  epoch_end: Callable[[state_lib.TrainState, int], state_lib.TrainState] = (
    lambda state, step: state
  )


def loop(
  call: Callable[[state_lib.TrainState, Any], Any],
  state: state_lib.TrainState,
  pipeline: Any,
  *,
  first_step: int,
  total_steps: int,
  steps_per_call: int,
  eval_every: int,
  save_every: int,
  epoch_steps: int = 0,
  epoch_due: bool = False,
  hooks: Hooks,
) -> state_lib.TrainState:
  """Trains from `first_step` to `total_steps`, or until asked to stop.

  Metrics are fetched one call late, so that the host never waits for the
  device while there is work to submit.

  Args:
    call: a result of `step.make_train_call`.
    state: after `first_step` steps.
    pipeline: returns the inputs of a call.
    first_step: steps taken before.
    total_steps: steps to take in all.
    steps_per_call: steps in one `call`; divides the other numbers.
    eval_every: steps between evaluations; 0: at the end only.
    save_every: steps between checkpoints; 0: at the end only.
    epoch_steps: steps between calls of `hooks.epoch_end`; 0: it is never
      called.
    epoch_due: whether to call it before the first step.
    hooks: see `Hooks`.

  Returns:
    The last state, which has been saved.

  Raises:
    errors.NonFiniteError: when the loss, or the norm of the gradient or of the
      update, is not finite.
  """
  pending = None
  step = first_step
  saved = first_step
  if epoch_steps and epoch_due:
    state = hooks.epoch_end(state, step)
  stop = hooks.stopping()
  while step < total_steps and not stop:
    try:
      inputs = pipeline.inputs(step, steps_per_call, busy=_busy(pending))
    except Exception:
      # An image that cannot be read loses no steps.
      _deliver(pending, state, hooks)
      if step > saved:
        hooks.rescue(state, step)
      raise
    state, metrics = call(state, inputs)
    _deliver(pending, state, hooks)
    step += steps_per_call
    pending = (step, metrics, inputs)
    stop = hooks.stopping()
    last = stop or step >= total_steps
    save = last or (save_every and step % save_every == 0)
    evaluate = step >= total_steps or (eval_every and step % eval_every == 0)
    epoch = epoch_steps and step % epoch_steps == 0
    if not (save or evaluate or epoch):
      continue
    # A state is used or saved only when its steps are known to be finite.
    _deliver(pending, state, hooks)
    pending = None
    if epoch:
      # Before the state is saved: a resumed run does not do it again.
      state = _or_rescue(hooks.epoch_end, state, step, hooks)
    if evaluate:
      _or_rescue(hooks.evaluate, state, step, hooks)
    if save:
      saved = step
      hooks.save(state, step)
  return state


def _or_rescue(
  hook: Callable[[state_lib.TrainState, int], Any],
  state: state_lib.TrainState,
  step: int,
  hooks: Hooks,
) -> Any:
  """Calls a hook; saves the state where that fails, so that no step is lost."""
  try:
    return hook(state, step)
  except Exception:
    hooks.rescue(state, step)
    raise


def _busy(pending: tuple | None) -> Callable[[], bool]:
  """Returns a check whether the device still computes the pending call."""
  if pending is None:
    return lambda: False
  metrics = jax.tree.leaves(pending[1])
  return lambda: not all(metric.is_ready() for metric in metrics)


def _deliver(
  pending: tuple | None, state: state_lib.TrainState, hooks: Hooks
) -> None:
  """Fetches and logs the metrics of a call; refuses numbers not finite."""
  if pending is None:
    return
  last_step, metrics, inputs = pending
  metrics = jax.device_get(metrics)
  finite = np.all([np.isfinite(metrics[name]) for name in _MUST_BE_FINITE], 0)
  good = len(finite) if finite.all() else int(np.argmin(finite))
  first = last_step - len(finite)
  if good:
    hooks.log(first + good, {k: v[:good] for k, v in metrics.items()})
  if good < len(finite):
    hooks.not_finite(state, first + good, inputs)
    name = next(
      name for name in _MUST_BE_FINITE if not np.isfinite(metrics[name][good])
    )
    raise errors.NonFiniteError(
      f"{name} is {metrics[name][good]} at step {first + good}. The state "
      "before that step was kept; lower optim.peak_lr, lengthen "
      "optim.warmup_epochs or inspect the images of the step."
    )
