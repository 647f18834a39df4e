"""Curves of runs that went well, to hold another run against.

A recipe that was really run ships `reference_curves/NAME.json`: for each curve
the mean of several runs and a band in which another run should lie. Made by
benchmarks/reference_curves.py. The directory of any other run can stand in its
place; it has curves but no band.
"""

from __future__ import annotations

import dataclasses
import json
import pathlib
import reprlib
from collections.abc import Mapping
from collections.abc import Sequence
from typing import Any

import numpy as np
from etils import epath

from paws_jax import errors
from paws_jax import text
from paws_jax.runs import metrics
from paws_jax.runs import recipe as recipe_lib

DIRECTORY = pathlib.Path(__file__).with_suffix("")
# Metrics that are compared: a run may have only some of them.
CURVES = ("cross_entropy", "target_confidence", "soft_nn_top1")
# ... and where the first is missing, as a method minimises something else. Of
# others these are reported, too, but nothing is done about them.
_OTHER_LOSSES = ("nt_xent", "suncet")

# Share of a curve's points in the band that makes a run lie inside. By chance
# it is 95 % on average, but neighbouring points leave the band together.
_MIN_SHARE_INSIDE = 0.75
# A band is at least this wide to each side: in nats, or fractions.
_MIN_HALF_WIDTH = 0.01
# Points whose spread is averaged: that of a few runs at one step says little.
_SMOOTHED_POINTS = 5

# Fields that make no other recipe: what a band is spread over, and how a step
# is computed. Others that change no training are left out by `workdir`.
_IGNORED_FIELDS = (
  "seed",
  "data.split_seed",
  "data.labels_file",
  "method.health_metrics",
  "train.remat",
  "train.steps_per_call",
)
# Where the images lie; of a band that is another machine.
_PATH_FIELDS = (
  "data.dir",
  "data.manifest",
  "data.unlabelled_dir",
  "data.test_dir",
)
# Differing fields that are named; the others are counted.
_MOST_NAMED = 4


@dataclasses.dataclass(frozen=True, eq=False)
class Curve:
  """One metric over the steps.

  Attributes:
    steps: int [n], rising.
    mean: float [n].
    low: float [n], or None where there is no band.
    high: likewise.
  """

  steps: np.ndarray
  mean: np.ndarray
  low: np.ndarray | None = None
  high: np.ndarray | None = None


@dataclasses.dataclass(frozen=True, eq=False)
class Reference:
  """What a run is compared with.

  Attributes:
    name: for readers: a recipe, or a run's directory.
    num_runs: that it was made from.
    curves: by metric.
    recipe: that it was trained by, by section or by dotted name; None: not
      known.
  """

  name: str
  num_runs: int
  curves: Mapping[str, Curve]
  recipe: Mapping[str, Any] | None = None


def series(
  rows: Sequence[Mapping[str, Any]], name: str
) -> tuple[np.ndarray, np.ndarray]:
  """Steps [n] and values [n] of a metric in the lines of metrics.jsonl."""
  points = [(row["step"], row[name]) for row in rows if name in row]
  steps, values = zip(*points, strict=True) if points else ((), ())
  return np.array(steps, int), np.array(values, float)


def _comparable_metrics(rows: Sequence[Mapping[str, Any]]) -> tuple[str, ...]:
  """Metrics of a run that are worth comparing."""
  if any(CURVES[0] in row for row in rows):
    return CURVES
  return CURVES + _OTHER_LOSSES


def find(name: str) -> Reference:
  """Reads what `--compare_to` names.

  Args:
    name: a run's directory, or one of `known()`.

  Raises:
    FileNotFoundError: there is neither.
    ValueError: the directory has no curves, or a file is damaged.
  """
  path = epath.Path(name).expanduser()
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
  """Recipes that have reference curves, sorted."""
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
      f"{', '.join(_comparable_metrics(rows))}: let the run train first."
    )
  return Reference(str(path), 1, curves, recipe_lib.stored_recipe(path))


def read(path: pathlib.Path) -> Reference:
  """Reads reference curves.

  Raises:
    ValueError: when the file is damaged.
  """
  try:
    stored = json.loads(path.read_text(encoding="utf-8"))
    curves = {
      name: Curve(**{k: np.array(v) for k, v in curve.items()})
      for name, curve in stored["curves"].items()
    }
    recipe = stored.get("config")
    if not isinstance(recipe, dict | None):
      raise errors.InputError(f"config is {recipe!r}, which is no recipe")
    reference = Reference(stored["recipe"], stored["num_runs"], curves, recipe)
    for name, curve in curves.items():
      sizes = {len(rows) for rows in dataclasses.astuple(curve)}
      if len(sizes) != 1:
        raise errors.InputError(f"{name} has arrays of lengths {sorted(sizes)}")
  except (AttributeError, KeyError, TypeError, ValueError) as error:
    raise errors.InputError(
      f"{path} holds no reference curves: {error}"
    ) from None
  return reference


def make(
  runs: Sequence[Sequence[Mapping[str, Any]]],
  name: str,
  recipe: Mapping[str, Any] | None = None,
) -> Reference:
  """Mean and band of several runs of one recipe.

  The band is where one more run's point should lie with 95 % probability, if
  runs are distributed normally: mean ± t · s · sqrt(1 + 1/n), with the spread s
  pooled over neighbouring points, and at least 0.01.

  Args:
    runs: lines of metrics.jsonl of each, at least 3 of them.
    name: of the recipe.
    recipe: of any of the runs, by dotted name; None: not known.

  Raises:
    ValueError: too few runs, or they have measured at different steps.
  """
  if len(runs) < 3:
    raise errors.InputError(
      f"{len(runs)} runs have no spread to speak of: give 3."
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
          f"{max(steps, default=0)}: give whole runs of one recipe."
        )
    if len(steps):
      curves[metric] = _band(steps, np.stack([v for _, v in found]))
  if not curves:
    raise errors.InputError(f"the runs have none of {', '.join(names)}.")
  return Reference(name, len(runs), curves, recipe)


def _band(steps: np.ndarray, values: np.ndarray) -> Curve:
  """Of values [runs, n]; see `make`."""
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
  """The text of a file that `read` understands.

  Args:
    reference: of `make`.
    made: of what, where and when; for readers.
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
    stored["config"] = {
      field: value
      for field, value in reference.recipe.items()
      if recipe_lib.changes_training(field)
      and field not in _IGNORED_FIELDS + _PATH_FIELDS
    }
  return json.dumps(stored | {"made": dict(made), "curves": curves}) + "\n"


def verdict(rows: Sequence[Mapping[str, Any]], reference: Reference) -> str:
  """One line: whether a run lies inside the band, or how two runs differ.

  Args:
    rows: lines of the run's metrics.jsonl.
    reference: what it is compared with.
  """
  told, missing, inside, compared = [], [], True, []
  for name, curve in reference.curves.items():
    steps, values = series(rows, name)
    common = (steps >= curve.steps[0]) & (steps <= curve.steps[-1])
    steps, values = steps[common], values[common]
    if not len(steps):
      missing.append(name)
      continue
    compared.append((steps[0], steps[-1]))
    if curve.low is None:
      there = np.interp(steps[-1], curve.steps, curve.mean)
      told.append(f"{name} {values[-1]:.3f} (there {there:.3f})")
      continue
    low = np.interp(steps, curve.steps, curve.low)
    high = np.interp(steps, curve.steps, curve.high)
    above, below = np.mean(values > high), np.mean(values < low)
    share = 1 - above - below
    inside &= bool(share >= _MIN_SHARE_INSIDE)
    where = "above" if above > below else "below"
    told.append(f"{name} {share:.0%}" + (f" ({where})" if share < 1 else ""))
  if not told:
    return f"nothing to compare with {reference.name}: no step in common"
  first, last = min(a for a, _ in compared), max(b for _, b in compared)
  left_out = f"; no step in common: {', '.join(missing)}" if missing else ""
  if reference.num_runs == 1:
    return f"at step {last}, beside {reference.name}: {', '.join(told)}" + (
      left_out
    )
  total = max(curve.steps[-1] for curve in reference.curves.values())
  return (
    f"this run lies {'inside' if inside else 'OUTSIDE'} the band of "
    f"{reference.num_runs} runs of {reference.name}, from step {first} to "
    f"{last} of its {total}; points inside: {', '.join(told)}{left_out}"
  )


def recipe_note(recipe: Mapping[str, Any], reference: Reference) -> str:
  """One line: in what another recipe a run was trained by than its reference.

  The seed, the label draw and fields that change no training do not count.

  Args:
    recipe: of the run, by section.
    reference: what it is compared with.

  Returns:
    "" where the recipes do not differ, or that of the reference is not known.
  """
  if reference.recipe is None:
    return ""
  same = (
    _IGNORED_FIELDS
    if reference.num_runs == 1
    else _IGNORED_FIELDS + _PATH_FIELDS
  )
  found = recipe_lib.differences(reference.recipe, recipe)
  # Where methods differ that says most.
  names = sorted(
    found.keys() - set(same), key=lambda n: (n != "method.name", n)
  )
  if not names:
    return ""
  fields = []
  for name in names:
    there, here = map(reprlib.repr, found[name])
    fields.append(f"{name} {here} (there {there})")
  return (
    f"trained by another recipe than {reference.name}: "
    f"{text.first_few(fields, most=_MOST_NAMED)}"
  )
