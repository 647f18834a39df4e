"""metrics.jsonl and the loggers of a run as one writer."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from etils import epath

from paws_jax import config as config_lib
from paws_jax.config import upgrade
from paws_jax.loggers import interface
from paws_jax.loggers import loggers as loggers_lib
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
    figure = self._path.with_name(training_figure.TRAINING)
    self._loggers.write_result(step, row)
    self._loggers.write_image(step, figure.stem, figure)

  def flush(self) -> None:
    """Writes all rows of metrics.jsonl, also those a bucket does not have."""
    self._file.flush()

  def close(self, *, failed: bool, done: bool) -> None:
    """Closes all.

    Args:
      failed: whether an error ends the run.
      done: whether all steps are taken.
    """
    self._file.close()
    outcome: interface.Outcome = "finished" if done else "stopped"
    self._loggers.close("failed" if failed else outcome)
