"""A training run in one process, and the hooks of its loop."""

from __future__ import annotations

import dataclasses
import functools
import signal
import time
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np
from etils import epath

from paws_jax import config as config_lib
from paws_jax.config import upgrade
from paws_jax.distributed import agree
from paws_jax.distributed import lifecycle
from paws_jax.monitoring import comparison
from paws_jax.monitoring import monitor
from paws_jax.monitoring import reference_curves
from paws_jax.plots import training_figure
from paws_jax.runs import checkpoint
from paws_jax.runs import metrics
from paws_jax.runs import progress
from paws_jax.runs import provenance
from paws_jax.runs import results
from paws_jax.runs import signals as signals_lib
from paws_jax.training import bad_images
from paws_jax.training import checkpoints
from paws_jax.training import epochs
from paws_jax.training import estimated_prior
from paws_jax.training import evaluator
from paws_jax.training import experiment as experiment_lib
from paws_jax.training import failed_step
from paws_jax.training import health
from paws_jax.training import intervals
from paws_jax.training import loop
from paws_jax.training import measure
from paws_jax.training import run_log
from paws_jax.training import save_classifier
from paws_jax.training import state as state_lib
from paws_jax.training import step as step_lib


@dataclasses.dataclass(frozen=True)
class PretrainInputs:
  """A checked recipe, its parts and its directory.

  Attributes:
    recipe: the recipe.
    workdir: of the run.
    experiment: built from the recipe.
    reference: curves to compare the run with, if any.
  """

  recipe: config_lib.Recipe
  workdir: epath.Path
  experiment: experiment_lib.Experiment
  reference: reference_curves.Reference | None = None


class TrainingRun:
  """A run from its newest checkpoint to its end, or to a signal.

  Attributes:
    step: steps taken, those of earlier processes included.
  """

  def __init__(
    self,
    prepared: PretrainInputs,
    checkpointer: checkpoint.Checkpointer,
    signals: signals_lib.Signals,
  ):
    """Starts at step 0 or at the newest checkpoint."""
    self._opened = time.perf_counter()
    self._prepared = prepared
    self._experiment = prepared.experiment
    self._checkpointer = checkpointer
    self._signals = signals
    self._stop_notice = lifecycle.StopNotice()
    self._compile_seconds = 0.0
    self._bad_images = bad_images.BadImages(
      prepared.experiment, prepared.workdir
    )
    self._evaluator = evaluator.Evaluator(prepared.experiment)
    # Seconds of waiting for images, and of training, at the last `_stall`.
    self._last_stall = (prepared.experiment.pipeline.stall_seconds, 0.0)
    self.step, self._state, meta = self._start()
    # Whether the method's work between two epochs has not been done yet.
    acts = self._experiment.epoch_steps > 0
    self._epoch_due = acts and meta.get("epoch_due", self.step == 0)
    self._earlier = measure.Spent(**meta["spent"])
    self._means = metrics.StepMeans(
      self._experiment.log.every_steps, meta["pending_metrics"]
    )
    # Set when training starts.
    self._progress: progress.Progress
    self._writer: run_log.RunLog | None = None
    self._monitor = monitor.Monitor(
      health.facts(prepared.recipe, prepared.experiment)
    )

  def __enter__(self) -> TrainingRun:
    return self

  def __exit__(self, kind: type[BaseException] | None, *_: Any) -> None:
    """Closes metrics.jsonl and the loggers."""
    if self._writer is not None:
      done = self.step >= self._experiment.total_steps
      self._writer.close(failed=kind is not None, done=done)

  def _start(self) -> tuple[int, state_lib.TrainState, dict[str, Any]]:
    """Restores the newest checkpoint, or creates the state at step 0."""
    experiment = self._experiment
    if self._checkpointer.steps():
      restored = checkpoints.restore_latest(
        self._checkpointer, experiment.trainer, experiment.state_shapes()
      )
      assert restored is not None
      print(f"resuming from the checkpoint of step {restored[0]}")
      return restored
    # Of several processes all list the checkpoints.
    agree.agree(checkpoints="[]")
    return 0, experiment.initial_state(), {"spent": {}, "pending_metrics": []}

  def train(self) -> None:
    """Compiles the train step and runs the loop."""
    experiment = self._experiment
    call = step_lib.make_train_call(
      experiment.trainer,
      experiment.pipeline,
      experiment.train.steps_per_call,
    )
    self._open_log()
    if self.step < experiment.total_steps:
      call = self._compile(call)
    self._progress = progress.Progress(
      total_steps=experiment.total_steps,
      first_step=self.step,
      images_per_step=experiment.images_per_step,
      losses=experiment.trainer.method.shown_losses,
    )
    try:
      self._state = loop.loop(
        call,
        self._state,
        experiment.pipeline,
        first_step=self.step,
        total_steps=experiment.total_steps,
        every=intervals.create(experiment),
        epoch_due=self._epoch_due,
        hooks=loop.Hooks(
          log=self._log,
          evaluate=self._evaluate,
          save=self._save,
          rescue=self._rescue,
          stopping=self._stopping,
          not_finite=self._not_finite,
          epoch_end=self._epoch_end,
        ),
      )
    finally:
      self._progress.end()
      experiment.pipeline.close()

  def _open_log(self) -> None:
    """Opens metrics.jsonl and the loggers, in process 0."""
    prepared = self._prepared
    self._writer = agree.on_main(
      lambda: run_log.RunLog(prepared.recipe, prepared.workdir, self.step)
    )
    # Findings that earlier processes have printed are not printed again.
    for row in self._writer.rows() if self._writer else ():
      self._monitor.add(row)

  def _stopping(self) -> bool:
    """Whether this process, or any of several, has been asked to stop."""
    if self._stop_notice.reached():
      self._signals.received = signal.SIGTERM
    return self._signals.received is not None

  def _compile(self, call: Any) -> Any:
    print("compiling the train step ...")
    start = time.perf_counter()
    # Shapes are enough, and asking for images would start their reading.
    inputs = self._experiment.pipeline.input_shapes(
      self._experiment.train.steps_per_call
    )
    compiled = call.lower(self._state, inputs).compile()
    self._compile_seconds = time.perf_counter() - start
    print(f"compiled in {self._compile_seconds:.0f} s")
    return compiled

  def _spent(self) -> measure.Spent:
    training = self._progress.seconds() if self._progress else 0.0
    earlier = self._earlier
    return measure.Spent(
      wall_seconds=earlier.wall_seconds + time.perf_counter() - self._opened,
      compile_seconds=earlier.compile_seconds + self._compile_seconds,
      train_seconds=earlier.train_seconds + training,
    )

  def _log(self, step: int, values: Mapping[str, np.ndarray]) -> None:
    self.step = step
    for at, means in self._means.add(step, values):
      means["steps_per_second"] = self._progress.rate(at)
      if not self._experiment.dataset.in_memory:
        means["input_stall"] = self._stall()
      self._write(at, means)
      self._progress.show(at, means)

  def _write(self, step: int, scalars: Mapping[str, float]) -> None:
    """Appends a line of metrics, and findings about the run's health."""
    if self._writer is None:
      return
    # Those that are only monitored end no run: a rank may be no number.
    scalars = {k: v for k, v in scalars.items() if np.isfinite(v)}
    self._writer.write(step, scalars)
    for finding in self._monitor.add({"step": step, **scalars}):
      self._writer.note(step, finding.as_row())
      self._progress.say(finding.as_text())

  def _stall(self) -> float:
    """Share of the time since the last call that was spent on waiting."""
    now = (self._experiment.pipeline.stall_seconds, self._progress.seconds())
    waited, passed = np.subtract(now, self._last_stall)
    self._last_stall = now
    return float(min(max(waited / max(passed, 1e-9), 0.0), 1.0))

  def _evaluate(self, state: state_lib.TrainState, step: int) -> None:
    with self._progress.paused():
      accuracy = self._evaluator.monitored_accuracy(state, step)
      scalars = self._evaluator.monitored(state, step)
      scalars |= {f"soft_nn_{k}": v for k, v in accuracy.items()}
      self._progress.accuracy(scalars, step)
      if scalars:
        self._write(step, scalars)

  def _epoch_end(
    self, state: state_lib.TrainState, step: int
  ) -> state_lib.TrainState:
    """Lets the method change the state between two epochs."""
    self._epoch_due = True
    with self._progress.paused():
      state = epochs.end_epoch(self._experiment, state, step)
      estimated_prior.say_first(self._experiment, state, step)
    self._epoch_due = False
    return state

  def _rescue(self, state: state_lib.TrainState, step: int) -> None:
    """Saves before an error; one of several processes cannot save alone."""
    if jax.process_count() == 1:
      self._save(state, step)

  def _save(self, state: state_lib.TrainState, step: int) -> None:
    with self._progress.paused():
      if self._writer is not None:
        # A run that resumes here does not write them again.
        self._writer.flush()
      checkpoints.save(
        self._checkpointer,
        self._experiment.trainer,
        step,
        state,
        {
          "spent": dataclasses.asdict(self._spent()),
          "pending_metrics": self._means.pending,
          **({"epoch_due": True} if self._epoch_due else {}),
          "split_hash": self._experiment.dataset.split.hash,
          "recipe": upgrade.write(self._prepared.recipe),
          "version": provenance.version(),
        },
      )
    self._bad_images.report()

  def _not_finite(
    self, state: state_lib.TrainState, step: int, inputs: Any
  ) -> None:
    self._progress.end()
    failed_step.keep(
      self._prepared.workdir,
      state,
      step,
      failed_step.image_ids(self._experiment, inputs, step),
    )

  def report(self) -> dict[str, Any]:
    """Evaluates the final state; writes the result row and the figure.

    Returns:
      The result row.
    """
    prepared, experiment = self._prepared, self._experiment
    embeddings = self._evaluator.embeddings(self._state, self.step)
    row = measure.measure(experiment, prepared.recipe, embeddings, self._state)
    spent = self._spent()
    row["wall_seconds"] = spent.wall_seconds
    row["compile_seconds"] = spent.compile_seconds
    row["steps_per_second"] = experiment.total_steps / spent.train_seconds
    row |= estimated_prior.result(experiment, self._state)
    # Before drawing: if that fails, the result is not lost.
    agree.on_main(
      functools.partial(results.append_result, prepared.workdir, row)
    )
    judge = functools.partial(health.judge_result, self._monitor, self._writer)
    agree.on_main(lambda: judge(row, step=self.step))
    self._bad_images.report()
    self.draw()
    if self._writer is not None:
      self._writer.result(self.step, row)
    return row

  def save_classifier(self) -> None:
    """Saves a classifier: the encoder with its labelled images.

    Several processes save none: --task=predict builds it when it is needed.
    Without labelled images there is none.
    """
    if jax.process_count() > 1 or not self._experiment.dataset.labelled:
      return
    prepared = self._prepared
    save_classifier.save_state(
      prepared.recipe,
      prepared.workdir,
      self._experiment,
      self._state,
      step=self.step,
    )

  def draw(self) -> None:
    """Draws the figure of a run that has taken all its steps."""
    workdir, reference = self._prepared.workdir, self._prepared.reference
    embeddings = self._evaluator.embeddings(self._state, self.step)
    rows = metrics.read(workdir / metrics.METRICS)
    if lifecycle.is_main():
      measure.draw(
        workdir / training_figure.TRAINING,
        self._experiment,
        embeddings,
        rows,
        reference,
      )
      print(f"\n{monitor.summary(rows)}")
      if reference is not None:
        print(comparison.report(rows, reference, self._prepared.recipe))
