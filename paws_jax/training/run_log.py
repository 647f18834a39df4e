"""metrics.jsonl and the loggers of a run as one writer."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from etils import epath

from paws_jax import config as config_lib
from paws_jax.config import upgrade
from paws_jax.loggers import interface
from paws_jax.loggers import loggers as loggers_lib
from paws_jax.loggers import record
from paws_jax.plots import training_figure
from paws_jax.runs import metrics


class RunLog:
  """Writes each row to metrics.jsonl, then to the loggers; for process 0."""

  def __init__(
    self, recipe: config_lib.Recipe, workdir: epath.Path, first_step: int
  ):
    """Opens what `log.writers` names, or continues it.

    Args:
      recipe: of the run.
      workdir: an existing directory.
      first_step: rows after this step are dropped from metrics.jsonl.

    Raises:
      errors.UserError: as `loggers.open_loggers` and `metrics.read`.
    """
    self._path = workdir / metrics.METRICS
    if first_step == 0:
      record.clear(workdir)
    self._loggers = loggers_lib.open_loggers(
      recipe.log.loggers,
      workdir,
      recipe=upgrade.flatten(recipe.to_dict()),
      rows=self.rows(),
      first_step=first_step,
    )
    self._file = metrics.Writer(workdir, first_step=first_step)

  def rows(self) -> list[dict[str, Any]]:
    """Reads the rows of metrics.jsonl."""
    return metrics.read(self._path)

  def write(self, step: int, scalars: Mapping[str, float]) -> None:
    """Writes a row; every scalar must be finite."""
    self._file.write(step, scalars)
    self._loggers.write(step, scalars)

  def note(self, step: int, texts: Mapping[str, str]) -> None:
    """Writes texts, such as the findings of `monitoring`."""
    self._file.note(step, texts)
    self._loggers.write(step, texts)

  def result(self, step: int, row: Mapping[str, Any]) -> None:
    """Sends a row of results.json and the figure, to the loggers alone."""
    _send_result(self._loggers, self._path.parent, step, row)

  def flush(self) -> None:
    """Writes all rows, also those that a bucket does not have."""
    self._file.flush()
    self._loggers.flush()

  def close(self, *, failed: bool, done: bool) -> None:
    """Closes all.

    Args:
      failed: whether an error ends the run.
      done: whether all steps are taken.
    """
    self._file.close()
    outcome: interface.Outcome = "finished" if done else "stopped"
    self._loggers.close("failed" if failed else outcome)


def send_finished(
  recipe: config_lib.Recipe,
  workdir: epath.Path,
  *,
  step: int,
  row: Mapping[str, Any],
) -> None:
  """Sends a finished run to the loggers that lack a part of it; in process 0.

  Args:
    recipe: of the run.
    workdir: with metrics.jsonl and the figure.
    step: the last step.
    row: of results.json.

  Raises:
    errors.UserError: as `loggers.open_loggers` and `metrics.read`.
  """
  rows = metrics.read(workdir / metrics.METRICS)
  names = loggers_lib.incomplete(recipe.log.loggers, workdir, rows)
  if not names:
    return
  print(f"sending this run to {', '.join(names)} ...")
  loggers = loggers_lib.open_loggers(
    names,
    workdir,
    recipe=upgrade.flatten(recipe.to_dict()),
    rows=rows,
    first_step=step,
  )
  try:
    _send_result(loggers, workdir, step, row)
  except BaseException:
    loggers.close("stopped")
    raise
  loggers.close("finished")


def _send_result(
  loggers: loggers_lib.Loggers,
  workdir: epath.Path,
  step: int,
  row: Mapping[str, Any],
) -> None:
  figure = workdir / training_figure.TRAINING
  loggers.write_result(step, row)
  loggers.write_image(step, figure.stem, figure)
