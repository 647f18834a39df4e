"""Expected time of training, from a few timed steps."""

from __future__ import annotations

import dataclasses
import time
from typing import Any

import numpy as np

from paws_jax.doctor import findings
from paws_jax.training import evaluator
from paws_jax.training import experiment as experiment_lib
from paws_jax.training import loop
from paws_jax.training import step as step_lib

FLAG = "--time_steps"
# Calls of the train step that are not timed: the first are slower, and images
# that were read in advance must be used up. Then calls for as many seconds.
_SKIPPED_CALLS, _LEAST_CALLS, _SECONDS = 3, 3, 5.0
_MOST_CALLS = 1000
# An evaluation that takes as long is not timed again without compilation.
_LONG_SECONDS = 30.0
# Share of waiting for images that is worth a remark.
_STALL = 0.1


@dataclasses.dataclass(frozen=True)
class Times:
  """Measured seconds.

  Attributes:
    compilation: of the train step.
    step: of a step, with reading its images.
    stall: share of that in which the devices waited for images.
    evaluation: of an evaluation while training; 0: there is none.
  """

  compilation: float
  step: float
  stall: float
  evaluation: float


def training_time(
  report: findings.Report, experiment: experiment_lib.Experiment
) -> None:
  """Times steps and an evaluation, and reports how long training takes.

  Args:
    report: receives the findings.
    experiment: of the recipe; its pipeline is closed.

  Raises:
    errors.BadImageError: an image cannot be read.
    MemoryError: the devices' memory does not suffice.
  """
  report.block("Time")
  times = measure(experiment)
  steps, every = experiment.total_steps, experiment.eval.every_steps
  rate = experiment.images_per_step / times.step
  report.say(
    f"compiling the train step takes {duration(times.compilation)}; a step "
    f"takes {duration(times.step)} ({rate:.3g} images a second)"
  )
  if times.stall > _STALL:
    report.say(
      f"in {times.stall:.0%} of that the devices wait for images: more CPU "
      "cores, smaller files or a smaller data.canvas_size help"
    )
  if not experiment.train.epochs:
    report.say("as many epochs as fit in train.minutes are found in this way")
    return
  seconds = times.compilation + steps * times.step
  text = f"{findings.count(steps, 'step')}"
  if every:
    count = steps // every
    seconds += count * times.evaluation
    text += (
      f" and {findings.count(count, 'evaluation')} of "
      f"{duration(times.evaluation)}"
    )
  report.say(
    f"training takes about {duration(seconds)}: {text}, on this machine as it "
    "is now; checkpoints and the results at the end come on top"
  )


def hint(report: findings.Report) -> None:
  """Says how to learn how long training takes."""
  report.say(f"to learn how long training takes, add {FLAG}")


def measure(experiment: experiment_lib.Experiment) -> Times:
  """Compiles and times the train step and an evaluation."""
  trainer, pipeline = experiment.trainer, experiment.pipeline
  per_call = experiment.train.steps_per_call
  state = experiment.initial_state(warm=False)
  start = time.perf_counter()
  call = step_lib.make_train_call(trainer, pipeline, per_call)
  call = call.lower(state, pipeline.input_shapes(per_call)).compile()
  compilation = time.perf_counter() - start
  try:
    state, step, stall = _time_steps(experiment, call, state)
  finally:
    pipeline.close()
  evaluation = 0.0
  if experiment.eval.every_steps:
    evaluation = _time_evaluation(experiment, state)
  return Times(compilation, step, stall, evaluation)


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
    return len(timed) > _LEAST_CALLS and timed[-1][1] - timed[0][1] > _SECONDS

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
  """Times an evaluation; a second one if the first, which compiles, is fast."""
  judge = evaluator.Evaluator(experiment)
  for step in (0, 1):
    start = time.perf_counter()
    judge.monitored_accuracy(state, step)
    judge.pseudo_label_accuracy(state, step)
    seconds = time.perf_counter() - start
    if seconds > _LONG_SECONDS:
      break
  return seconds


def duration(seconds: float) -> str:
  """Returns a time in words: "35 ms", "12 s", "4.5 minutes", "3.2 hours"."""
  for unit, size, least in (
    ("days", 86400, 2 * 86400),
    ("hours", 3600, 7200),
    ("minutes", 60, 120),
    ("s", 1, 1),
  ):
    if seconds >= least:
      return f"{seconds / size:.3g} {unit}"
  return f"{1000 * seconds:.3g} ms"
