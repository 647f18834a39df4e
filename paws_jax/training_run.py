"""One process's part of a training run: what the loop's hooks share."""

from __future__ import annotations

import dataclasses
import functools
import json
import signal
import time
from collections.abc import Mapping
from typing import Any

import jax
import ml_collections
import numpy as np
import orbax.checkpoint as ocp
from etils import epath

from paws_jax import agreement
from paws_jax import checkpoint
from paws_jax import distributed
from paws_jax import experiment as experiment_lib
from paws_jax import figures
from paws_jax import metrics
from paws_jax import results
from paws_jax import sharding
from paws_jax import terminal
from paws_jax import train
from paws_jax import workdir as workdir_lib

TASK = "pretrain"
BAD_IMAGES = "bad_images.json"


@dataclasses.dataclass(frozen=True)
class Prepared:
  """A recipe, checked and built, with its directory."""

  config: ml_collections.ConfigDict
  workdir: epath.Path
  experiment: experiment_lib.Experiment


class TrainingRun:
  """A run from its newest checkpoint to its end, or to a signal.

  Attributes:
    step: steps taken, those of earlier processes included.
  """

  def __init__(
    self,
    prepared: Prepared,
    checkpointer: checkpoint.Checkpointer,
    signals: terminal.Signals,
  ):
    """Starts at step 0 or at the newest checkpoint."""
    self._opened = time.perf_counter()
    self._prepared = prepared
    self._experiment = prepared.experiment
    self._checkpointer = checkpointer
    self._signals = signals
    self._stop_notice = distributed.StopNotice()
    self._compile_seconds = 0.0
    self._num_bad_images = 0
    # Seconds spent waiting for images, and training, when last asked.
    self._stall_asked = (0.0, 0.0)
    # Embeddings of the parts of the data at a step, for what comes next.
    self._embedded: tuple[int, dict[str, np.ndarray]] = (-1, {})
    self._state = self._experiment.initial_state()
    self.step, meta = self._restore()
    self._earlier = results.Spent(**meta["spent"])
    self._means = metrics.StepMeans(
      self._experiment.log.every_steps, meta["pending_metrics"]
    )
    # Made when training starts.
    self._progress: metrics.Progress | None = None
    self._writer: metrics.Writer | None = None

  def _restore(self) -> tuple[int, dict[str, Any]]:
    """Takes over the newest checkpoint's state; its step and what it says."""
    like = jax.tree.map(
      lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding),
      self._state,
    )
    restored = self._checkpointer.restore_latest(like)
    if restored is None:
      return 0, {"spent": {}, "pending_metrics": []}
    step, self._state, meta = restored
    print(f"resuming from the checkpoint of step {step}")
    return step, meta

  def train(self) -> None:
    """Compiles and runs the loop."""
    experiment = self._experiment
    steps_per_call = experiment.train.steps_per_call
    call = train.make_train_call(
      experiment.trainer, experiment.pipeline, steps_per_call
    )
    if self.step < experiment.total_steps:
      call = self._compile(call)
    if distributed.is_main():
      self._writer = metrics.Writer(
        self._prepared.workdir,
        first_step=self.step,
        tensorboard=experiment.log.tensorboard,
      )
    self._progress = metrics.Progress(
      total_steps=experiment.total_steps,
      first_step=self.step,
      images_per_step=experiment.images_per_step,
    )
    try:
      self._state = train.loop(
        call,
        self._state,
        experiment.pipeline,
        first_step=self.step,
        total_steps=experiment.total_steps,
        steps_per_call=steps_per_call,
        eval_every=experiment.eval.every_steps,
        save_every=experiment.checkpoint.every_steps,
        hooks=train.Hooks(
          log=self._log,
          evaluate=self._evaluate,
          save=self._save,
          rescue=self._rescue,
          stopping=self._stopping,
          not_finite=self._not_finite,
        ),
      )
    finally:
      self._progress.end()
      if self._writer is not None:
        self._writer.close()
      experiment.pipeline.close()

  def _stopping(self) -> bool:
    """Whether this process, or with several any of them, is asked to stop."""
    if self._stop_notice.reached():
      self._signals.received = signal.SIGTERM
    return self._signals.received is not None

  def _report_bad_images(self) -> None:
    """Lists images that could not be read, and says how many are new."""
    labelled = self._experiment.dataset.labelled.images
    bad = {
      name: f"left out as a labelled image: {reason}"
      for name, reason in getattr(labelled, "unreadable", {}).items()
    }
    for name, substitute in self._experiment.pipeline.replaced.items():
      bad[name] = f"replaced by {substitute}"
    # Each process tells of the images that it has read.
    bad = dict(item for each in agreement.gather(bad) for item in each.items())
    new = len(bad) - self._num_bad_images
    if not new or not distributed.is_main():
      return
    self._num_bad_images = len(bad)
    path = self._prepared.workdir / BAD_IMAGES
    try:
      if path.exists():
        bad = json.loads(path.read_text()) | bad
      metrics.replace_text(path, json.dumps(bad, indent=2) + "\n")
    except (OSError, ValueError) as error:
      print(f"\n{path} could not be written: {error}; unreadable are {bad}")
      return
    print(f"\n{new} more images cannot be read; {path} lists all of them")

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

  def _spent(self) -> results.Spent:
    training = self._progress.seconds() if self._progress else 0.0
    earlier = self._earlier
    return results.Spent(
      wall_seconds=earlier.wall_seconds + time.perf_counter() - self._opened,
      compile_seconds=earlier.compile_seconds + self._compile_seconds,
      train_seconds=earlier.train_seconds + training,
    )

  def _log(self, step: int, values: dict[str, np.ndarray]) -> None:
    self.step = step
    for at, means in self._means.add(step, values):
      means["steps_per_second"] = self._progress.rate(at)
      if not self._experiment.dataset.in_memory:
        means["input_stall"] = self._stall()
      self._write(at, means)
      self._progress.show(at, means)

  def _write(self, step: int, scalars: Mapping[str, float]) -> None:
    if self._writer is not None:
      self._writer.write(step, scalars)

  def _stall(self) -> float:
    """Share of the time since it was last asked that was spent waiting."""
    now = (self._experiment.pipeline.stall_seconds, self._progress.seconds())
    waited, passed = np.subtract(now, self._stall_asked)
    self._stall_asked = now
    return float(min(max(waited / max(passed, 1e-9), 0.0), 1.0))

  def _evaluate(self, state: train.TrainState, step: int) -> None:
    with self._progress.paused():
      part = self._experiment.dataset.watched
      if part == "labelled" and not results.can_leave_one_out(self._experiment):
        return
      queries, supports = self._embed(state, step, part, "labelled")
      accuracy = results.soft_nn(self._experiment, part, queries, supports)
      self._progress.accuracy(accuracy["top1"], step)
      scalars = {f"soft_nn_{k}": v for k, v in accuracy.items()}
      self._write(step, scalars)

  def _rescue(self, state: train.TrainState, step: int) -> None:
    """Saves before an error; but of several processes one alone cannot."""
    if jax.process_count() == 1:
      self._save(state, step)

  def _save(self, state: train.TrainState, step: int) -> None:
    with self._progress.paused():
      if self._writer is not None:
        # A run that goes on from here does not write them again.
        self._writer.flush()
      self._checkpointer.save(
        step,
        state,
        {
          "spent": dataclasses.asdict(self._spent()),
          "pending_metrics": self._means.pending,
          "split_hash": self._experiment.dataset.split.hash,
          "recipe": json.loads(self._prepared.config.to_json()),
          "version": workdir_lib.version(),
        },
      )
    self._report_bad_images()

  def _not_finite(
    self, state: train.TrainState, step: int, inputs: Any
  ) -> None:
    """Keeps what is needed to look into a number that is not finite."""
    directory = self._prepared.workdir / "not_finite" / str(step)
    ids = {"step": step} | self._ids(inputs, step)
    self._progress.end()
    try:
      directory.mkdir(parents=True, exist_ok=True)
      if distributed.is_main():
        metrics.replace_text(
          directory / "sample_ids.json", json.dumps(ids) + "\n"
        )
      with ocp.StandardCheckpointer() as writer:
        writer.save(directory / "state", state, force=True)
    except (OSError, ValueError) as error:
      # What was not finite must still be said, by what follows.
      print(f"state and sample ids could not be kept in {directory}: {error}")
      return
    print(f"state, step and sample ids are kept in {directory}")

  def _ids(self, inputs: Any, step: int) -> dict[str, list[int]]:
    """Images of a step, of all devices."""
    pipeline = self._experiment.pipeline

    def ids(inputs):
      batch = pipeline.batch(inputs, step)
      parts = {"support": batch.support, "unlabelled": batch.unlabelled}
      return {name: part.id for name, part in parts.items() if part is not None}

    whole = sharding.replicated(self._experiment.trainer.mesh)
    found = jax.jit(ids, out_shardings=whole)(inputs)
    return {name: np.asarray(rows).tolist() for name, rows in found.items()}

  def report(self) -> dict[str, Any]:
    """Evaluates the final state; writes the result row and the figure."""
    prepared, experiment = self._prepared, self._experiment
    row = {"task": TASK}
    row |= results.measure(experiment, prepared.config, self._final())
    spent = self._spent()
    row["wall_seconds"] = spent.wall_seconds
    row["compile_seconds"] = spent.compile_seconds
    row["steps_per_second"] = experiment.total_steps / spent.train_seconds
    # Before the figure: if that fails, the result is not lost.
    agreement.on_main(
      functools.partial(metrics.append_result, prepared.workdir, row)
    )
    self._report_bad_images()
    self.draw()
    return row

  def draw(self) -> None:
    """Draws the figure of a run that has taken all its steps."""
    workdir = self._prepared.workdir
    embeddings = self._final()
    if distributed.is_main():
      results.draw(
        workdir / figures.TRAINING,
        self._experiment,
        embeddings,
        metrics.read(workdir / metrics.METRICS),
      )

  def _final(self) -> dict[str, np.ndarray]:
    """Embeddings of all parts by the last state."""
    parts = ("labelled", "validation", "test")
    rows = self._embed(self._state, self.step, *parts)
    return dict(zip(parts, rows, strict=True))

  def _embed(
    self, state: train.TrainState, step: int, *parts: str
  ) -> list[np.ndarray]:
    """Embeds parts of the data, each only once at a step."""
    if self._embedded[0] != step:
      self._embedded = (step, {})
    known = self._embedded[1]
    for part in parts:
      if part not in known:
        known[part] = results.embed(self._experiment, state, part)
    return [known[part] for part in parts]
