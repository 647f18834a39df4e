"""Progress lines of a training run, and of the reading of images."""

from __future__ import annotations

import contextlib
import shutil
import sys
import time
from collections.abc import Iterator
from collections.abc import Mapping
from collections.abc import Sequence
from typing import TextIO

from paws_jax import text as text_lib
from paws_jax.runs import metrics as metrics_lib

_SECONDS_BETWEEN_LINES = 10.0
# Metrics of which the first that is there is shown, and their names.
_ACCURACIES = {"class_head_top1": "class head", "soft_nn_top1": "soft-NN"}


class Progress:
  """The line that shows the progress of training.

  On a terminal the line is rewritten in place; in a file a new one is written
  at most every `interval` seconds, and always the last one.
  """

  def __init__(
    self,
    *,
    total_steps: int,
    first_step: int,
    images_per_step: int,
    losses: Sequence[str] = metrics_lib.LOSSES,
    interval: float = 5.0,
    stream: TextIO | None = None,
  ):
    """Starts the clock.

    Args:
      total_steps: steps of the run.
      first_step: step at which this process starts.
      images_per_step: unlabelled images (or supports) per step.
      losses: metrics to show if present: `shown_losses` of the method.
      interval: seconds between lines that are not rewritten.
      stream: where to write; by default standard output.
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
    self._accuracy: tuple[str, float, int] | None = None
    self._width = 0
    self._unshown = ""

  @contextlib.contextmanager
  def paused(self) -> Iterator[None]:
    """Excludes the time inside the context from the rate."""
    start = time.perf_counter()
    try:
      yield
    finally:
      self._paused += time.perf_counter() - start

  def accuracy(self, metrics: Mapping[str, float], step: int) -> None:
    """Adds the accuracy that decides, if any, to the following lines."""
    for name, decides in _ACCURACIES.items():
      if name in metrics:
        self._accuracy = (decides, metrics[name], step)
        return

  def seconds(self) -> float:
    """Returns the seconds from the start to now or the end, without pauses."""
    now = time.perf_counter() if self._ended is None else self._ended
    return now - self._start - self._paused

  def rate(self, step: int) -> float:
    """Returns the steps per second since the start."""
    return (step - self._first) / max(self.seconds(), 1e-9)

  def show(self, step: int, metrics: Mapping[str, float]) -> None:
    """Shows the line for a step, now or when the line ends."""
    self._unshown = self._line(step, metrics)
    now = time.perf_counter()
    if self._in_place or now - self._last_shown >= self._interval:
      self._last_shown = now
      self._write()

  def say(self, text: str) -> None:
    """Writes separate lines; the line of progress continues below them."""
    if self._width:
      self._stream.write("\r" + " " * self._width + "\r")
      self._width = 0
    self._stream.write(text + "\n")
    self._stream.flush()

  def end(self) -> None:
    """Stops the clock and ends the line."""
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
        line += f"  {metrics_lib.LABELS.get(name, name)} {metrics[name]:.3f}"
    if "target_confidence" in metrics:
      line += f"  confidence {metrics['target_confidence']:.2f}"
    if "input_stall" in metrics:
      line += f"  input stall {metrics['input_stall']:.0%}"
    if self._accuracy is not None:
      decides, top1, at = self._accuracy
      line += f"  {decides} {top1:.1%} @{at}"
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


class Images:
  """A progress line with the number of images that were read, or encoded."""

  def __init__(self, verb: str = "read") -> None:
    """Starts the clock."""
    self._verb = verb
    self._start = self._shown = time.perf_counter()
    self._in_place = sys.stdout.isatty()
    self._width = 0

  def __enter__(self) -> Images:
    return self

  def __exit__(self, *_: object) -> None:
    if self._width:
      print(f"\r{' ' * self._width}\r", end="", flush=True)

  def show(self, done: int, total: int) -> None:
    """Prints the line if it is due; rewrites it on a terminal."""
    now = time.perf_counter()
    interval = 0.5 if self._in_place else _SECONDS_BETWEEN_LINES
    if now - self._shown < interval:
      return
    self._shown = now
    rate = done / (now - self._start)
    line = (
      f"  {self._verb} {done:,} of {total:,} images  "
      f"{text_lib.rounded(rate)} img/s  ETA {(total - done) / rate:.0f} s"
    )
    if self._in_place:
      print("\r" + line.ljust(self._width), end="", flush=True)
      self._width = len(line)
    else:
      print(line, flush=True)
