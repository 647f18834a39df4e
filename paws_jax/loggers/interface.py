"""The interface of a writer of metrics, and its context."""

from __future__ import annotations

import dataclasses
import pathlib
from collections.abc import Mapping
from typing import Any
from typing import Literal
from typing import Protocol

from etils import epath

# How a process of a run ended.
Outcome = Literal["finished", "stopped", "failed"]


@dataclasses.dataclass(frozen=True)
class Start:
  """Context in which a writer opens or continues its run.

  Attributes:
    workdir: directory of the run.
    first_step: steps that are done; those after it are written from now on.
    sent: the last step of which an earlier process has sent rows; -1: none, and
      the recipe is to be written.
    run_id: as a writer of an earlier process had it; "": there was none.
    recipe: values by dotted name.
  """

  workdir: epath.Path
  first_step: int
  sent: int
  run_id: str
  recipe: Mapping[str, Any]

  @property
  def local_directory(self) -> pathlib.Path | None:
    """The directory of the run; None if it lies in a bucket."""
    return self.workdir if isinstance(self.workdir, pathlib.Path) else None


class LogWriter(Protocol):
  """Writes metrics somewhere; each method may raise any exception.

  Attributes:
    run_id: by which a later process continues; "" where there is no such thing.
    replaces: whether steps after min(sent, first_step) of an earlier process
      are replaced, so that they have to be written again.
  """

  run_id: str
  replaces: bool

  def write_scalars(self, step: int, scalars: Mapping[str, float]) -> None:
    """Writes numbers; steps never decrease."""

  def write_text(self, step: int, name: str, text: str) -> None:
    """Writes a sentence."""

  def write_image(self, step: int, name: str, png: bytes) -> None:
    """Writes an image, encoded as PNG."""

  def flush(self) -> None:
    """Writes all that is kept, so that it outlives this process."""

  def close(self, outcome: Outcome) -> None:
    """Sends what is left, and ends."""
