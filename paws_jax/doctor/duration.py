"""Expected time of training, from a few timed steps."""

from __future__ import annotations

from paws_jax import text as text_lib
from paws_jax.doctor import findings
from paws_jax.training import experiment as experiment_lib
from paws_jax.training import step_times

FLAG = "--time_steps"
# Share of waiting for images that is worth a remark.
_STALL = 0.1


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
  times, words = step_times.measure(experiment), step_times.in_words
  steps, every = experiment.total_steps, experiment.eval.every_steps
  rate = experiment.images_per_step / times.step
  report.say(
    f"compiling the train step takes {words(times.compilation)}; a step "
    f"takes {words(times.step)} ({text_lib.rounded(rate)} images a second)"
  )
  if times.stall > _STALL:
    report.say(
      f"in {times.stall:.0%} of that the devices wait for images: more CPU "
      "cores, smaller files or a smaller data.canvas_size help"
    )
  if not experiment.train.epochs:
    # The epochs that fit in train.minutes are found in the same way.
    return
  seconds = times.compilation + steps * times.step
  seconds += experiment.train.epochs * times.epoch_end
  text = text_lib.count(steps, "step")
  if every:
    count = steps // every
    seconds += count * times.evaluation
    text += (
      f" and {text_lib.count(count, 'evaluation')} of {words(times.evaluation)}"
    )
  report.say(
    f"training takes about {words(seconds)}: {text}, on this machine as it "
    "is now; checkpoints and the results at the end come on top"
  )


def hint(report: findings.Report) -> None:
  """Says how to learn how long training takes."""
  report.say(f"to learn how long training takes, add {FLAG}")
