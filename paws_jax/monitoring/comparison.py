"""Comparison of a run with its reference curves."""

from __future__ import annotations

import reprlib
from collections.abc import Mapping
from collections.abc import Sequence
from typing import Any

import numpy as np

from paws_jax import config as config_lib
from paws_jax import text
from paws_jax.monitoring import reference_curves
from paws_jax.runs import recipe as recipe_lib

# Share of a curve's points that must lie in the band. The mean is 95 %, but
# neighboring points leave the band together.
_MIN_SHARE_INSIDE = 0.75
# Number of different fields listed; the others are counted.
_MAX_FIELDS = 4


def verdict(
  rows: Sequence[Mapping[str, Any]], reference: reference_curves.Reference
) -> str:
  """Returns a line that compares a run with its reference.

  Args:
    rows: lines of the run's metrics.jsonl.
    reference: the reference.
  """
  parts, missing, inside, compared = [], [], True, []
  for name, curve in reference.curves.items():
    steps, values = reference_curves.series(rows, name)
    common = (steps >= curve.steps[0]) & (steps <= curve.steps[-1])
    steps, values = steps[common], values[common]
    if not len(steps):
      missing.append(name)
      continue
    compared.append((steps[0], steps[-1]))
    if curve.low is None or curve.high is None:
      other = np.interp(steps[-1], curve.steps, curve.mean)
      parts.append(f"{name} {values[-1]:.3f} (reference {other:.3f})")
      continue
    low = np.interp(steps, curve.steps, curve.low)
    high = np.interp(steps, curve.steps, curve.high)
    above, below = np.mean(values > high), np.mean(values < low)
    share = 1 - above - below
    inside &= bool(share >= _MIN_SHARE_INSIDE)
    where = "above" if above > below else "below"
    parts.append(f"{name} {share:.0%}" + (f" ({where})" if share < 1 else ""))
  if not parts:
    return f"nothing to compare with {reference.name}: no step in common"
  first, last = min(a for a, _ in compared), max(b for _, b in compared)
  left_out = f"; no step in common: {', '.join(missing)}" if missing else ""
  if reference.num_runs == 1:
    return (
      f"at step {last}, compared with {reference.name}: {', '.join(parts)}"
      + (left_out)
    )
  total = max(curve.steps[-1] for curve in reference.curves.values())
  return (
    f"this run lies {'inside' if inside else 'OUTSIDE'} the band of "
    f"{reference.num_runs} runs of {reference.name}, from step {first} to "
    f"{last} of its {total}; points inside: {', '.join(parts)}{left_out}"
  )


def recipe_note(
  recipe: config_lib.Recipe, reference: reference_curves.Reference
) -> str:
  """Returns a line about differences between the recipes of run and reference.

  The seed, the label draw and fields that do not change training are ignored.

  Args:
    recipe: recipe of the run.
    reference: the reference.

  Returns:
    "" without differences, or where the recipe of the reference is unknown.
  """
  if reference.recipe is None:
    return ""
  same = (
    reference_curves.IGNORED_FIELDS
    if reference.num_runs == 1
    else reference_curves.IGNORED_FIELDS + reference_curves.PATH_FIELDS
  )
  found = recipe_lib.differences(reference.recipe, recipe)
  # A different method comes first, as it matters most.
  names = sorted(
    found.keys() - set(same), key=lambda n: (n != "method.name", n)
  )
  if not names:
    return ""
  fields = []
  for name in names:
    there, here = map(reprlib.repr, found[name])
    fields.append(f"{name} {here} (reference {there})")
  return (
    f"trained by another recipe than {reference.name}: "
    f"{text.first_few(fields, most=_MAX_FIELDS)}"
  )


def report(
  rows: Sequence[Mapping[str, Any]],
  reference: reference_curves.Reference,
  recipe: config_lib.Recipe,
) -> str:
  """Returns the verdict and, below it, the note on the recipe if there is one.

  Args:
    rows: of metrics.jsonl.
    reference: curves.
    recipe: of the run.
  """
  note = recipe_note(recipe, reference)
  return "\n".join(filter(None, (verdict(rows, reference), note)))
