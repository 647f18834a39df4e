"""A run of MLflow."""

from __future__ import annotations

import io
import os
import re
import time
from collections.abc import Mapping

from paws_jax import errors
from paws_jax.loggers import interface

# Of the values of a recipe.
_MOST_CHARACTERS = 500
_MOST_PARAMETERS = 100
_STATUS = {"finished": "FINISHED", "stopped": "KILLED", "failed": "FAILED"}
# A server that is gone should not hold up training for minutes.
_PATIENCE = {
  "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2",
  "MLFLOW_HTTP_REQUEST_TIMEOUT": "20",
}


class MlflowRun:
  """A run of MLflow, at MLFLOW_TRACKING_URI or in files in the run's directory.

  MLFLOW_EXPERIMENT_NAME names the experiment.
  """

  replaces = False

  def __init__(self, start: interface.Start):
    """Starts a run, or continues that of an earlier process."""
    for name, value in _PATIENCE.items():
      os.environ.setdefault(name, value)
    import mlflow

    self._entities = mlflow.entities
    artifacts = None
    if mlflow.is_tracking_uri_set():
      uri = mlflow.get_tracking_uri()
    else:
      uri, artifacts = _own_store(start)
    self._client = mlflow.MlflowClient(tracking_uri=uri)
    if start.run_id:
      self.run_id = start.run_id
      self._client.update_run(self.run_id, status="RUNNING")
      return
    run = self._client.create_run(
      self._experiment(artifacts), run_name=start.workdir.name
    )
    self.run_id = run.info.run_id
    parameters = [
      mlflow.entities.Param(name, str(value)[:_MOST_CHARACTERS])
      for name, value in start.recipe.items()
    ]
    for first in range(0, len(parameters), _MOST_PARAMETERS):
      part = parameters[first : first + _MOST_PARAMETERS]
      self._client.log_batch(self.run_id, params=part)

  def write_scalars(self, step: int, scalars: Mapping[str, float]) -> None:
    """Writes numbers."""
    now = int(time.time() * 1000)
    values = [
      self._entities.Metric(name, value, now, step)
      for name, value in scalars.items()
    ]
    self._client.log_batch(self.run_id, metrics=values)

  def write_text(self, step: int, name: str, text: str) -> None:
    """Writes a text as a tag of the run; a later one replaces it."""
    self._client.set_tag(self.run_id, name, f"step {step}: {text}")

  def write_image(self, step: int, name: str, png: bytes) -> None:
    """Writes an image as a file of the run."""
    del step
    from PIL import Image

    image = Image.open(io.BytesIO(png))
    self._client.log_image(self.run_id, image, f"{name}.png")

  def flush(self) -> None:
    """Does nothing: what was written is there."""

  def close(self, outcome: interface.Outcome) -> None:
    """Marks the run as finished, killed or failed."""
    self._client.set_terminated(self.run_id, _STATUS[outcome])

  def _experiment(self, artifacts: str | None) -> str:
    """Returns the experiment's id; creates the experiment if needed."""
    name = os.environ.get("MLFLOW_EXPERIMENT_NAME", "paws_jax")
    found = self._client.get_experiment_by_name(name)
    if found is not None:
      return found.experiment_id
    return self._client.create_experiment(name, artifact_location=artifacts)


def _own_store(start: interface.Start) -> tuple[str, str]:
  """Returns the addresses of a database and of files in the directory."""
  directory = start.local_directory
  if directory is None:
    raise errors.InputError(
      f"log.writers has mlflow, and --workdir={start.workdir} is a bucket, "
      "which cannot hold its database: set MLFLOW_TRACKING_URI to the address "
      "of a server or a file."
    )
  directory = directory.resolve()
  special = re.search(r"\?|%[0-9A-Fa-f]{2}", str(directory))
  if special:
    # Versions of its library differ in whether these can be escaped.
    raise errors.InputError(
      f"log.writers has mlflow, whose database cannot be in {directory}: "
      f"{special[0]!r} means something else in its address. Choose another "
      "--workdir, or set MLFLOW_TRACKING_URI to the address of a server or a "
      "file."
    )
  return f"sqlite:///{directory}/mlflow.db", (directory / "mlflow").as_uri()
