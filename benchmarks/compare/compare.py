"""Methods side by side: the same split, encoder and compute budget.

  python -m benchmarks.compare.compare
  python -m benchmarks.compare.compare --labels=1,2,4,10 --output=runs/x.jsonl
  python -m benchmarks.compare.compare --unknown_classes=5

Trains the methods of benchmarks/compare/recipes.py for each number of labels a
class and each seed, and prints accuracy on the test images, mean and standard
deviation over seeds, with what each method has cost: of the frozen encoder the
nearest labelled image and a linear probe on the features of the trunk, and soft
nearest neighbors on the output of the heads; then the latter once more, after
fine-tuning.

Methods share split and trunk, and but for those with a class head also batch,
optimizer and augmentation. Those with a recipe on digits of their own have its
settings of the method and its heads; those with a class head have all of it but
data, trunk and fine-tuning, and draw labelled images class by class.

The budget, --views, is the number of crops that pass through the trained
encoder forwards and backwards, of unlabelled and labelled images alike; of all
methods the same part of it is for fine-tuning (--finetune_share). Passes
without a gradient do not count, but their FLOPs do: with those of an average
network MoCo, BYOL and mean shift take a third more FLOPs a view, Mean Teacher a
fifth more, and MPL has two of its labelled images. Each method takes as many
complete epochs as fit. Evaluation does not count. FLOPs are those of
convolutions and matrix products, without what a method computes between epochs;
they differ between methods although views do not. benchmarks/RESULTS.md says
how long it takes.

A seed draws the labelled images and the initial weights. Methods that use no
labels are pre-trained once for each seed, and their cost is that of each cell.
Fine-tuning is the protocol "suncet" on all labelled images with one learning
rate: with one label a class there is nothing to choose it on. The default had
the best mean of four methods on label draw 10, which is not among the default
seeds (benchmarks/RESULTS.md).

With --unknown_classes=5, labels are of the first classes only while unlabelled
images are of all: accuracy on test images of the known classes, and the AUROC
with which the in-domain probability (a function of the largest cosine to a
labelled image, as novelty is) distinguishes them. Nothing is fine-tuned
then, unless --finetune_share is given.

Every finished cell is a line of --output; a second start goes on, and prints
the tables at once when nothing is missing. Tables and figure lie beside it.
"""

from __future__ import annotations

import dataclasses
import json
import pathlib
import sys
import time
from typing import Any

import ml_collections
from absl import app
from absl import flags
from absl import logging
from ml_collections import config_flags

from benchmarks import slices
from benchmarks import timing
from benchmarks.compare import data as comparison_data
from benchmarks.compare import page as comparison_page
from benchmarks.compare import recipes as comparison_recipes
from benchmarks.compare import runs as comparison_runs
from paws_jax import errors
from paws_jax import json_text
from paws_jax.parallel import cpu_devices
from paws_jax.runs import compilation_cache
from paws_jax.runs import files

_ROOT = pathlib.Path(__file__).resolve().parents[2]
_CONFIG = config_flags.DEFINE_config_file(
  "config",
  str(_ROOT / "configs" / "ropaws.py"),
  "The recipe that all methods share; the default is the quickstart's, with "
  "RoPAWS' numbers.",
  lock_config=True,
)
_METHODS = flags.DEFINE_list(
  "methods",
  None,
  f"Of {', '.join(comparison_recipes.METHODS)}; default: all, or with unknown "
  "classes paws and ropaws.",
)
_LABELS = flags.DEFINE_list("labels", "1,4", "Labelled images of each class.")
_SEEDS = flags.DEFINE_list("seeds", "0,1,2", "Of label draws and weights.")
_VIEWS = flags.DEFINE_integer("views", 150_000, "Budget of a cell.")
_SHARE = flags.DEFINE_float(
  "finetune_share",
  None,
  "Of the budget; 0: nothing is fine-tuned. Default: 0.1, or with unknown "
  "classes 0.",
)
_RATE = flags.DEFINE_float("finetune_lr", 0.3, "Learning rate of fine-tuning.")
_UNKNOWN = flags.DEFINE_integer(
  "unknown_classes", 0, "So many of the last classes are never labelled."
)
_OUTPUT = flags.DEFINE_string(
  "output", "", 'Finished cells; "": a file in runs/.'
)


@dataclasses.dataclass(frozen=True)
class Plan:
  """What the flags ask for.

  Attributes:
    cells: in the order in which they run.
    settings: what all cells of a file have in common; "recipe" is added when
      the data are there.
    path: of that file.
  """

  cells: tuple[comparison_runs.Cell, ...]
  settings: dict[str, Any]
  path: pathlib.Path


def main(argv: list[str]) -> int:
  """Runs what is missing, and prints; returns the exit status."""
  if len(argv) > 1:
    print(f"error: unknown arguments: {' '.join(argv[1:])}", file=sys.stderr)
    return 2
  # Of JAX, about platforms that are not there.
  logging.set_verbosity(logging.WARNING)
  try:
    return _run(_CONFIG.value)
  except (ValueError, TypeError, FileNotFoundError) as error:
    print(f"error: {error}", file=sys.stderr)
    return 2
  except (errors.NonFiniteError, OSError) as error:
    print(f"error: {error}", file=sys.stderr)
    return 1


def _run(config: ml_collections.ConfigDict) -> int:
  plan = _plan(config)
  data = comparison_data.load(config, unknown_classes=_UNKNOWN.value)
  plan.settings["recipe"] = comparison_recipes.digest(config, data)
  rows = _finished(plan)
  budget = comparison_recipes.Budget(
    plan.settings["views"],
    plan.settings["finetune_share"],
    plan.settings["finetune_lr"],
  )
  # What does not fit is refused before anything is trained.
  recipes = [
    comparison_recipes.recipe(
      config, comparison_recipes.METHODS[name], budget, data
    )
    for name in dict.fromkeys(cell.method for cell in plan.cells)
  ]
  cpu_devices.use_cpu_cores(config.train.batch_size)
  for recipe in recipes:
    comparison_recipes.check_views(recipe, data.arrays.name)
  compilation_cache.enable()
  timing.print_setting()
  print(f"{data.arrays.name}; {_described(plan.settings)}")
  known = {_cell(row) for row in rows}
  missing = [cell for cell in plan.cells if cell not in known]
  runner = comparison_runs.Runner(config, data, budget)
  start, status = time.perf_counter(), 0
  for number, cell in enumerate(missing, start=1):
    label = comparison_recipes.METHODS[cell.method].label
    print(
      f"cell {number} of {len(missing)} ({len(known)} were there): {label}, "
      f"{cell.labels} labels a class, seed {cell.seed}",
      flush=True,
    )
    try:
      row = runner.run(cell)
    except errors.NonFiniteError as error:
      print(f"error: {label}: {error}; the cell stays empty", file=sys.stderr)
      status = 1
      continue
    rows.append(row | {"settings": plan.settings})
    _store(plan.path, rows)
    print(
      f"{comparison_page.summary(row)}; "
      f"{(time.perf_counter() - start) / 60:.1f} minutes so far",
      flush=True,
    )
  _show(plan, rows)
  return status


def _plan(config: ml_collections.ConfigDict) -> Plan:
  """Checks the flags.

  Raises:
    ValueError: names the flag that cannot be.
  """
  known = comparison_recipes.METHODS
  if _METHODS.value is None:
    methods = ["paws", "ropaws"] if _UNKNOWN.value else list(known)
  else:
    methods = _METHODS.value
  for name in methods:
    if name not in known:
      raise ValueError(f"--methods has {name!r}: known are {', '.join(known)}.")
  labels = _numbers("labels", _LABELS.value, 1, comparison_data.MOST_LABELS)
  seeds = _numbers("seeds", _SEEDS.value, 0, None)
  if not methods:
    raise ValueError("--methods is empty: name at least one.")
  share = _SHARE.value
  if share is None:
    share = 0.0 if _UNKNOWN.value else 0.1
  _check_budget(config, share)
  cells = tuple(
    comparison_runs.Cell(method, count, seed)
    for seed in seeds
    for count in labels
    for method in dict.fromkeys(methods)
  )
  settings = {
    "views": _VIEWS.value,
    "finetune_share": share,
    "finetune_lr": _RATE.value,
    "unknown_classes": _UNKNOWN.value,
  }
  name = "comparison"
  if _UNKNOWN.value:
    name += f"_unknown{_UNKNOWN.value}"
  path = pathlib.Path(_OUTPUT.value or f"runs/{name}.jsonl")
  if path.suffix != ".jsonl":
    raise ValueError(
      f"--output is {str(path)!r}: give a name that ends in .jsonl; the page "
      "and the figure lie beside it as .md and .png."
    )
  return Plan(cells, settings, path)


def _check_budget(config: ml_collections.ConfigDict, share: float) -> None:
  for name, flag, lowest in (
    ("views", _VIEWS, 1),
    ("unknown_classes", _UNKNOWN, 0),
  ):
    if flag.value < lowest:
      raise ValueError(f"--{name} is {flag.value}: at least {lowest}.")
  if not 0 <= share < 1:
    raise ValueError(f"--finetune_share is {share:g}: at least 0, and below 1.")
  if not 0 < _RATE.value < float("inf"):
    raise ValueError(f"--finetune_lr is {_RATE.value:g}: greater than 0.")
  if config.model.init_from:
    raise ValueError(
      f"model.init_from is {config.model.init_from!r}: methods are compared "
      "from random weights; set it to ''."
    )


def _numbers(
  name: str, texts: list[str], lowest: int, highest: int | None
) -> list[int]:
  """Whole numbers of a flag, each once, in their order."""
  limits = f"from {lowest}" + (f" to {highest}" if highest else "")
  try:
    numbers = [int(text) for text in texts]
  except ValueError:
    numbers = []
  wrong = [n for n in numbers if n < lowest or n > (highest or n)]
  if not numbers or wrong:
    raise ValueError(
      f"--{name} is {','.join(texts)!r}: give whole numbers {limits}, "
      f"e.g. --{name}=1,4."
    )
  return list(dict.fromkeys(numbers))


def _finished(plan: Plan) -> list[dict[str, Any]]:
  """The file's cells, if they are of these settings.

  Raises:
    ValueError: they are of others, or the file is damaged.
  """
  lines = files.read_bytes(plan.path).split(b"\n") if plan.path.exists() else []
  rows = []
  for number, line in enumerate(lines, start=1):
    try:
      row = json_text.parse(line)
      rows.append(row | {"settings": dict(row["settings"])})
    except (KeyError, TypeError, ValueError) as error:
      # After the last line end is nothing, or a line that was being written.
      if number == len(lines):
        break
      raise ValueError(
        f"line {number} of {plan.path} is no cell of a comparison ({error!r}): "
        "repair it, or give another --output."
      ) from None
  for row in rows:
    if "top1" in row:
      raise ValueError(
        f"{plan.path} was written before all methods were fine-tuned: give "
        "another --output."
      )
    for name, value in plan.settings.items():
      found = row["settings"].get(name)
      if found != value:
        raise ValueError(
          f"{plan.path} holds cells whose {name} is {found!r}, but now it is "
          f"{value!r}: give another --output."
        )
  return rows


def _cell(row: dict[str, Any]) -> comparison_runs.Cell:
  return comparison_runs.Cell(row["method"], row["labels"], row["seed"])


def _store(path: pathlib.Path, rows: list[dict[str, Any]]) -> None:
  path.parent.mkdir(parents=True, exist_ok=True)
  files.replace_text(path, "".join(f"{json.dumps(row)}\n" for row in rows))


def _described(settings: dict[str, Any]) -> str:
  text = f"budget: {settings['views']:,} views a cell"
  if settings["finetune_share"]:
    text += (
      f", of which fine-tuning has {settings['finetune_share']:.0%} at "
      f"learning rate {settings['finetune_lr']:g}"
    )
  if settings["unknown_classes"]:
    text += f"; {settings['unknown_classes']} classes are never labelled"
  return text


def _show(plan: Plan, rows: list[dict[str, Any]]) -> None:
  """Prints the tables of all cells that are there; writes them and a figure."""
  names = {k: m.label for k, m in comparison_recipes.METHODS.items()}
  shown = comparison_page.tables(rows, names)
  print(f"\n{comparison_page.as_text(shown)}")
  page = plan.path.with_suffix(".md")
  title = f"{rows[0]['dataset']}; {_described(plan.settings)}"
  text = comparison_page.as_markdown(shown)
  files.replace_text(page, f"{title}\n\n{text}\n{comparison_page.NOTES}\n")
  figure = plan.path.with_suffix(".png")
  comparison_page.draw(figure, rows, names, title)
  for path in (plan.path, page, figure):
    print(path)


if __name__ == "__main__":
  app.run(main, flags_parser=slices.parse_flags)
