"""Makes the reference curves of a recipe out of several runs of it.

  python -m benchmarks.reference_curves --recipe=quickstart runs/q0 runs/q1 ...

Takes three or more finished runs with different seeds (or label draws, where
those are meant to count as spread) and writes
paws_jax/reference_curves/RECIPE.json: for each curve the mean and the band in
which one more run should lie with 95 % probability. Say in RESULTS.md where the
runs come from.
"""

from __future__ import annotations

import argparse
import datetime
import json
import pathlib
import platform
import sys
from typing import Any

from paws_jax import config as config_lib
from paws_jax.monitoring import reference_curves
from paws_jax.runs import files
from paws_jax.runs import metrics
from paws_jax.runs import recipe as recipe_lib
from paws_jax.runs import results

# What the runs may differ in.
_FREE = ("seed", "data.split_seed", "data.dir")
_SECTIONS_FREE = ("log.", "checkpoint.")


def main(arguments: list[str]) -> int:
  """Writes the file; returns the exit status."""
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  parser.add_argument("--recipe", required=True, help="e.g. quickstart")
  parser.add_argument("--output", default=str(reference_curves.DIRECTORY))
  parser.add_argument("workdirs", nargs="+", type=pathlib.Path)
  options = parser.parse_args(arguments)
  try:
    text = make(options.recipe, options.workdirs)
  except (OSError, ValueError) as error:
    print(f"error: {error}", file=sys.stderr)
    return 1
  path = pathlib.Path(options.output) / f"{options.recipe}.json"
  path.parent.mkdir(parents=True, exist_ok=True)
  files.replace_text(path, text)
  print(f"{path}: {len(options.workdirs)} runs, {len(text)} bytes")
  return 0


def make(recipe: str, workdirs: list[pathlib.Path]) -> str:
  """The text of the file.

  Raises:
    ValueError: too few runs, unfinished ones, or such that are not of one
      recipe; named.
    FileNotFoundError: a directory that holds no run.
  """
  recipes = [_recipe(path) for path in workdirs]
  for path, other in zip(workdirs[1:], recipes[1:], strict=True):
    differing = [
      name
      for name in recipe_lib.differences(recipes[0], other)
      if not _is_free(name)
    ]
    if differing:
      raise ValueError(
        f"{path} and {workdirs[0]} differ in {', '.join(differing)}: give runs "
        "of one recipe."
      )
  for path in workdirs:
    if not (path / results.RESULTS).exists():
      raise ValueError(f"{path} has no {results.RESULTS}: let the run finish.")
  runs = [metrics.read(path / metrics.METRICS) for path in workdirs]
  made = {
    "date": datetime.date.today().isoformat(),
    "machine": platform.machine(),
    "devices": _read(workdirs[0] / "environment.json").get("devices"),
    "packages": _read(workdirs[0] / "environment.json").get("packages"),
    "seeds": [[r.seed, r.data.split_seed] for r in recipes],
  }
  made_of = reference_curves.make(runs, recipe, recipes[0])
  return reference_curves.as_json(made_of, made)


def _recipe(path: pathlib.Path) -> config_lib.Recipe:
  recipe = recipe_lib.stored_recipe(path)
  if recipe is None:
    raise FileNotFoundError(f"{path} holds no run: no {recipe_lib.RECIPE}")
  return recipe


def _read(path: pathlib.Path) -> dict[str, Any]:
  if not path.exists():
    raise FileNotFoundError(f"{path.parent} holds no run: no {path.name}")
  return json.loads(path.read_text(encoding="utf-8"))


def _is_free(name: str) -> bool:
  return name in _FREE or name.startswith(_SECTIONS_FREE)


if __name__ == "__main__":
  sys.exit(main(sys.argv[1:]))
