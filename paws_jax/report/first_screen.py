"""What a report says first: how good, against what, and what to do next."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from paws_jax.evaluation import result_rows
from paws_jax.monitoring import monitor
from paws_jax.monitoring import result
from paws_jax.report import accuracy as accuracy_lib
from paws_jax.report import evidence as evidence_lib
from paws_jax.report import page


@dataclasses.dataclass(frozen=True)
class FirstScreen:
  """Texts at the top of a report.

  Attributes:
    headline: the accuracy; "" without one.
    text: what it is the accuracy of, with its interval.
    lines: the best baseline, and the next step.
  """

  headline: str
  text: str
  lines: tuple[str, ...]


def first_screen(
  evidence: evidence_lib.Evidence, *, finished: bool
) -> FirstScreen:
  """Writes the top of a report.

  Args:
    evidence: of the run.
    finished: whether all of its steps have been taken.
  """
  found = accuracy_lib.accuracies(evidence.results)
  known = accuracy_lib.best_known(found)
  following = f"Next: {_next_step(evidence, known, finished=finished)}"
  if known is None:
    text = "No accuracy has been measured yet."
    return FirstScreen("", text, (following,))
  low, high = map(page.percent, known.interval)
  text = (
    f"of {known.count:,} {known.part} images are classified correctly by "
    f"{known.protocol} (95% interval {low} to {high})"
  )
  lines = (*_against_pixels(known, found), following)
  return FirstScreen(page.percent(known.top1), text, lines)


def _against_pixels(
  known: accuracy_lib.Accuracy, found: Sequence[accuracy_lib.Accuracy]
) -> list[str]:
  """Compares with the best baseline on the same images; [] without one."""
  baselines = [
    each
    for each in found
    if each.task == result_rows.BASELINE and each.part == known.part
  ]
  if not baselines:
    return []
  best = max(baselines, key=lambda each: each.top1)
  points = 100 * (known.top1 - best.top1)
  difference = f"{abs(points):.1f} points {'less' if points >= 0 else 'more'}"
  overlap = (
    best.interval[0] <= known.interval[1]
    and known.interval[0] <= best.interval[1]
  )
  return [
    f"The same labels without training: {page.percent(best.top1)} by "
    f"{best.protocol}, {difference}"
    + (
      f", which so few {known.part} images cannot tell from chance."
      if overlap
      else "."
    )
  ]


def _next_step(
  evidence: evidence_lib.Evidence,
  known: accuracy_lib.Accuracy | None,
  *,
  finished: bool,
) -> str:
  """The most useful thing to do with the run as it is."""
  if not finished:
    return "start the same command again, to finish the run."
  problems: dict[str, monitor.Finding] = {}
  for finding in monitor.recorded(evidence.metrics):
    if finding.ends:
      problems.pop(finding.name, None)
    else:
      problems[finding.name] = finding
  if problems:
    worst = problems.get(result.BELOW_PIXELS) or list(problems.values())[-1]
    return f"{worst.sentence} {worst.remedy}"
  if known is None or known.part == "labelled":
    return (
      "measure the accuracy on images of known classes, with "
      "--task=evaluate --test=DIR."
    )
  if evidence.suggestions is not None:
    return (
      "label the images in the last section of this page, which label_next.csv "
      "lists, and train again with them."
    )
  return "try the classifier on new images, with --task=predict --images=DIR."
