"""All writers of a run beside metrics.jsonl, of which any may fail."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Callable
from collections.abc import Iterable
from collections.abc import Mapping
from collections.abc import Sequence
from typing import Any

from etils import epath

from paws_jax import errors
from paws_jax.loggers import interface
from paws_jax.loggers import mlflow_run
from paws_jax.loggers import record
from paws_jax.loggers import tensorboard_files
from paws_jax.loggers import wandb_run

_WRITERS: Mapping[str, Callable[[interface.Start], interface.LogWriter]] = {
  "tensorboard": tensorboard_files.TensorBoardFile,
  "wandb": wandb_run.WandbRun,
  "mlflow": mlflow_run.MlflowRun,
}
_REMEDIES = {
  "tensorboard": "See whether the directory can be written",
  "wandb": "Log in (wandb login), or set WANDB_MODE=offline to write files",
  "mlflow": "See whether MLFLOW_TRACKING_URI is right",
}


@dataclasses.dataclass
class _Sink:
  """A writer and how far it is.

  Attributes:
    writer: the writer.
    skip_to: rows up to this step were sent by an earlier process.
    sent: the last step that was sent.
    flushed: the last step that outlives this process.
  """

  writer: interface.LogWriter
  skip_to: int
  sent: int
  flushed: int


class Loggers:
  """Sends rows to several writers; one that fails is left out from then on."""

  def __init__(self, workdir: epath.Path, sinks: Mapping[str, _Sink]):
    """Keeps open writers, by name."""
    self._workdir = workdir
    self._sinks = dict(sinks)

  def write(self, step: int, row: Mapping[str, float | str]) -> None:
    """Sends numbers, or a finding; rows that were sent before are left out.

    Args:
      step: the row's.
      row: as in metrics.jsonl, without the step.
    """
    for name, sink in list(self._sinks.items()):
      if step > sink.skip_to and self._try(
        name, lambda each: _write_row(each, step, row), step=step
      ):
        sink.sent = max(sink.sent, step)

  def write_result(self, step: int, row: Mapping[str, Any]) -> None:
    """Sends the numbers of a row of results.json as result/NAME."""
    numbers = {
      f"result/{k}": v for k, v in row.items() if type(v) in (int, float)
    }
    for name in list(self._sinks):
      self._try(name, lambda each: _write_row(each, step, numbers))

  def write_image(self, step: int, name: str, path: epath.Path) -> None:
    """Sends a PNG file."""
    for writer in list(self._sinks):
      self._try(
        writer, lambda each: each.write_image(step, name, path.read_bytes())
      )

  def flush(self) -> None:
    """Writes all rows, also those that a bucket does not have yet."""
    for name, sink in list(self._sinks.items()):
      if self._try(name, lambda each: each.flush()):
        sink.flushed = sink.sent

  def close(self, outcome: interface.Outcome) -> None:
    """Closes all writers; later calls of this object do nothing."""
    for name, sink in list(self._sinks.items()):
      if self._try(name, lambda each: each.close(outcome)):
        self._note(name, sink, sink.sent, is_complete=outcome == "finished")
    self._sinks = {}

  def _try(
    self,
    name: str,
    call: Callable[[interface.LogWriter], None],
    *,
    step: int | None = None,
  ) -> bool:
    """Calls a writer; after an error warns, and closes and drops the writer.

    Args:
      name: of the writer.
      call: what it is to do.
      step: of the row, if one is written.

    Returns:
      Whether there was no error.
    """
    sink = self._sinks[name]
    try:
      call(sink.writer)
    except Exception as error:
      print(
        f"warning: {name} of log.writers failed after step {sink.sent} "
        f"({_describe(error)}). The run continues without it; metrics.jsonl "
        "has all rows, and the next start of this run sends what is missing."
      )
      del self._sinks[name]
      self._note(name, sink, _sent_for_good(sink, step))
      # Closing may fail for the same reason.
      with contextlib.suppress(Exception):
        sink.writer.close("stopped")
      return False
    return True

  def _note(
    self, name: str, sink: _Sink, sent: int, *, is_complete: bool = False
  ) -> None:
    """Notes how far a writer is that no longer writes."""
    entry = record.Entry(
      sink.writer.run_id, sent, is_open=False, is_complete=is_complete
    )
    record.note(self._workdir, name, entry)


def open_loggers(
  names: Sequence[str],
  workdir: epath.Path,
  *,
  recipe: Mapping[str, Any],
  rows: Iterable[Mapping[str, Any]],
  first_step: int,
) -> Loggers:
  """Starts writers, or continues those of an earlier process.

  A writer that lacks rows of metrics.jsonl up to `first_step` gets them.

  Args:
    names: of `log.writers`; "jsonl" is none of them.
    workdir: directory of the run.
    recipe: values by dotted name.
    rows: of metrics.jsonl, those after `first_step` included.
    first_step: steps that are done.

  Raises:
    errors.InputError: one cannot start a run; where it could once, a warning is
      printed.
  """
  rows = list(rows)
  known = record.read(workdir)
  opened = Loggers(workdir, {})
  for name in names:
    entry = known.get(name)
    start = interface.Start(
      workdir=workdir,
      first_step=first_step,
      sent=_sent_before(entry, rows),
      run_id=entry.run_id if entry else "",
      recipe=recipe,
    )
    try:
      sink = _open(name, start, is_new=entry is None)
    except errors.UserError:
      opened.close("failed")
      raise
    if sink is not None:
      opened._sinks[name] = sink
  for row in rows:
    if row["step"] <= first_step:
      opened.write(row["step"], {k: v for k, v in row.items() if k != "step"})
  for name, sink in opened._sinks.items():
    record.note(workdir, name, record.Entry(sink.writer.run_id, sink.sent))
  return opened


def incomplete(
  names: Sequence[str], workdir: epath.Path, rows: Sequence[Mapping[str, Any]]
) -> list[str]:
  """Returns the writers that have not got all of a finished run.

  Args:
    names: of `log.writers`.
    workdir: directory of the run.
    rows: of metrics.jsonl.
  """
  known = record.read(workdir)
  complete = {
    name
    for name, entry in known.items()
    if entry.is_complete and entry.sent >= _last_step(rows)
  }
  return [name for name in names if name not in complete]


def _open(name: str, start: interface.Start, *, is_new: bool) -> _Sink | None:
  """Starts a writer; None, with a warning, if it cannot continue its run."""
  sent = start.sent
  try:
    writer = _WRITERS[name](start)
  except errors.UserError:
    raise
  except Exception as error:
    problem = f"{name} of log.writers cannot start ({_describe(error)})"
    if is_new:
      raise errors.InputError(
        f"{problem}. {_REMEDIES[name]}, or take it out of log.writers."
      ) from error
    print(
      f"warning: {problem}; the run continues without it, and its next start "
      "sends what is missing."
    )
    entry = record.Entry(start.run_id, sent, is_open=False)
    record.note(start.workdir, name, entry)
    return None
  if writer.replaces:
    sent = min(sent, start.first_step)
  # Open only when the rows up to here are sent, see `_sent_before`.
  entry = record.Entry(writer.run_id, sent, is_open=False)
  record.note(start.workdir, name, entry)
  return _Sink(writer, skip_to=sent, sent=sent, flushed=sent)


def _sent_for_good(sink: _Sink, step: int | None) -> int:
  """Returns the last step whose rows need not be sent again.

  Args:
    sink: its writer has failed.
    step: of the row that was written then; None: it was none.
  """
  if sink.writer.replaces:
    return sink.flushed
  # Other rows of that step may have been sent: they are sent twice then.
  return sink.sent if step is None else min(sink.sent, step - 1)


def _sent_before(
  entry: record.Entry | None, rows: Sequence[Mapping[str, Any]]
) -> int:
  """Returns the last step of which a writer has the rows; -1: none.

  Args:
    entry: what is noted about it.
    rows: of metrics.jsonl.
  """
  if entry is None:
    return -1
  # A process that was killed noted nothing; its rows went to metrics.jsonl
  # first.
  return max(entry.sent, _last_step(rows)) if entry.is_open else entry.sent


def _last_step(rows: Sequence[Mapping[str, Any]]) -> int:
  return max((row["step"] for row in rows), default=0)


def _write_row(
  writer: interface.LogWriter, step: int, row: Mapping[str, float | str]
) -> None:
  scalars = {k: float(v) for k, v in row.items() if not isinstance(v, str)}
  if scalars:
    writer.write_scalars(step, scalars)
  texts = {k: v for k, v in row.items() if isinstance(v, str)}
  if texts:
    title = texts.get("finding", "note")
    text = " ".join(v for k, v in texts.items() if k != "finding")
    writer.write_text(step, title.replace(" ", "_"), text)


def _describe(error: Exception) -> str:
  """Returns the first line of a message, or the kind of error."""
  lines = str(error).strip().splitlines()
  return lines[0][:300] if lines else type(error).__name__
