"""Reference curves of successful runs, with which to compare another run.

A measured recipe ships `reference_curves/NAME.json`: for each metric the mean
of several runs and a band in which another run should lie;
benchmarks/reference_curves.py writes it. Any other run may be a reference
too; it has curves but no band.
"""

from __future__ import annotations

import dataclasses
import json
import pathlib
from collections.abc import Mapping
from collections.abc import Sequence
from typing import Any

import numpy as np
from etils import epath

from paws_jax import config as config_lib
from paws_jax import errors
from paws_jax import json_text
from paws_jax.config import upgrade
from paws_jax.runs import files
from paws_jax.runs import metrics
from paws_jax.runs import recipe as recipe_lib

DIRECTORY = pathlib.Path(__file__).with_suffix("")
# Metrics to compare; a run may have only some of them.
CURVES = ("cross_entropy", "target_confidence", "soft_nn_top1")
# Losses to compare where the first of these is missing because the method
# minimizes another loss. Other methods report them without minimizing them.
_OTHER_LOSSES = ("nt_xent", "suncet")
# Smallest half-width of a band, in nats or as a fraction.
_MIN_HALF_WIDTH = 0.01
# Number of points over which the variance is averaged, as few runs give a
# poor estimate at one step.
_SMOOTHED_POINTS = 5

# Fields that do not make another recipe: those that vary within a band, and
# those of the computation of a step. `runs.recipe` ignores further fields.
IGNORED_FIELDS = (
  "seed",
  "data.split_seed",
  "data.labels_file",
  "method.health_metrics",
  "train.remat",
  "train.steps_per_call",
)
# Paths of images; the runs of a band are from another machine.
PATH_FIELDS = (
  "data.dir",
  "data.manifest",
  "data.unlabelled_dir",
  "data.test_dir",
)


@dataclasses.dataclass(frozen=True, eq=False)
class Curve:
  """A metric over the steps.

  Attributes:
    steps: int [n], rising.
    mean: float [n].
    low: lower edge of the band, float [n]; None: there is no band.
    high: upper edge, as `low`.
  """

  steps: np.ndarray
  mean: np.ndarray
  low: np.ndarray | None = None
  high: np.ndarray | None = None


@dataclasses.dataclass(frozen=True, eq=False)
class Reference:
  """The reference of a comparison.

  Attributes:
    name: a recipe, or the directory of a run.
    num_runs: number of runs behind the curves.
    curves: curves by metric.
    recipe: recipe of the runs; None: unknown.
  """

  name: str
  num_runs: int
  curves: Mapping[str, Curve]
  recipe: config_lib.Recipe | None = None


def series(
  rows: Sequence[Mapping[str, Any]], name: str
) -> tuple[np.ndarray, np.ndarray]:
  """Returns steps [n] and values [n] of a metric in lines of metrics.jsonl."""
  points = [
    (row["step"], row[name])
    for row in rows
    if isinstance(row.get(name), (int, float))
  ]
  steps, values = zip(*points, strict=True) if points else ((), ())
  return np.array(steps, int), np.array(values, float)


def _comparable_metrics(rows: Sequence[Mapping[str, Any]]) -> tuple[str, ...]:
  """Returns the metrics of a run to compare."""
  if any(CURVES[0] in row for row in rows):
    return CURVES
  return CURVES + _OTHER_LOSSES


def find(name: str) -> Reference:
  """Reads the reference that `--compare_to` names.

  Args:
    name: the directory of a run, or one of `available()`.

  Raises:
    FileNotFoundError: neither exists.
    ValueError: the directory has no curves, or a file is damaged.
  """
  path = files.resolve(name)
  if (path / metrics.METRICS).exists():
    return _from_run(path)
  if path.is_dir():
    raise errors.InputError(
      f"--compare_to={name} has no {metrics.METRICS}: name the directory of a "
      "run."
    )
  if name not in available():
    raise errors.MissingFileError(
      f"--compare_to={name} is neither the directory of a run nor a recipe "
      f"with reference curves ({', '.join(available()) or 'none exist yet'})."
    )
  return read(DIRECTORY / f"{name}.json")


def available() -> list[str]:
  """Returns the recipes with reference curves, sorted."""
  return sorted(path.stem for path in DIRECTORY.glob("*.json"))


def _from_run(path: epath.Path) -> Reference:
  rows = metrics.read(path / metrics.METRICS)
  curves = {}
  for name in _comparable_metrics(rows):
    steps, values = series(rows, name)
    if len(steps):
      curves[name] = Curve(steps, values)
  if not curves:
    raise errors.InputError(
      f"--compare_to={path}: its {metrics.METRICS} has none of "
      f"{', '.join(_comparable_metrics(rows))}: train that run first."
    )
  return Reference(str(path), 1, curves, recipe_lib.stored_recipe(path))


def read(path: pathlib.Path) -> Reference:
  """Reads reference curves.

  Raises:
    ValueError: when the file is damaged.
  """
  try:
    stored = json_text.parse(path.read_bytes())
    curves = {
      name: Curve(**{k: _numbers(k, v) for k, v in curve.items()})
      for name, curve in stored["curves"].items()
    }
    recipe = stored.get("config")
    if not isinstance(recipe, dict | None):
      raise errors.InputError(f"config is {recipe!r}, not a recipe")
    if recipe is not None:
      recipe = upgrade.read(recipe)
    reference = Reference(stored["recipe"], stored["num_runs"], curves, recipe)
    for name, curve in curves.items():
      shapes = {rows.shape for rows in dataclasses.astuple(curve)}
      if len(shapes) != 1 or len(*shapes) != 1:
        sizes = ", ".join(str(list(shape)) for shape in sorted(shapes))
        raise errors.InputError(f"{name} has arrays of shapes {sizes}")
    if type(stored["num_runs"]) is not int or type(stored["recipe"]) is not str:
      raise errors.InputError("num_runs is no integer, or recipe no text")
  except (
    AttributeError,
    KeyError,
    OverflowError,
    TypeError,
    ValueError,
  ) as error:
    raise errors.InputError(
      f"{path} holds no reference curves: {error}"
    ) from None
  return reference


def _numbers(name: str, values: Any) -> np.ndarray:
  return np.array(values, int if name == "steps" else float)


def make(
  runs: Sequence[Sequence[Mapping[str, Any]]],
  name: str,
  recipe: config_lib.Recipe | None = None,
) -> Reference:
  """Computes mean and band of several runs of one recipe.

  A point of another run lies in the band with 95 % probability if runs are
  distributed normally: mean ± t · s · sqrt(1 + 1/n), with the standard
  deviation s pooled over neighboring points, and at least ± 0.01.

  Args:
    runs: lines of metrics.jsonl of each run, at least 3 runs.
    name: name of the recipe.
    recipe: recipe of any of the runs; None: unknown.

  Raises:
    ValueError: too few runs, or runs with metrics at different steps.
  """
  if len(runs) < 3:
    raise errors.InputError(
      f"{len(runs)} runs are too few for a band: give at least 3."
    )
  curves = {}
  names = _comparable_metrics([row for rows in runs for row in rows])
  for metric in names:
    found = [series(rows, metric) for rows in runs]
    steps = found[0][0]
    for i, (other, _) in enumerate(found):
      if not np.array_equal(steps, other):
        raise errors.InputError(
          f"run {i} has {metric} at {len(other)} steps up to "
          f"{max(other, default=0)} and run 0 at {len(steps)} up to "
          f"{max(steps, default=0)}: give finished runs of one recipe."
        )
    if len(steps):
      curves[metric] = _band(steps, np.stack([v for _, v in found]))
  if not curves:
    raise errors.InputError(f"the runs have none of {', '.join(names)}.")
  return Reference(name, len(runs), curves, recipe)


def _band(steps: np.ndarray, values: np.ndarray) -> Curve:
  """Computes the band of values [runs, n]; see `make`."""
  from scipy import stats

  count, num_points = values.shape
  variance = values.var(axis=0, ddof=1)
  half = _SMOOTHED_POINTS // 2
  pooled = np.array(
    [
      variance[max(0, i - half) : i + half + 1].mean()
      for i in range(num_points)
    ]
  )
  quantile = stats.t.ppf(0.975, count - 1) * np.sqrt(1 + 1 / count)
  width = np.maximum(quantile * np.sqrt(pooled), _MIN_HALF_WIDTH)
  mean = values.mean(axis=0)
  return Curve(steps, mean, mean - width, mean + width)


def as_json(reference: Reference, made: Mapping[str, Any]) -> str:
  """Returns the text of a file for `read`.

  Args:
    reference: result of `make`.
    made: origin of the runs: recipe, machine and date.
  """
  curves = {
    name: {
      "steps": curve.steps.tolist(),
      **{
        part: [round(float(v), 5) for v in getattr(curve, part)]
        for part in ("mean", "low", "high")
      },
    }
    for name, curve in reference.curves.items()
  }
  stored = {"recipe": reference.name, "num_runs": reference.num_runs}
  if reference.recipe is not None:
    recipe = upgrade.flatten(upgrade.write(reference.recipe))
    stored["config"] = {
      field: value
      for field, value in recipe.items()
      if recipe_lib.changes_training(field)
      and field not in IGNORED_FIELDS + PATH_FIELDS
    }
  return json.dumps(stored | {"made": dict(made), "curves": curves}) + "\n"
