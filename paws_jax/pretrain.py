"""`--task=pretrain`: train by a recipe, then classify with the labelled images.

A second run of the same command in the same workdir goes on where the first
one stopped, and ends with the same numbers as if it had not.
"""

from __future__ import annotations

import dataclasses
import functools
import json
import pathlib
import signal
import time
from typing import Any

import jax
import ml_collections
import numpy as np
import orbax.checkpoint as ocp

from paws_jax import checkpoint, evaluate, figures, metrics, train
from paws_jax import config as config_lib
from paws_jax import experiment as experiment_lib
from paws_jax import workdir as workdir_lib

TASK = "pretrain"
CHECKPOINTS = "checkpoints"


@dataclasses.dataclass(frozen=True)
class Run:
  """A recipe, checked and built, with its directory."""

  config: ml_collections.ConfigDict
  workdir: pathlib.Path
  experiment: experiment_lib.Experiment


def prepare(config: ml_collections.ConfigDict, workdir: str) -> Run:
  """Checks everything a user can get wrong, before anything takes long.

  Args:
    config: the recipe, with overrides.
    workdir: the run's directory; made if it does not exist.

  Raises:
    ValueError, TypeError, FileNotFoundError: with a message for the user.
  """
  config_lib.validate(config)
  experiment = experiment_lib.create(config)
  path = workdir_lib.prepare(workdir, config)
  workdir_lib.write_environment(path)
  workdir_lib.write_split(path, experiment.split.as_json())
  return Run(config=config, workdir=path, experiment=experiment)


class _Signals:
  """Notes SIGTERM and SIGINT; a second SIGINT ends the process at once."""

  def __init__(self):
    self.received: int | None = None

  def __enter__(self) -> _Signals:
    both = (signal.SIGTERM, signal.SIGINT)
    self._before = {s: signal.signal(s, self._note) for s in both}
    return self

  def __exit__(self, *unused) -> None:
    for number, handler in self._before.items():
      signal.signal(number, handler)

  def _note(self, number: int, unused_frame: Any) -> None:
    if self.received is None:
      name = signal.Signals(number).name
      print(f"\n{name}: stopping after this step ...", flush=True)
    elif number == signal.SIGINT:
      raise KeyboardInterrupt
    self.received = number


def run(prepared: Run) -> int:
  """Trains, saves, evaluates and reports.

  Returns:
    The exit status: 0, or 130 after SIGINT.

  Raises:
    train.NonFiniteError: when a number is not finite; the run stops.
    checkpoint.CheckpointError: when a checkpoint cannot be written or read.
    MemoryError: when the devices' memory does not suffice.
  """
  experiment = prepared.experiment
  checkpointer = checkpoint.Checkpointer(
    prepared.workdir / CHECKPOINTS,
    keep_every_steps=experiment.checkpoint.keep_every_steps,
  )
  state, first_step, seconds = _start(prepared, checkpointer)
  total = experiment.total_steps
  if first_step >= total and (row := _finished_row(prepared)):
    checkpointer.close()
    print(f"this run is finished ({total} steps); its result:")
    _print_result(prepared, row)
    return 0
  with _Signals() as signals:
    try:
      session = _Session(prepared, checkpointer, signals, first_step, seconds)
      state = session.train(state)
      checkpointer.close()
    except jax.errors.JaxRuntimeError as error:
      _raise_if_out_of_memory(error, prepared.config)
      raise
    if signals.received is not None and session.step < total:
      print(
        f"stopped at step {session.step} of {total} by "
        f"{signal.Signals(signals.received).name}; it is saved, and the same "
        "command goes on from there."
      )
      return 130 if signals.received == signal.SIGINT else 0
    row = session.report(state)
  _print_result(prepared, row)
  return 0


def _start(
  prepared: Run, checkpointer: checkpoint.Checkpointer
) -> tuple[train.TrainState, int, float]:
  """The state to start from, its step, and seconds already spent."""
  state = prepared.experiment.initial_state()
  like = jax.tree.map(
    lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding), state
  )
  restored = checkpointer.restore_latest(like)
  if restored is None:
    return state, 0, 0.0
  step, state, meta = restored
  print(f"resuming from the checkpoint of step {step}")
  return state, step, float(meta["wall_seconds"])


def _finished_row(prepared: Run) -> dict[str, Any] | None:
  """The result that an earlier run of this workdir has written, if any."""
  path = prepared.workdir / metrics.RESULTS
  rows = json.loads(path.read_text(encoding="utf-8")) if path.exists() else []
  total = prepared.experiment.total_steps
  done = [r for r in rows if r["task"] == TASK and r["steps"] == total]
  return done[-1] if done else None


class _Session:
  """One process's part of a run: what the loop's hooks share."""

  def __init__(
    self,
    prepared: Run,
    checkpointer: checkpoint.Checkpointer,
    signals: _Signals,
    first_step: int,
    seconds_before: float,
  ):
    self.step = first_step
    self._prepared = prepared
    self._experiment = prepared.experiment
    self._checkpointer = checkpointer
    self._signals = signals
    self._first_step = first_step
    self._start = time.perf_counter() - seconds_before
    self._compile_seconds = 0.0
    self._writer = metrics.Writer(
      prepared.workdir,
      first_step=first_step,
      tensorboard=self._experiment.log.tensorboard,
    )
    self._means = metrics.StepMeans(self._experiment.log.every_steps)
    self._progress: metrics.Progress | None = None
    self._rate = 0.0

  def train(self, state: train.TrainState) -> train.TrainState:
    """Compiles and runs the loop."""
    experiment = self._experiment
    call = train.make_train_call(
      experiment.trainer, experiment.pipeline, experiment.train.steps_per_call
    )
    if self._first_step < experiment.total_steps:
      print("compiling the train step ...", flush=True)
      call = self._compile(call, state)
    self._progress = metrics.Progress(
      total_steps=experiment.total_steps,
      first_step=self._first_step,
      images_per_step=experiment.images_per_step,
    )
    try:
      return train.loop(
        call,
        state,
        experiment.pipeline,
        first_step=self._first_step,
        total_steps=experiment.total_steps,
        steps_per_call=experiment.train.steps_per_call,
        eval_every=experiment.eval.every_steps,
        save_every=experiment.checkpoint.every_steps,
        hooks=train.Hooks(
          log=self._log,
          evaluate=self._evaluate,
          save=self._save,
          stopping=lambda: self._signals.received is not None,
          not_finite=self._not_finite,
        ),
      )
    finally:
      self._rate = self._progress.rate(self.step)
      self._progress.end()
      self._writer.close()

  def _compile(self, call: Any, state: train.TrainState) -> Any:
    start = time.perf_counter()
    inputs = self._experiment.pipeline.inputs(
      self._first_step, self._experiment.train.steps_per_call
    )
    compiled = call.lower(state, inputs).compile()
    self._compile_seconds = time.perf_counter() - start
    print(f"compiled in {self._compile_seconds:.0f} s", flush=True)
    return compiled

  def _log(self, step: int, values: dict[str, np.ndarray]) -> None:
    self.step = step
    for at, means in self._means.add(step, values):
      means["steps_per_second"] = self._progress.rate(at)
      self._writer.write(at, means)
      self._progress.show(at, means)

  def _evaluate(self, state: train.TrainState, step: int) -> None:
    start = time.perf_counter()
    accuracy = self._accuracy(state)
    self._progress.accuracy(accuracy["top1"], step)
    scalars = {f"soft_nn_{k}": v for k, v in accuracy.items()}
    self._writer.write(step, scalars)
    self._progress.pause(time.perf_counter() - start)

  def _accuracy(self, state: train.TrainState) -> dict[str, float]:
    queries = self._embed(state, self._experiment.arrays.test_images)
    return self._soft_nn(queries, self._embed(state, self._labelled[0]))

  @functools.cached_property
  def _labelled(self) -> tuple[np.ndarray, np.ndarray]:
    return self._experiment.labelled

  def _embed(self, state: train.TrainState, images: np.ndarray) -> np.ndarray:
    return self._experiment.embed(state.params, state.model_state, images)

  def _soft_nn(
    self, queries: np.ndarray, supports: np.ndarray
  ) -> dict[str, float]:
    return evaluate.soft_nn_accuracy(
      queries,
      self._experiment.arrays.test_labels,
      supports,
      self._labelled[1],
      num_classes=self._experiment.arrays.num_classes,
      temperature=self._experiment.temperature,
    )

  def _save(self, state: train.TrainState, step: int) -> None:
    start = time.perf_counter()
    self._checkpointer.save(
      step,
      state,
      {
        "wall_seconds": start - self._start,
        "split_hash": self._experiment.split.hash,
        "recipe": json.loads(self._prepared.config.to_json()),
        "version": workdir_lib.version(),
      },
    )
    self._progress.pause(time.perf_counter() - start)

  def _not_finite(
    self, state: train.TrainState, step: int, inputs: Any
  ) -> None:
    """Keeps what is needed to look into a number that is not finite."""
    directory = self._prepared.workdir / "not_finite" / str(step)
    directory.mkdir(parents=True, exist_ok=True)
    batch = jax.jit(self._experiment.pipeline.batch)(inputs, step)
    ids = {"step": step, "support": np.asarray(batch.support.id).tolist()}
    if batch.unlabelled is not None:
      ids["unlabelled"] = np.asarray(batch.unlabelled.id).tolist()
    metrics.replace_text(directory / "sample_ids.json", json.dumps(ids) + "\n")
    with ocp.StandardCheckpointer() as writer:
      writer.save(directory / "state", state, force=True)
    self._progress.end()
    print(f"state, step and sample ids are kept in {directory}")

  def report(self, state: train.TrainState) -> dict[str, Any]:
    """Evaluates the final state; writes the result row and the figure."""
    arrays = self._experiment.arrays
    images, labels = self._labelled
    supports = self._embed(state, images)
    queries = self._embed(state, arrays.test_images)
    accuracy = self._soft_nn(queries, supports)
    raw = self._soft_nn(_pixels(arrays.test_images), _pixels(images))
    count = len(arrays.test_labels)
    row = {
      "task": TASK,
      "protocol": "soft_nn",
      "method": self._prepared.config.method.name,
      "dataset": arrays.name,
      "split_seed": self._experiment.split.split_seed,
      "split_hash": self._experiment.split.hash,
      "seed": self._prepared.config.seed,
      "num_labels": len(labels),
      "num_test": count,
      "steps": self._experiment.total_steps,
      **accuracy,
      "top1_interval": evaluate.confidence_interval(accuracy["top1"], count),
      "top5_interval": evaluate.confidence_interval(accuracy["top5"], count),
      "raw_pixel_top1": raw["top1"],
      "raw_pixel_top5": raw["top5"],
      "leave_one_out_top1": self._leave_one_out(supports),
      "wall_seconds": time.perf_counter() - self._start,
      "compile_seconds": self._compile_seconds,
      "steps_per_second": self._rate,
      "version": workdir_lib.version(),
    }
    figures.training_figure(
      self._prepared.workdir / figures.TRAINING,
      metrics.read(self._prepared.workdir / metrics.METRICS),
      queries=queries,
      query_labels=arrays.test_labels,
      supports=supports,
      support_labels=labels,
      class_names=arrays.class_names,
    )
    metrics.append_result(self._prepared.workdir, row)
    return row

  def _leave_one_out(self, supports: np.ndarray) -> float | None:
    """Accuracy over the labelled images, each judged by the others.

    None when no class has two.
    """
    labels = self._labelled[1]
    if max(self._experiment.split.class_counts) < 2:
      return None
    return evaluate.soft_nn_accuracy(
      supports,
      labels,
      supports,
      labels,
      num_classes=self._experiment.arrays.num_classes,
      temperature=self._experiment.temperature,
      leave_one_out=True,
    )["top1"]


def _pixels(images: np.ndarray) -> np.ndarray:
  return images.reshape(len(images), -1).astype(np.float32) / 255


def _print_result(prepared: Run, row: dict[str, Any]) -> None:
  """The table a user came for, and where everything lies."""

  def percent(name: str, interval: tuple[float, float] | None) -> str:
    text = f"{row[name]:7.1%}"
    if interval is not None:
      text += f" [{interval[0]:.1%}, {interval[1]:.1%}]"
    return text.ljust(24)

  def interval(name: str, count: int) -> tuple[float, float]:
    return evaluate.confidence_interval(row[name], count)

  count, labels = row["num_test"], row["num_labels"]
  name = "PAWS-NN" if row["method"] == "paws" else f"{row['method']}, soft NN"
  print(
    f"\n{row['dataset']}: {labels} labels, {count} test images, 95 % intervals"
  )
  print(f"{'':26}{'top-1':24}top-5")
  for title, top1, top5 in (
    (name, "top1", "top5"),
    ("soft NN on raw pixels", "raw_pixel_top1", "raw_pixel_top5"),
  ):
    cells = [percent(k, interval(k, count)) for k in (top1, top5)]
    print(f"{title:26}{''.join(cells).rstrip()}")
  if row["leave_one_out_top1"] is not None:
    cell = percent("leave_one_out_top1", interval("leave_one_out_top1", labels))
    print(f"{'leave-one-out, labelled':26}{cell.rstrip()}")
  print(
    f"\n{row['wall_seconds']:.0f} s in all, {row['compile_seconds']:.0f} s of "
    f"them compiling; {row['steps_per_second']:.2f} steps/s"
  )
  workdir = prepared.workdir
  print(f"checkpoint  {workdir / CHECKPOINTS}")
  print(f"metrics     {workdir / metrics.METRICS}")
  print(f"results     {workdir / metrics.RESULTS}")
  print(f"figure      {workdir / figures.TRAINING}")


def _raise_if_out_of_memory(
  error: jax.errors.JaxRuntimeError, config: ml_collections.ConfigDict
) -> None:
  if "RESOURCE_EXHAUSTED" not in str(error):
    return
  first = str(error).splitlines()[0]
  raise MemoryError(
    "the step does not fit in the devices' memory. Lower train.batch_size "
    f"(now {config.train.batch_size}) or support.images_per_class (now "
    f"{config.support.images_per_class}), set train.remat to 'dots' or 'all' "
    f"(now {config.train.remat!r}), or use more devices. {first}"
  ) from error
