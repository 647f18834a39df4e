"""Metrics of training: metrics.jsonl, means over intervals."""

from __future__ import annotations

import json
from collections.abc import Mapping
from collections.abc import Sequence
from typing import Any

import numpy as np
from etils import epath

from paws_jax import json_text
from paws_jax.runs import files
from paws_jax.runs import growing_file

# The parts of the loss of PAWS that are shown: each is at least 0, and 0 is
# best. The sum that is minimized has another minimum with me-max: minus the log
# of the number of classes. Other methods have their own `shown_losses`.
LOSSES = ("cross_entropy", "me_max_kl")
LABELS = {
  "cross_entropy": "cross-entropy",
  "me_max_kl": "me-max KL",
  "nt_xent": "NT-Xent",
  "info_nce": "InfoNCE",
  "assignment_kl": "assignment KL",
  "mean_shift": "mean shift",
  "suncet": "SuNCEt",
}
METRICS = "metrics.jsonl"
# Of the texts in a line, beside the step.
_FINDING_FIELDS = {"step", "finding", "event", "sentence", "remedy"}


class Writer:
  """Appends metrics to `metrics.jsonl`.

  One JSON object per line: "step" and scalars, or "step" and texts. A resumed
  run drops the lines after the step from which it resumes, and writes them
  again. A file with other lines, or where a run has to start again, is renamed,
  and its lines up to that step are copied.
  """

  def __init__(self, workdir: epath.Path, *, first_step: int):
    """Opens the file.

    Args:
      workdir: an existing directory.
      first_step: lines after this step are dropped.
    """
    path = workdir / METRICS
    text = _kept_lines(path, first_step)
    files.replace_text(path, text)
    self._file = growing_file.open_file(path, text.encode())

  def write(self, step: int, scalars: Mapping[str, float]) -> None:
    """Appends one line; every scalar must be finite."""
    self._append(step, {k: float(v) for k, v in scalars.items()})

  def note(self, step: int, texts: Mapping[str, str]) -> None:
    """Appends a line of texts, such as the findings of `monitoring`."""
    self._append(step, dict(texts))

  def _append(self, step: int, values: Mapping[str, Any]) -> None:
    row = {"step": int(step), **values}
    self._file.write(json.dumps(row, allow_nan=False).encode() + b"\n")
    self._file.flush()

  def flush(self) -> None:
    """Writes all lines, also those that a bucket does not have yet."""
    growing_file.write_out(self._file)

  def close(self) -> None:
    """Closes the file."""
    self._file.close()


def read(path: epath.Path) -> list[dict[str, Any]]:
  """Reads the rows of a metrics.jsonl, without lines that are none."""
  if not path.exists():
    return []
  rows = map(_row, files.read_own(path).split(b"\n"))
  return [row for row in rows if row is not None]


def _row(line: bytes) -> dict[str, Any] | None:
  """The object of a line, with a step; None: there is none."""
  try:
    # Of bytes, JSON may be in another encoding.
    row = json_text.parse(line.decode("utf-8-sig"))
  except ValueError:
    return None
  return row if _is_row(row) else None


def _kept_lines(path: epath.Path, first_step: int) -> str:
  """Text of the rows up to a step; renames a file that has more than rows."""
  if not path.exists():
    return ""
  *lines, last = files.read_own(path).split(b"\n")
  rows = [_row(line) for line in lines]
  foreign = sum(
    row is None or (row["step"] > first_step and not _is_own(row))
    for row, line in zip(rows, lines, strict=True)
    if line.strip()
  )
  again = not first_step and any(row and row["step"] > 0 for row in rows)
  # A crash leaves a part of a line, or zeros. One that is complete but for its
  # line end was edited.
  foreign += _row(last) is not None or not _is_beginning(last)
  kept = [
    line.decode()
    for line, row in zip(lines, rows, strict=True)
    if row is not None and row["step"] <= first_step
  ]
  if foreign or again:
    why = f"lines that no run writes: {foreign}"
    if not foreign:
      why = "the run starts again from step 0"
    print(f"{path} is kept as {files.set_aside(path).name} ({why})")
  return "".join(f"{line}\n" for line in kept)


def _is_own(row: Mapping[str, Any]) -> bool:
  """Whether a row holds numbers only, or a finding, as a run writes them."""
  kinds = {type(value) for name, value in row.items() if name != "step"}
  return kinds <= {int, float} or (
    kinds == {str} and row.keys() <= _FINDING_FIELDS
  )


def _is_beginning(line: bytes) -> bool:
  """Whether bytes may be a part of one line; of several, the end is lost."""
  line = line.rstrip(b"\0")
  start = b'{"step": '
  return start.startswith(line) or (
    line.startswith(start) and line.count(start) == 1 and b"\r" not in line
  )


def _is_row(value: Any) -> bool:
  """Whether a value is an object of a step and numbers or texts."""
  return (
    isinstance(value, dict)
    and type(value.get("step")) is int
    and all(type(item) in (int, float, str) for item in value.values())
  )


class StepMeans:
  """Averages metrics of single steps over intervals.

  `pending` is part of checkpoints, so that the interval in which a run was
  stopped is averaged over all its steps.
  """

  def __init__(
    self, every_steps: int, pending: Sequence[Mapping[str, float]] = ()
  ):
    """Starts an interval, or continues one.

    Args:
      every_steps: length of an interval, at least 1; it ends at a multiple.
      pending: `pending` of an earlier object, which this one continues.
    """
    self._every = every_steps
    self.pending = [dict(row) for row in pending]

  def add(
    self, last_step: int, metrics: Mapping[str, np.ndarray]
  ) -> list[tuple[int, dict[str, float]]]:
    """Adds metrics of consecutive steps.

    Args:
      last_step: the last of the k steps.
      metrics: [k] values by name.

    Returns:
      (step, means) of each interval that ended; the learning rate is that of
      its last step.
    """
    count = len(next(iter(metrics.values())))
    done = []
    for i in range(count):
      self.pending.append({k: float(v[i]) for k, v in metrics.items()})
      step = last_step - count + i + 1
      if step % self._every == 0:
        names = self.pending[-1]
        # Steps of an older version may lack some.
        means = {
          k: float(np.mean([row[k] for row in self.pending if k in row]))
          for k in names
        }
        means["learning_rate"] = self.pending[-1]["learning_rate"]
        done.append((step, means))
        self.pending = []
    return done
