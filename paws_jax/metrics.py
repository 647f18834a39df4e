"""Where numbers go: metrics.jsonl, TensorBoard, results.json, one line."""

from __future__ import annotations

import dataclasses
import json
import os
import pathlib
import sys
import time
from collections.abc import Mapping
from typing import Any, TextIO

import numpy as np


@dataclasses.dataclass(frozen=True)
class LogConfig:
  """Section `log` of a recipe; fields are explained in config.base."""

  every_steps: int
  tensorboard: bool


METRICS = "metrics.jsonl"
RESULTS = "results.json"


class Writer:
  """Appends metrics to `metrics.jsonl`, and to TensorBoard when asked.

  One JSON object a line: "step" and scalars. A resumed run drops the lines
  after the step it resumes from, which it will write again.
  """

  def __init__(
    self, workdir: pathlib.Path, *, first_step: int, tensorboard: bool
  ):
    """Opens the files.

    Args:
      workdir: an existing directory.
      first_step: lines after this step are dropped.
      tensorboard: whether to write TensorBoard files; loads TensorFlow.
    """
    path = workdir / METRICS
    kept = [row for row in read(path) if row["step"] <= first_step]
    replace_text(path, "".join(json.dumps(row) + "\n" for row in kept))
    self._file = path.open("a", encoding="utf-8")
    self._tensorboard = None
    if tensorboard:
      # Imported here: it loads TensorFlow, which takes seconds.
      from clu import metric_writers

      self._tensorboard = metric_writers.SummaryWriter(str(workdir))

  def write(self, step: int, scalars: Mapping[str, float]) -> None:
    """Appends one line; every scalar must be finite."""
    row = {"step": int(step)} | {k: float(v) for k, v in scalars.items()}
    self._file.write(json.dumps(row, allow_nan=False) + "\n")
    self._file.flush()
    if self._tensorboard is not None:
      self._tensorboard.write_scalars(int(step), dict(scalars))

  def close(self) -> None:
    """Closes the files."""
    self._file.close()
    if self._tensorboard is not None:
      self._tensorboard.close()


def read(path: pathlib.Path) -> list[dict[str, Any]]:
  """Rows of a metrics.jsonl; a last line cut off by a crash is left out."""
  if not path.exists():
    return []
  rows = []
  for line in path.read_text(encoding="utf-8").splitlines():
    try:
      rows.append(json.loads(line))
    except json.JSONDecodeError:
      break
  return rows


def append_result(workdir: pathlib.Path, row: Mapping[str, Any]) -> None:
  """Appends an object to the list in `results.json`, whole or not at all.

  Raises:
    ValueError: when the file is there but is not a JSON list.
  """
  path = workdir / RESULTS
  rows = []
  if path.exists():
    try:
      rows = json.loads(path.read_text(encoding="utf-8"))
    except json.JSONDecodeError as error:
      raise ValueError(f"{path} is not JSON ({error}): move it away.") from None
    if not isinstance(rows, list):
      raise ValueError(f"{path} does not hold a JSON list: move it away.")
  rows.append(dict(row))
  replace_text(path, json.dumps(rows, indent=2, allow_nan=False) + "\n")


def replace_text(path: pathlib.Path, text: str) -> None:
  """Writes a file so that a crash leaves the old one or the new one."""
  temporary = path.with_name(f".{path.name}.tmp")
  temporary.write_text(text, encoding="utf-8")
  os.replace(temporary, path)


class StepMeans:
  """Collects metrics of single steps and gives means over intervals."""

  def __init__(self, every_steps: int):
    """Means are over `every_steps` steps, ending at its multiples."""
    self._every = every_steps
    self._values: list[dict[str, float]] = []

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
      self._values.append({k: float(v[i]) for k, v in metrics.items()})
      step = last_step - count + i + 1
      if step % self._every == 0:
        means = {
          k: float(np.mean([row[k] for row in self._values]))
          for k in self._values[0]
        }
        means["learning_rate"] = self._values[-1]["learning_rate"]
        done.append((step, means))
        self._values = []
    return done


class Progress:
  """One line about where training stands.

  On a terminal the line is rewritten in place; in a file a new one is written
  at most every `interval` seconds.
  """

  def __init__(
    self,
    *,
    total_steps: int,
    first_step: int,
    images_per_step: int,
    interval: float = 5.0,
    stream: TextIO | None = None,
  ):
    """Starts the clock.

    Args:
      total_steps: of the run.
      first_step: where this process starts.
      images_per_step: unlabelled images (or supports) a step.
      interval: seconds between lines where they are not rewritten.
      stream: default standard output.
    """
    self._total = total_steps
    self._first = first_step
    self._images = images_per_step
    self._stream = stream if stream is not None else sys.stdout
    self._in_place = self._stream.isatty()
    self._interval = interval
    self._start = time.perf_counter()
    self._paused = 0.0
    self._last_shown = -float("inf")
    self._accuracy: tuple[float, int] | None = None
    self._width = 0

  def pause(self, seconds: float) -> None:
    """Leaves `seconds` spent on something else out of the rate."""
    self._paused += seconds

  def accuracy(self, top1: float, step: int) -> None:
    """Shows this soft-NN accuracy, a fraction, from now on."""
    self._accuracy = (top1, step)

  def rate(self, step: int) -> float:
    """Steps per second since the start."""
    seconds = time.perf_counter() - self._start - self._paused
    return (step - self._first) / max(seconds, 1e-9)

  def show(self, step: int, metrics: Mapping[str, float]) -> None:
    """Shows the line for a step, if its time has come."""
    now = time.perf_counter()
    last = step >= self._total
    if not (self._in_place or last) and now - self._last_shown < self._interval:
      return
    self._last_shown = now
    rate = self.rate(step)
    line = (
      f"step {step}/{self._total}  {rate * self._images:.0f} img/s  "
      f"ETA {_duration((self._total - step) / max(rate, 1e-9))}  "
      f"cross-entropy {metrics['cross_entropy']:.3f}"
    )
    if "me_max_kl" in metrics:
      line += f"  me-max KL {metrics['me_max_kl']:.3f}"
    if "target_confidence" in metrics:
      line += f"  confidence {metrics['target_confidence']:.2f}"
    if self._accuracy is not None:
      top1, at = self._accuracy
      line += f"  soft-NN {top1:.1%} @{at}"
    self._write(line)

  def end(self) -> None:
    """Leaves the line, so that what follows starts on its own."""
    if self._in_place and self._width:
      self._stream.write("\n")
      self._stream.flush()
    self._width = 0

  def _write(self, line: str) -> None:
    if self._in_place:
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
