"""Time of train steps and evaluations, measured on a state of its own."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from paws_jax import text
from paws_jax.distributed import agree
from paws_jax.methods import class_prior
from paws_jax.training import epochs
from paws_jax.training import evaluator
from paws_jax.training import experiment as experiment_lib
from paws_jax.training import intervals
from paws_jax.training import loop
from paws_jax.training import step as step_lib

# Calls of the train step that are not timed: the first are slower, and images
# that were read in advance must be used up. Then calls for as many seconds.
_SKIPPED_CALLS, _LEAST_CALLS, _SECONDS = 3, 3, 5.0
_MOST_CALLS = 1000
# What takes as long is not timed again without compilation.
_LONG_SECONDS = 30.0


@dataclasses.dataclass(frozen=True)
class Times:
  """Measured seconds.

  Attributes:
    compilation: of the train step.
    step: of a step, with reading its images.
    stall: share of that in which the devices waited for images.
    evaluation: of an evaluation while training; 0: there is none.
    epoch_end: of the method's work between two epochs, and within one.
  """

  compilation: float
  step: float
  stall: float
  evaluation: float = 0.0
  epoch_end: float = 0.0


def measure(experiment: experiment_lib.Experiment) -> Times:
  """Compiles and times the train step, an evaluation and the end of an epoch.

  Of several processes all call it; the times are those of process 0.

  Raises:
    errors.BadImageError: an image cannot be read.
    MemoryError: the devices' memory does not suffice.
  """
  trainer, pipeline = experiment.trainer, experiment.pipeline
  per_call = experiment.train.steps_per_call
  state = experiment.initial_state(warm=False)
  start = time.perf_counter()
  jitted = step_lib.make_train_call(trainer, pipeline, per_call)
  call = jitted.lower(state, pipeline.input_shapes(per_call)).compile()
  compilation = time.perf_counter() - start
  try:
    state, step, stall = _time_steps(experiment, call, state)
  finally:
    pipeline.close()
  evaluation = epoch_end = 0.0
  if experiment.eval.every_steps:
    evaluation = _time_evaluation(experiment, state)
  if experiment.epoch_steps:
    epoch_end = _time_twice(
      lambda step: jax.block_until_ready(
        epochs.end_epoch(experiment, state, step)
      ),
      # The estimate of a prior before the first step is made once.
      always=_embeds_once(experiment)
      or class_prior.read(state.extra) is not None,
    )
    epoch_end *= 1 + len(intervals.create(experiment).within_epoch)
  return Times(
    *agree.gather([compilation, step, stall, evaluation, epoch_end])[0]
  )


def _time_steps(
  experiment: experiment_lib.Experiment, call: Any, state: Any
) -> tuple[Any, float, float]:
  """Trains for some seconds, as training does.

  Returns:
    The state; seconds of a step; share of them in which the devices waited.
  """
  pipeline = experiment.pipeline
  # Steps, seconds and waiting at the ends of calls.
  marks: list[tuple[int, float, float]] = []

  def log(step: int, _: Any) -> None:
    marks.append((step, time.perf_counter(), pipeline.stall_seconds))

  def enough() -> bool:
    timed = marks[_SKIPPED_CALLS:]
    if len(timed) <= _LEAST_CALLS:
      return False
    # All processes stop after the same step.
    return agree.gather(timed[-1][1] - timed[0][1] > _SECONDS)[0]

  per_call = experiment.train.steps_per_call
  state = loop.loop(
    call,
    state,
    pipeline,
    first_step=0,
    # Unless it is enough before.
    total_steps=_MOST_CALLS * per_call,
    every=loop.Intervals(per_call=per_call, evaluate=0, save=0, epoch=0),
    hooks=loop.Hooks(
      log=log,
      evaluate=lambda *_: None,
      save=lambda *_: None,
      rescue=lambda *_: None,
      stopping=enough,
      not_finite=lambda *_: None,
      epoch_end=lambda state, _: state,
    ),
  )
  # The metrics of the last call are not fetched a call late, as others are.
  first, last = marks[_SKIPPED_CALLS], marks[-2]
  steps, seconds, stalled = np.subtract(last, first)
  return state, seconds / steps, min(stalled / seconds, 1.0)


def _time_evaluation(
  experiment: experiment_lib.Experiment, state: Any
) -> float:
  judge = evaluator.Evaluator(experiment)

  def evaluate(step: int) -> None:
    judge.monitored_accuracy(state, step)
    judge.pseudo_label_accuracy(state, step)

  return _time_twice(evaluate, always=_embeds_once(experiment))


def _embeds_once(experiment: experiment_lib.Experiment) -> bool:
  """Whether the first call embeds images for all others (a frozen trunk)."""
  return experiment.features_of is not None


def _time_twice(function: Callable[[int], Any], *, always: bool) -> float:
  """Times a function of a step; a second time if the first is short.

  Args:
    function: of 0, and of 1 the second time.
    always: whether the first time says nothing about the others.
  """
  for step in (0, 1):
    start = time.perf_counter()
    function(step)
    seconds = agree.gather(time.perf_counter() - start)[0]
    if seconds > _LONG_SECONDS and not always:
      break
  return seconds


def in_words(seconds: float) -> str:
  """Returns a time in words: "35 ms", "12 s", "4.5 minutes", "3.2 hours"."""
  for unit, size, least in (
    ("days", 86400, 2 * 86400),
    ("hours", 3600, 7200),
    ("minutes", 60, 120),
    ("s", 1, 0.9995),
  ):
    if seconds >= least:
      return f"{text.rounded(seconds / size)} {unit}"
  return f"{text.rounded(1000 * seconds)} ms"
