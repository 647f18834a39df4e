"""Judgements of a run's result, which are possible at its end only."""

from __future__ import annotations

import math
from collections.abc import Mapping
from collections.abc import Sequence
from typing import Any
from typing import NamedTuple

from paws_jax.monitoring import remedies
from paws_jax.monitoring import rules

BELOW_PIXELS = "below raw pixels"
STILL_IMPROVING = "still improving"
NAMES = (BELOW_PIXELS, STILL_IMPROVING)
# Fields of the baselines in a result row, and their names.
_BASELINES = {
  "raw_pixel_top1": "the vote of raw pixels",
  "raw_pixel_1nn_top1": "the nearest image by raw pixels",
  "raw_pixel_logistic_top1": "logistic regression on raw pixels",
}
_PARTS = {
  "test": "top1",
  "validation": "validation_top1",
  "labelled": "leave_one_out_top1",
}
# Evaluations without which no trend is seen, and the least rise of one: a
# fraction, and in standard errors.
_FEWEST, _LEAST_RISE, _LEAST_ERRORS = 4, 0.01, 1.5


class Judgement(NamedTuple):
  """A judgement about a result.

  Attributes:
    name: one of `NAMES`.
    sentence: the problem, with its numbers; "": there is none.
    remedy: the change that may help.
  """

  name: str
  sentence: str
  remedy: str


def improving(
  accuracies: Sequence[float], num_images: int
) -> tuple[float, float] | None:
  """Finds out whether accuracy was still rising in the last evaluations.

  Args:
    accuracies: fractions, in the order of the evaluations.
    num_images: on which they were measured; 0: unknown.

  Returns:
    The mean of the last quarter but one and of the last quarter of the
    evaluations, where the latter is the best quarter and exceeds the former by
    0.01 and by 1.5 standard errors; None: it was not rising, or there were
    fewer than four evaluations.
  """
  if len(accuracies) < _FEWEST:
    return None
  size = len(accuracies) // 4
  means = [
    math.fsum(accuracies[end - size : end]) / size
    for end in range(len(accuracies), size - 1, -size)
  ]
  last, before = means[0], means[1]
  error = 0.0
  if num_images:
    error = math.sqrt(last * (1 - last) / num_images)
  rises = last - before > max(_LEAST_RISE, _LEAST_ERRORS * error)
  return (before, last) if rises and last >= max(means) else None


def judge(
  row: Mapping[str, Any],
  accuracies: Sequence[float],
  facts: rules.Facts,
) -> tuple[Judgement, ...]:
  """Judges the result row of a run.

  Args:
    row: of results.json.
    accuracies: of its evaluations, in order.
    facts: of its recipe.
  """
  trend = improving(accuracies, facts.num_evaluated)
  return (_below_pixels(row, accuracies, trend, facts), _longer(trend))


def _below_pixels(
  row: Mapping[str, Any],
  accuracies: Sequence[float],
  trend: tuple[float, float] | None,
  facts: rules.Facts,
) -> Judgement:
  part = row.get("raw_pixel_part", "test")
  found = {k: row[k] for k in _BASELINES if row.get(k) is not None}
  mine = row.get(_PARTS[part])
  if mine is None or not found or mine >= max(found.values()):
    return Judgement(BELOW_PIXELS, "", "")
  best = max(found, key=found.__getitem__)
  known = bool(trend) if len(accuracies) >= _FEWEST else None
  return Judgement(
    BELOW_PIXELS,
    f"of the {part} images the trained encoder classifies {mine:.1%} "
    f"correctly, and {_BASELINES[best]} {found[best]:.1%}, without any "
    "training.",
    remedies.below_pixels(facts.recipe, improving=known),
  )


def _longer(trend: tuple[float, float] | None) -> Judgement:
  if trend is None:
    return Judgement(STILL_IMPROVING, "", "")
  before, last = trend
  return Judgement(
    STILL_IMPROVING,
    f"accuracy was still rising at the end: it was {before:.1%} in the third "
    f"quarter of the evaluations and {last:.1%} in the last.",
    f"Train longer: {remedies.TRAIN_LONGER}.",
  )
