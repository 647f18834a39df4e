"""TensorBoard's files, written without TensorFlow."""

from __future__ import annotations

import io
import os
import platform
import time
from collections.abc import Mapping
from typing import Any

from paws_jax.loggers import interface
from paws_jax.runs import growing_file


class TensorBoardFile:
  """An event file in the run's directory."""

  run_id = ""
  replaces = True

  def __init__(self, start: interface.Start):
    """Opens a file; TensorBoard drops what others have after its start."""
    from tensorboard.compat.proto import event_pb2
    from tensorboard.compat.proto import summary_pb2
    from tensorboard.summary.writer import record_writer

    self._events, self._summaries = event_pb2, summary_pb2
    name = f"events.out.tfevents.{time.time():.6f}.{platform.node()}"
    path = start.workdir / f"{name}.{os.getpid()}"
    self._file = growing_file.open_file(path)
    self._records = record_writer.RecordWriter(self._file)
    # TensorBoard sorts files by name, and reads what starts a file first.
    self._append(file_version="brain.Event:2")
    log = event_pb2.SessionLog(status=event_pb2.SessionLog.START)
    self._append(min(start.sent, start.first_step) + 1, session_log=log)
    if start.sent < 0:
      lines = [
        f"    {name} = {value!r}" for name, value in start.recipe.items()
      ]
      self.write_text(0, "recipe", "\n".join(lines))

  def write_scalars(self, step: int, scalars: Mapping[str, float]) -> None:
    """Writes numbers."""
    self._write(
      step, [{"tag": k, "simple_value": v} for k, v in scalars.items()]
    )

  def write_text(self, step: int, name: str, text: str) -> None:
    """Writes a text, which TensorBoard shows as Markdown."""
    from tensorboard.plugins.text import summary_v2

    summary = summary_v2.text_pb(name, text)
    self._append(step, summary=summary)

  def write_image(self, step: int, name: str, png: bytes) -> None:
    """Writes an image."""
    from PIL import Image

    width, height = Image.open(io.BytesIO(png)).size
    image = self._summaries.Summary.Image(
      height=height, width=width, colorspace=3, encoded_image_string=png
    )
    self._write(step, [{"tag": name, "image": image}])

  def flush(self) -> None:
    """Writes the file, also to a bucket."""
    growing_file.write_out(self._file)

  def close(self, outcome: interface.Outcome) -> None:
    """Closes the file."""
    del outcome
    self._file.close()

  def _write(self, step: int, values: list[dict[str, Any]]) -> None:
    parts = [self._summaries.Summary.Value(**value) for value in values]
    self._append(step, summary=self._summaries.Summary(value=parts))

  def _append(self, step: int = 0, **content: Any) -> None:
    event = self._events.Event(wall_time=time.time(), step=step, **content)
    self._records.write(event.SerializeToString())
    self._file.flush()
