"""What `--task=doctor` says: its findings, one block for each subject."""

from __future__ import annotations


class Report:
  """Prints findings, and counts them.

  Attributes:
    num_problems: findings with which training cannot work.
    num_warnings: findings to look at.
  """

  def __init__(self):
    self.num_problems = 0
    self.num_warnings = 0
    self._told: list[str] = []

  def block(self, title: str) -> None:
    """Begins a subject."""
    print(f"\n{title}", flush=True)

  def say(self, text: str) -> None:
    """Prints a line."""
    # File names need not be text.
    text = text.encode("utf-8", "backslashreplace").decode()
    print(f"  {text}", flush=True)

  def problem(self, text: str, *, refused_as: str = "") -> None:
    """Prints a finding with which training cannot work.

    Args:
      text: the finding, with a remedy.
      refused_as: how the message begins with which training would refuse the
        same: `refused` does not repeat it.
    """
    self.num_problems += 1
    self._told.append(refused_as or text)
    self.say(f"PROBLEM: {text}")

  def refused(self, message: str) -> None:
    """Makes a problem of a message, unless it has been told before."""
    if message.startswith(tuple(self._told)):
      self.say("it cannot be built, because of a problem told above")
    else:
      self.problem(message)

  def warning(self, text: str) -> None:
    """Prints a finding that does not prevent training."""
    self.num_warnings += 1
    self.say(f"warning: {text}")

  def end(self, train_command: str) -> int:
    """Prints the counts and what to do next; returns the exit status."""
    problems = count(self.num_problems, "problem")
    warnings = count(self.num_warnings, "warning")
    following = f"to train: {train_command}"
    if self.num_problems:
      following = "mend the problems, then run this command again"
    print(f"\n{problems}, {warnings}; {following}", flush=True)
    return 1 if self.num_problems else 0


def count(number: int, one: str, several: str = "") -> str:
  """E.g. "1 image", "1,200 images"."""
  word = one if number == 1 else several or f"{one}s"
  return f"{number:,} {word}"
