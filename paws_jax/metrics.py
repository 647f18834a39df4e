"""Where numbers go: metrics.jsonl, TensorBoard, results.json, one line."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import pathlib
import shutil
import sys
import time
from collections.abc import Iterator
from collections.abc import Mapping
from collections.abc import Sequence
from typing import Any
from typing import TextIO

import numpy as np
from etils import epath

from paws_jax.data import tf_runtime


@dataclasses.dataclass(frozen=True)
class LogConfig:
  """Section `log` of a recipe; fields are explained in config.base."""

  every_steps: int
  tensorboard: bool
  next_command: str


# What a reader sees of the loss of PAWS: each is at least 0, and 0 is best. Of
# the sum that is minimised that is not true: with me-max it falls to minus the
# log of the number of classes. Other methods have their own `shown_losses`.
LOSSES = ("cross_entropy", "me_max_kl")
LABELS = {
  "cross_entropy": "cross-entropy",
  "me_max_kl": "me-max KL",
  "nt_xent": "NT-Xent",
  "suncet": "SuNCEt",
}
METRICS = "metrics.jsonl"
RESULTS = "results.json"

# Between two writings of a whole file to a bucket.
_OBJECT_SECONDS = 60.0


class _Object:
  """A text file in a bucket, where none can grow: written anew now and then."""

  def __init__(self, path: epath.Path, text: str):
    """Goes on from `text`, which is there."""
    self._path = path
    self._text = text
    self._written = time.monotonic()

  def write(self, text: str) -> None:
    self._text += text

  def flush(self) -> None:
    if time.monotonic() - self._written >= _OBJECT_SECONDS:
      self.close()

  def close(self) -> None:
    self._path.write_text(self._text, encoding="utf-8")
    self._written = time.monotonic()


class Writer:
  """Appends metrics to `metrics.jsonl`, and to TensorBoard when asked.

  One JSON object a line: "step" and scalars, or "step" and words. A resumed run
  drops the lines after the step it resumes from, which it will write again.
  """

  def __init__(
    self, workdir: epath.Path, *, first_step: int, tensorboard: bool
  ):
    """Opens the files.

    Args:
      workdir: an existing directory.
      first_step: lines after this step are dropped.
      tensorboard: whether to write TensorBoard files; loads TensorFlow.
    """
    path = workdir / METRICS
    kept = [row for row in read(path) if row["step"] <= first_step]
    text = "".join(json.dumps(row) + "\n" for row in kept)
    replace_text(path, text)
    if isinstance(path, pathlib.Path):
      self._file = path.open("a", encoding="utf-8")
    else:
      self._file = _Object(path, text)
    self._tensorboard = None
    if tensorboard:
      # Imported here: they take seconds.
      tf_runtime.load()
      from clu import metric_writers

      self._tensorboard = metric_writers.SummaryWriter(str(workdir))

  def write(self, step: int, scalars: Mapping[str, float]) -> None:
    """Appends one line; every scalar must be finite."""
    self._append(step, {k: float(v) for k, v in scalars.items()})
    if self._tensorboard is not None:
      self._tensorboard.write_scalars(int(step), dict(scalars))

  def note(self, step: int, texts: Mapping[str, str]) -> None:
    """Appends a line of words, such as what `health` has found."""
    self._append(step, dict(texts))

  def _append(self, step: int, values: Mapping[str, Any]) -> None:
    row = {"step": int(step)} | values
    self._file.write(json.dumps(row, allow_nan=False) + "\n")
    self._file.flush()

  def flush(self) -> None:
    """Makes sure that all lines are there, in a bucket, too."""
    if isinstance(self._file, _Object):
      self._file.close()

  def close(self) -> None:
    """Closes the files."""
    self._file.close()
    if self._tensorboard is not None:
      self._tensorboard.close()


def read(path: epath.Path) -> list[dict[str, Any]]:
  """Rows of a metrics.jsonl; a last line cut off by a crash is left out."""
  if not path.exists():
    return []
  rows = []
  for line in path.read_bytes().splitlines():
    try:
      rows.append(json.loads(line))
    except ValueError:
      break
  return rows


def read_results(workdir: epath.Path) -> list[dict[str, Any]]:
  """Objects in `results.json`; none when there is no such file.

  Raises:
    ValueError: when it is not a JSON list of objects.
  """
  path = workdir / RESULTS
  if not path.exists():
    return []
  try:
    rows = json.loads(path.read_bytes())
  except ValueError as error:
    raise ValueError(f"{path} is not JSON ({error}): move it away.") from None
  if not isinstance(rows, list) or not all(isinstance(r, dict) for r in rows):
    raise ValueError(f"{path} is not a JSON list of objects: move it away.")
  return rows


def append_result(workdir: epath.Path, row: Mapping[str, Any]) -> None:
  """Appends an object to the list in `results.json`, whole or not at all.

  Raises:
    ValueError: when the file is there but is not a JSON list of objects.
  """
  rows = [*read_results(workdir), dict(row)]
  text = json.dumps(rows, indent=2, allow_nan=False) + "\n"
  replace_text(workdir / RESULTS, text)


def replace_text(path: epath.Path, text: str) -> None:
  """Writes a file so that a crash leaves the old one or the new one."""
  if not isinstance(path, pathlib.Path):
    # In a bucket an object is there whole or not at all.
    path.write_text(text, encoding="utf-8")
    return
  temporary = path.with_name(f".{path.name}.tmp")
  temporary.write_text(text, encoding="utf-8")
  os.replace(temporary, path)


class StepMeans:
  """Collects metrics of single steps and gives means over intervals.

  `pending` goes into checkpoints, so that an interval in the midst of which a
  run was stopped is averaged over all its steps.
  """

  def __init__(
    self, every_steps: int, pending: Sequence[Mapping[str, float]] = ()
  ):
    """Means are over `every_steps` steps, ending at its multiples.

    Args:
      every_steps: at least 1.
      pending: of an earlier object, to go on from.
    """
    self._every = every_steps
    self.pending = [dict(row) for row in pending]

  def add(
    self, last_step: int, metrics: Mapping[str, np.ndarray]
  ) -> list[tuple[int, dict[str, float]]]:
    """Takes [k] values of the k steps up to `last_step`; gives full intervals.

    Returns:
      (step, means) of each interval that ended; the learning rate is the last.
    """
    count = len(next(iter(metrics.values())))
    done = []
    for i in range(count):
      self.pending.append({k: float(v[i]) for k, v in metrics.items()})
      step = last_step - count + i + 1
      if step % self._every == 0:
        names = self.pending[-1]
        # Steps of an older version need not have all of them.
        means = {
          k: float(np.mean([row[k] for row in self.pending if k in row]))
          for k in names
        }
        means["learning_rate"] = self.pending[-1]["learning_rate"]
        done.append((step, means))
        self.pending = []
    return done


class Progress:
  """One line about where training stands.

  On a terminal the line is rewritten in place; in a file a new one is written
  at most every `interval` seconds, and the last one in any case.
  """

  def __init__(
    self,
    *,
    total_steps: int,
    first_step: int,
    images_per_step: int,
    losses: Sequence[str] = LOSSES,
    interval: float = 5.0,
    stream: TextIO | None = None,
  ):
    """Starts the clock.

    Args:
      total_steps: of the run.
      first_step: where this process starts.
      images_per_step: unlabelled images (or supports) a step.
      losses: metrics to show, where there are: `shown_losses` of the method.
      interval: seconds between lines where they are not rewritten.
      stream: default standard output.
    """
    self._total = total_steps
    self._first = first_step
    self._images = images_per_step
    self._losses = losses
    self._stream = stream if stream is not None else sys.stdout
    self._in_place = self._stream.isatty()
    self._interval = interval
    self._start = time.perf_counter()
    self._paused = 0.0
    self._ended: float | None = None
    self._last_shown = -float("inf")
    self._accuracy: tuple[float, int] | None = None
    self._width = 0
    self._unshown = ""

  @contextlib.contextmanager
  def paused(self) -> Iterator[None]:
    """Leaves the time that passes inside out of the rate."""
    start = time.perf_counter()
    try:
      yield
    finally:
      self._paused += time.perf_counter() - start

  def accuracy(self, top1: float, step: int) -> None:
    """Shows this soft-NN accuracy, a fraction, from now on."""
    self._accuracy = (top1, step)

  def seconds(self) -> float:
    """Seconds from the start to now or the end, pauses left out."""
    now = time.perf_counter() if self._ended is None else self._ended
    return now - self._start - self._paused

  def rate(self, step: int) -> float:
    """Steps per second since the start."""
    return (step - self._first) / max(self.seconds(), 1e-9)

  def show(self, step: int, metrics: Mapping[str, float]) -> None:
    """Shows the line for a step, now or if it turns out to be the last."""
    self._unshown = self._line(step, metrics)
    now = time.perf_counter()
    if self._in_place or now - self._last_shown >= self._interval:
      self._last_shown = now
      self._write()

  def say(self, text: str) -> None:
    """Writes lines of their own; the line about training goes on below."""
    if self._width:
      self._stream.write("\r" + " " * self._width + "\r")
      self._width = 0
    self._stream.write(text + "\n")
    self._stream.flush()

  def end(self) -> None:
    """Stops the clock and leaves the line: what follows starts on its own."""
    if self._ended is None:
      self._ended = time.perf_counter()
    if self._unshown:
      self._write()
    if self._width:
      self._stream.write("\n")
      self._stream.flush()
    self._width = 0

  def _line(self, step: int, metrics: Mapping[str, float]) -> str:
    rate = self.rate(step)
    line = (
      f"step {step}/{self._total}  {rate * self._images:.0f} img/s  "
      f"ETA {_duration((self._total - step) / max(rate, 1e-9))}"
    )
    for name in self._losses:
      if name in metrics:
        line += f"  {LABELS.get(name, name)} {metrics[name]:.3f}"
    if "target_confidence" in metrics:
      line += f"  confidence {metrics['target_confidence']:.2f}"
    if "input_stall" in metrics:
      line += f"  input stall {metrics['input_stall']:.0%}"
    if self._accuracy is not None:
      top1, at = self._accuracy
      line += f"  soft-NN {top1:.1%} @{at}"
    return line

  def _write(self) -> None:
    line, self._unshown = self._unshown, ""
    if self._in_place:
      # A line that wraps could not be rewritten.
      line = line[: shutil.get_terminal_size().columns - 1]
      self._stream.write("\r" + line.ljust(self._width))
      self._width = len(line)
    else:
      self._stream.write(line + "\n")
    self._stream.flush()


def _duration(seconds: float) -> str:
  minutes, seconds = divmod(round(seconds), 60)
  hours, minutes = divmod(minutes, 60)
  if hours:
    return f"{hours}:{minutes:02}:{seconds:02}"
  return f"{minutes}:{seconds:02}"
