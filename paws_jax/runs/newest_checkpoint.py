"""What the newest checkpoint of a run says, without restoring it."""

from __future__ import annotations

import dataclasses

from etils import epath

from paws_jax import errors
from paws_jax import json_text
from paws_jax.config import upgrade
from paws_jax.runs import files
from paws_jax.runs import results

# The directory of a run's checkpoints.
CHECKPOINTS = "checkpoints"


@dataclasses.dataclass(frozen=True)
class Checkpoint:
  """The newest checkpoint of a run.

  Attributes:
    step: steps taken.
    epochs: that the run was laid out for; None: it does not say. The stored
      recipe may have more: it is written before the first checkpoint of the
      longer run.
  """

  step: int
  epochs: int | None


def holds_run(workdir: epath.Path) -> bool:
  """Whether the directory holds results that another recipe would spoil."""
  return bool(_steps(workdir)) or (workdir / results.RESULTS).exists()


def read(workdir: epath.Path) -> Checkpoint | None:
  """Reads the newest checkpoint's description; None: there is no checkpoint."""
  steps = _steps(workdir)
  if not steps:
    return None
  path = workdir / CHECKPOINTS / str(max(steps)) / "meta" / "metadata"
  try:
    sealed = files.read_object(path)
    meta = json_text.parse(sealed["text"], non_finite=True)["meta"]
    epochs = upgrade.read(meta["recipe"]).train.epochs
  # Restoring says what is wrong with a damaged one; that of an old version
  # does not hold the recipe.
  except (
    errors.UserError,
    OSError,
    ValueError,
    LookupError,
    TypeError,
    AttributeError,
  ):
    epochs = None
  return Checkpoint(max(steps), epochs)


def _steps(workdir: epath.Path) -> list[int]:
  names = [path.name for path in (workdir / CHECKPOINTS).glob("*")]
  return [int(name) for name in names if name.isdigit()]
