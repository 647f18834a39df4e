"""Is a training run healthy? Its metrics, turned into plain sentences.

Each rule looks at the lines of metrics.jsonl (means over some steps, and
evaluations) and gives a sentence when what it watches has gone wrong. A rule
whose metrics a method does not report stays silent.
"""

from __future__ import annotations

import dataclasses
import textwrap
from collections.abc import Iterable
from collections.abc import Mapping
from typing import Any

from paws_jax.monitoring import rules

# Key by which a line of metrics.jsonl is known to be a finding.
KEY = "finding"


@dataclasses.dataclass(frozen=True)
class Finding:
  """Something is wrong from a step on, or no longer.

  Attributes:
    name: of the rule, e.g. "collapse".
    step: when it was clear.
    sentence: what is wrong, with the numbers.
    remedy: what to change; "" at the end.
    ends: whether it is over.
  """

  name: str
  step: int
  sentence: str
  remedy: str
  ends: bool = False

  def texts(self) -> dict[str, str]:
    """As a line of metrics.jsonl, but for the step."""
    return {
      KEY: self.name,
      "event": "ends" if self.ends else "starts",
      "sentence": self.sentence,
      "remedy": self.remedy,
    }

  def lines(self) -> str:
    """As lines of at most 79 characters."""
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
  """One line: what was found in the course of a run.

  Args:
    rows: lines of its metrics.jsonl.
  """
  found, over = set(), set()
  for row in rows:
    if KEY in row:
      found.add(row[KEY])
      (over.add if row["event"] == "ends" else over.discard)(row[KEY])
  if not found:
    return "health: nothing was found wrong"
  told = (f"{name} (over)" if name in over else name for name in sorted(found))
  return f"health: {', '.join(told)}; see the lines that begin with !"


NAMES = tuple(rule.name for rule in rules.RULES)


class Monitor:
  """Follows a run line by line and says what begins and what ends."""

  def __init__(self, facts: rules.Facts):
    """Starts before the first line."""
    self._facts = facts
    self._now: dict[str, float] = {}
    # Lines in a row that speak for a change, by rule; and what is wrong.
    self._streaks = dict.fromkeys(NAMES, 0)
    self._open: set[str] = set()

  def add(self, row: Mapping[str, Any]) -> list[Finding]:
    """Takes the next line of metrics.jsonl.

    Args:
      row: "step" and scalars; a line of words changes nothing.

    Returns:
      What begins or ends with it; usually nothing.
    """
    if KEY in row:
      return []
    self._now |= row
    if "target_confidence" in row:
      self._now.setdefault("first_step", row["step"])
    events = []
    for rule in rules.RULES:
      if any(name in row for name in rule.on):
        events += self._judge(rule)
    return events

  def _judge(self, rule: rules.Rule) -> list[Finding]:
    sentence = rule.judge(self._now, self._facts)
    is_open = rule.name in self._open
    if sentence is None or bool(sentence) == is_open:
      self._streaks[rule.name] = 0
      return []
    self._streaks[rule.name] += 1
    if self._streaks[rule.name] < rule.patience or (is_open and not rule.over):
      return []
    self._streaks[rule.name] = 0
    step = int(self._now["step"])
    if is_open:
      self._open.remove(rule.name)
      return [Finding(rule.name, step, rule.over, "", ends=True)]
    self._open.add(rule.name)
    return [Finding(rule.name, step, sentence, rule.remedy)]


def findings(
  rows: Iterable[Mapping[str, Any]], *, facts: rules.Facts
) -> list[Finding]:
  """What begins and ends in a run, each once, in order.

  Args:
    rows: lines of metrics.jsonl.
    facts: of the recipe.
  """
  monitor = Monitor(facts)
  return [finding for row in rows for finding in monitor.add(row)]


def recorded(rows: Iterable[Mapping[str, Any]]) -> list[Finding]:
  """The findings that a run has written into its metrics.jsonl."""
  return [
    Finding(
      row[KEY],
      row["step"],
      row["sentence"],
      row["remedy"],
      ends=row["event"] == "ends",
    )
    for row in rows
    if KEY in row
  ]
