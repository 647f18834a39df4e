"""Section `log` of a recipe."""

from __future__ import annotations

import dataclasses

from paws_jax import errors
from paws_jax.config import fields

# Writes metrics.jsonl, which figures and reports are made of.
JSONL = "jsonl"
TENSORBOARD = "tensorboard"
WRITERS = (JSONL, TENSORBOARD, "wandb", "mlflow")


@dataclasses.dataclass(frozen=True)
class Log(fields.Section):
  """What a run writes and shows."""

  # Steps between lines of metrics.jsonl (means over those steps).
  every_steps: int = fields.field(1, fields.AT_LEAST_ONE)
  # Where metrics are written: jsonl (always), tensorboard, wandb, mlflow.
  writers: tuple[str, ...] = fields.field((JSONL,))
  # Former spelling of "tensorboard" in `writers`.
  tensorboard: bool = fields.field(False)
  # Shown when a run ends: what a reader may want to try after this recipe.
  next_command: str = fields.field("")

  def __post_init__(self) -> None:
    """Separates names that a command line has as "jsonl,tensorboard"."""
    super().__post_init__()
    if all(isinstance(name, str) for name in self.writers):
      names = ",".join(self.writers).split(",") if self.writers else ()
      object.__setattr__(self, "writers", tuple(map(str.strip, names)))

  @property
  def loggers(self) -> tuple[str, ...]:
    """Names of the writers beside that of metrics.jsonl, each once."""
    names = self.writers + ((TENSORBOARD,) if self.tensorboard else ())
    return tuple(name for name in dict.fromkeys(names) if name != JSONL)

  def check(self) -> None:
    """Refuses unknown or repeated writers, and a list without jsonl."""
    for name in self.writers:
      if name not in WRITERS:
        raise errors.InputError(
          f"log.writers is {self.writers}: {name!r} is no writer; choose from "
          f"{', '.join(WRITERS)}."
        )
      if self.writers.count(name) > 1:
        raise errors.InputError(
          f"log.writers is {self.writers}: {name!r} is in it "
          f"{self.writers.count(name)} times; name each writer once."
        )
    if JSONL not in self.writers:
      raise errors.InputError(
        f"log.writers is {self.writers}: add {JSONL!r}, since figures, reports "
        "and the checks of a run's health are made of metrics.jsonl."
      )
