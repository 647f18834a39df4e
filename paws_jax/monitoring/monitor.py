"""Findings about the health of a training run, made from its metrics.

Each rule reads the lines of metrics.jsonl (means over some steps, and
evaluations) and returns a sentence when they look wrong. A rule is silent for
methods that do not report its metrics.
"""

from __future__ import annotations

import dataclasses
import textwrap
from collections.abc import Iterable
from collections.abc import Mapping
from typing import Any

from paws_jax.monitoring import result
from paws_jax.monitoring import rules

# Key that marks a line of metrics.jsonl as a finding.
KEY = "finding"


@dataclasses.dataclass(frozen=True)
class Finding:
  """The start or the end of a problem of a run.

  Attributes:
    name: name of the rule, such as "collapse".
    step: step at which the rule decided.
    sentence: the problem, with its numbers.
    remedy: the change that may help; "" at the end of a problem.
    ends: whether the problem ends.
  """

  name: str
  step: int
  sentence: str
  remedy: str
  ends: bool = False

  def as_row(self) -> dict[str, str]:
    """Returns the fields of a line of metrics.jsonl, without the step."""
    return {
      KEY: self.name,
      "event": "ends" if self.ends else "starts",
      "sentence": self.sentence,
      "remedy": self.remedy,
    }

  def as_text(self) -> str:
    """Returns the finding in lines of at most 79 characters."""
    text = f"{self.name} (step {self.step}): {self.sentence} {self.remedy}"
    return textwrap.fill(
      text.strip(),
      79,
      initial_indent="! ",
      subsequent_indent="  ",
      break_long_words=False,
      break_on_hyphens=False,
    )


def summary(rows: Iterable[Mapping[str, Any]]) -> str:
  """Summarizes the findings of a run in one line.

  Args:
    rows: lines of its metrics.jsonl.
  """
  names: set[str] = set()
  ended: set[str] = set()
  for row in rows:
    if isinstance(name := row.get(KEY), str):
      names.add(name)
      (ended.discard if _starts(row) else ended.add)(name)
  if not names:
    return "health: no problems found"
  listed = (f"{n} (ended)" if n in ended else n for n in sorted(names))
  return f"health: {', '.join(listed)}; see the lines that begin with !"


NAMES = (*(rule.name for rule in rules.RULES), *result.NAMES)


class Monitor:
  """Follower of a run, line by line, that reports its findings."""

  def __init__(self, facts: rules.Facts):
    """Starts before the first line of a run."""
    self._facts = facts
    self._latest: dict[str, float] = {}
    # By rule, consecutive lines that suggest a change; and open problems.
    self._streaks = dict.fromkeys(NAMES, 0)
    self._open: set[str] = set()
    # Of the evaluations, in their order.
    self._accuracies: list[float] = []

  def add(self, row: Mapping[str, Any]) -> list[Finding]:
    """Takes the next line of metrics.jsonl.

    Args:
      row: "step" and scalars; lines with findings are ignored.

    Returns:
      The findings that start or end with it; usually none.
    """
    if KEY in row:
      # The others follow from the numbers.
      if row[KEY] in result.NAMES:
        change = self._open.add if _starts(row) else self._open.discard
        change(row[KEY])
      return []
    # A line may have been annotated.
    row = {name: x for name, x in row.items() if not isinstance(x, str)}
    self._latest |= row
    if "soft_nn_top1" in row:
      self._accuracies.append(row["soft_nn_top1"])
      rising = result.improving(self._accuracies, self._facts.num_evaluated)
      self._latest["improving"] = float(rising is not None)
    if "target_confidence" in row:
      self._latest.setdefault("first_step", row["step"])
    if "feature_rank" in row:
      self._latest.setdefault("first_rank", row["feature_rank"])
    events = []
    for rule in rules.RULES:
      if any(name in row for name in rule.metrics):
        events += self._judge(rule)
    return events

  def add_result(self, row: Mapping[str, Any], *, step: int) -> list[Finding]:
    """Takes the result row of the run, after all lines.

    Args:
      row: of results.json.
      step: the last step.

    Returns:
      The findings that start or end with it.
    """
    events = []
    for name, sentence, remedy in result.judge(
      row, self._accuracies, self._facts
    ):
      if sentence and name not in self._open:
        events.append(Finding(name, step, sentence, remedy))
      elif not sentence and name in self._open:
        end = "this is no longer so."
        events.append(Finding(name, step, end, "", ends=True))
    return events

  def _judge(self, rule: rules.Rule) -> list[Finding]:
    sentence = rule.judge(self._latest, self._facts)
    is_open = rule.name in self._open
    if sentence is None or bool(sentence) == is_open:
      self._streaks[rule.name] = 0
      return []
    self._streaks[rule.name] += 1
    if self._streaks[rule.name] < rule.patience or (
      is_open and not rule.end_sentence
    ):
      return []
    self._streaks[rule.name] = 0
    step = int(self._latest["step"])
    if is_open:
      self._open.remove(rule.name)
      return [Finding(rule.name, step, rule.end_sentence, "", ends=True)]
    self._open.add(rule.name)
    remedy = rule.remedy(self._latest, self._facts)
    return [Finding(rule.name, step, sentence, remedy)]


def _starts(row: Mapping[str, Any]) -> bool:
  return row.get("event") == "starts"


def findings(
  rows: Iterable[Mapping[str, Any]], *, facts: rules.Facts
) -> list[Finding]:
  """Returns the findings of a run in order.

  Args:
    rows: lines of metrics.jsonl.
    facts: facts of its recipe.
  """
  monitor = Monitor(facts)
  return [finding for row in rows for finding in monitor.add(row)]


def recorded(rows: Iterable[Mapping[str, Any]]) -> list[Finding]:
  """Returns the findings that a run recorded in its metrics.jsonl."""
  return [
    Finding(
      str(row[KEY]),
      row["step"],
      str(row.get("sentence", "")),
      str(row.get("remedy", "")),
      ends=not _starts(row),
    )
    for row in rows
    if KEY in row
  ]
