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
# The last step of a call, its metrics and its inputs.
_Pending = tuple[int, Any, Any]


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
  # Returns the state to continue with; called at the ends of epochs, and as
  # `Intervals.within_epoch` says.
  epoch_end: Callable[[state_lib.TrainState, int], state_lib.TrainState] = (
    lambda state, step: state
  )


@dataclasses.dataclass(frozen=True)
class Intervals:
  """Steps between what happens at the ends of calls; 0: it never happens.

  `per_call` divides the others. States are evaluated and saved at the end of a
  run, too.
  """

  per_call: int = 1
  evaluate: int = 0
  save: int = 0
  # Of an epoch, after which `Hooks.epoch_end` is called.
  epoch: int = 0
  # Steps within each epoch after which it is called, too.
  within_epoch: tuple[int, ...] = ()


def loop(
  call: Callable[[state_lib.TrainState, Any], Any],
  state: state_lib.TrainState,
  pipeline: Any,
  *,
  first_step: int,
  total_steps: int,
  every: Intervals,
  hooks: Hooks,
  epoch_due: bool = False,
) -> state_lib.TrainState:
  """Trains from `first_step` to `total_steps`, or until asked to stop.

  Metrics are fetched one call late: the host does not wait for the device.

  Args:
    call: a result of `step.make_train_call`.
    state: after `first_step` steps.
    pipeline: returns the inputs of a call.
    first_step: steps taken before.
    total_steps: steps to take in all.
    every: when the hooks are called.
    hooks: see `Hooks`.
    epoch_due: whether an epoch ends before the first step.

  Returns:
    The last state, which has been saved.

  Raises:
    errors.NonFiniteError: loss, gradient or update are not finite.
  """
  pending, step, saved = None, first_step, first_step
  if every.epoch and epoch_due:
    state = hooks.epoch_end(state, step)
  stop = hooks.stopping()
  while step < total_steps and not stop:
    try:
      inputs = pipeline.inputs(step, every.per_call, busy=_busy(pending))
    except Exception:
      _keep_steps(pending, state, hooks, step=step, saved=saved)
      raise
    state, metrics = call(state, inputs)
    _deliver(pending, state, hooks)
    step += every.per_call
    pending = (step, metrics, inputs)
    stop, done = hooks.stopping(), step >= total_steps
    save = stop or done or _due(step, every.save)
    evaluate = done or _due(step, every.evaluate)
    epoch = _ends_epoch(step, every)
    if save or evaluate or epoch:  # Only a state of finite steps is used.
      _deliver(pending, state, hooks)
      pending = None
    if epoch:  # Before saving: a resumed run does not do it again.
      state = _or_rescue(hooks.epoch_end, state, step, hooks)
    if evaluate:
      _or_rescue(hooks.evaluate, state, step, hooks)
    if save:
      saved = step
      hooks.save(state, step)
  return state


def _keep_steps(
  pending: _Pending | None,
  state: state_lib.TrainState,
  hooks: Hooks,
  *,
  step: int,
  saved: int,
) -> None:
  """Saves the steps since the last save; an unreadable image loses none."""
  _deliver(pending, state, hooks)
  if step > saved:
    hooks.rescue(state, step)


def _due(step: int, every: int) -> bool:
  """Whether a step is a multiple of an interval; 0 is no interval."""
  return every > 0 and step % every == 0


def _ends_epoch(step: int, every: Intervals) -> bool:
  """Whether an epoch, or a part of it, ends with a step."""
  if not every.epoch:
    return False
  return step % every.epoch in (0, *every.within_epoch)


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


def _busy(pending: _Pending | None) -> Callable[[], bool]:
  """Returns a check whether the device still computes the pending call."""
  if pending is None:
    return lambda: False
  metrics = jax.tree.leaves(pending[1])
  return lambda: not all(metric.is_ready() for metric in metrics)


def _deliver(
  pending: _Pending | None, state: state_lib.TrainState, hooks: Hooks
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
