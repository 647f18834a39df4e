"""Does the size of a step matter, and do chunks keep what it brings?

  python -m benchmarks.compare.chunks --workdir=runs/chunks

Tables 3 and 4 of the PAWS paper (2021) in small: accuracy on digits against the
size of the support set and of the batch at equal views, which is equal epochs;
and the full step in chunks, each the size of the smallest step and with
BatchNorm statistics of its own, as on a device that holds no more at a time.
The recipe is the quickstart's, its learning rate that of all cells.

Each draw of the labelled images is a run in a directory of its own: the same
command continues after an interruption, and prints the table of what is there.
35 runs of about two minutes each on two quiet cores.
"""

from __future__ import annotations

import dataclasses
import statistics
from collections.abc import Iterator
from collections.abc import Sequence
from typing import Any

import jax
from absl import app
from absl import flags
from etils import epath

from paws_jax import config as config_lib
from paws_jax.config import recipe_files
from paws_jax.parallel import cpu_devices
from paws_jax.runs import compilation_cache
from paws_jax.tasks import pretrain

_WORKDIR = flags.DEFINE_string("workdir", None, "Directory of the runs.")
_DRAWS = flags.DEFINE_integer("draws", 5, "Draws of the labelled images.")
_EPOCHS = flags.DEFINE_integer("epochs", 0, "0: those of the recipe.")
_RECIPE = "quickstart"


@dataclasses.dataclass(frozen=True)
class Cell:
  """A size of the step; `groups` are the chunks of all devices together."""

  batch_size: int
  supports: int
  groups: int = 1

  @property
  def name(self) -> str:
    """Name of its directories."""
    return f"{self.batch_size}-{self.supports}-{self.groups}"


SMALL, FULL = Cell(32, 2), Cell(128, 8)
# The full step, in as many chunks as the smallest one fits into it.
CHUNKED = dataclasses.replace(FULL, groups=4)
CELLS = (
  SMALL,
  Cell(128, 2),
  Cell(128, 4),
  Cell(32, 8),
  Cell(64, 8),
  FULL,
  CHUNKED,
)


def recipe(cell: Cell, draw: int, *, epochs: int, num_devices: int) -> Any:
  """Makes the recipe of a run.

  Args:
    cell: sizes of the step.
    draw: of the labelled images; also the seed.
    epochs: of all runs; 0: those of the quickstart.
    num_devices: among which the groups of BatchNorm are divided.
  """
  config = recipe_files.load(_RECIPE)
  config.seed = config.data.split_seed = draw
  config.train.batch_size = cell.batch_size
  config.support.images_per_class = cell.supports
  config.train.epochs = epochs or config.train.epochs
  config.optim.warmup_epochs = min(config.optim.warmup_epochs, epochs or 2)
  # Only the result counts.
  config.eval.every_steps = config.checkpoint.every_steps = 0
  if cell.groups > 1:
    if cell.groups % num_devices:
      raise app.UsageError(
        f"{cell.groups} groups cannot be divided among {num_devices} devices: "
        "set JAX_NUM_CPU_DEVICES to 1, 2 or 4."
      )
    config.train.chunks = cell.groups // num_devices
    config.train.bn_group_size = 1
  return config_lib.resolve(config)


def run(workdir: str, *, draws: int, epochs: int) -> Iterator[dict[str, Any]]:
  """Trains what is not there yet; yields the result of every run."""
  for draw in range(draws):
    for cell in CELLS:
      config = recipe(cell, draw, epochs=epochs, num_devices=jax.device_count())
      path = epath.Path(workdir) / f"{cell.name}-draw{draw}"
      outcome = pretrain.train(pretrain.prepare(config, str(path)))
      if outcome.row is None:
        raise SystemExit(130)
      yield {"cell": cell, "draw": draw, "top1": outcome.row["top1"]}


def table(rows: Sequence[dict[str, Any]]) -> str:
  """Formats mean and range of the accuracy of each cell."""
  lines = [
    "| batch | supports | BatchNorm | top-1, mean | lowest - highest | draws |",
    "|---|---|---|---|---|---|",
  ]
  for cell in CELLS:
    found = [100 * row["top1"] for row in rows if row["cell"] == cell]
    if found:
      norm = (
        "of the step" if cell.groups == 1 else f"of each of {cell.groups} runs"
      )
      lines.append(
        f"| {cell.batch_size} | {10 * cell.supports} | {norm} | "
        f"{statistics.mean(found):.1f} | {min(found):.1f} - {max(found):.1f} | "
        f"{len(found)} |"
      )
  return "\n".join(lines)


def main(argv: Sequence[str]) -> None:
  """Trains and prints the table, also after each draw."""
  del argv
  cpu_devices.use_cpu_cores(SMALL.batch_size)
  compilation_cache.enable()
  rows = []
  for row in run(_WORKDIR.value, draws=_DRAWS.value, epochs=_EPOCHS.value):
    rows.append(row)
    if row["cell"] == CELLS[-1]:
      print(f"\n{table(rows)}\n", flush=True)


if __name__ == "__main__":
  flags.mark_flag_as_required("workdir")
  app.run(main)
