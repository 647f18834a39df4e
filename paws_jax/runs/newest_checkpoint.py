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
  return bool(steps(workdir)) or (workdir / results.RESULTS).exists()


def read(workdir: epath.Path) -> Checkpoint | None:
  """Reads the newest checkpoint's description; None: there is no checkpoint."""
  known = steps(workdir)
  if not known:
    return None
  path = workdir / CHECKPOINTS / str(known[-1]) / "meta" / "metadata"
  try:
    sealed = files.read_object(path) or {}
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
  return Checkpoint(known[-1], epochs)


def steps(workdir: epath.Path) -> list[int]:
  """Returns the steps of a run's checkpoints, damaged ones too, ascending."""
  names = (path.name for path in (workdir / CHECKPOINTS).glob("*"))
  return sorted(int(name) for name in names if name.isdigit())
