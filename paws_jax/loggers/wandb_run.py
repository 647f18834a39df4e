"""A run of Weights & Biases."""

from __future__ import annotations

import io
import os
from collections.abc import Mapping
from typing import Any

from paws_jax.loggers import interface


class WandbRun:
  """A run of Weights & Biases, online or, with WANDB_MODE=offline, in files.

  Its environment variables apply: WANDB_PROJECT, WANDB_ENTITY, WANDB_NAME.
  """

  replaces = False

  def __init__(self, start: interface.Start):
    """Starts a run, or continues that of an earlier process."""
    import wandb

    self._wandb = wandb
    directory = start.local_directory
    self._run = wandb.init(
      project=os.environ.get("WANDB_PROJECT", "paws_jax"),
      name=os.environ.get("WANDB_NAME") or start.workdir.name,
      id=start.run_id or None,
      resume="allow",
      config=dict(start.recipe),
      dir=None if directory is None else str(directory),
      # A notebook may have a run of its own.
      reinit="create_new",
      settings=wandb.Settings(console="off", disable_git=True, save_code=False),
    )
    self.run_id = self._run.id

  def write_scalars(self, step: int, scalars: Mapping[str, float]) -> None:
    """Writes numbers."""
    self._log(step, dict(scalars))

  def write_text(self, step: int, name: str, text: str) -> None:
    """Writes a text into the history of the run."""
    self._log(step, {name: text})

  def write_image(self, step: int, name: str, png: bytes) -> None:
    """Writes an image."""
    from PIL import Image

    image = self._wandb.Image(Image.open(io.BytesIO(png)))
    self._log(step, {name: image})

  def flush(self) -> None:
    """Does nothing: its own process sends what was written."""

  def close(self, outcome: interface.Outcome) -> None:
    """Waits until all is sent, and marks the run as finished or failed."""
    self._run.finish(exit_code=int(outcome == "failed"))

  def _log(self, step: int, values: dict[str, Any]) -> None:
    # A run that was continued refuses the last step that it has.
    self._run.log(values, step=max(step, self._run.step))
