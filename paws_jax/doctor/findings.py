"""The report of `--task=doctor`: findings, in one block per subject."""

from __future__ import annotations

from paws_jax import text as text_lib


class Report:
  """Printer and counter of findings.

  Attributes:
    num_problems: findings that prevent training.
    num_warnings: findings that a user should check.
  """

  def __init__(self) -> None:
    self.num_problems = 0
    self.num_warnings = 0
    self._reported: list[str] = []

  def block(self, title: str) -> None:
    """Starts a block with its title."""
    print(f"\n{title}", flush=True)

  def say(self, text: str) -> None:
    """Prints a line."""
    # A file name may hold bytes that are no text.
    text = text.encode("utf-8", "backslashreplace").decode()
    print(f"  {text}", flush=True)

  def problem(self, text: str, *, error_start: str = "") -> None:
    """Prints a finding that prevents training.

    Args:
      text: the finding, with a remedy.
      error_start: start of the error message of training for the same problem,
        which `error` then does not repeat; default `text`.
    """
    self.num_problems += 1
    self._reported.append(error_start or text)
    self.say(f"PROBLEM: {text}")

  def error(self, message: str) -> None:
    """Prints an error message as a problem, unless it was reported before."""
    if message.startswith(tuple(self._reported)):
      self.say("the training run cannot be built because of a problem above")
    else:
      self.problem(message)

  def warning(self, text: str) -> None:
    """Prints a finding that does not prevent training."""
    self.num_warnings += 1
    self.say(f"warning: {text}")

  def end(self, train_command: str) -> int:
    """Prints the counts and what to do next; returns the exit status."""
    problems = text_lib.count(self.num_problems, "problem")
    warnings = text_lib.count(self.num_warnings, "warning")
    next_step = f"to train: {train_command}"
    if self.num_problems:
      next_step = "fix the problems above and run this command again"
    print(f"\n{problems}, {warnings}; {next_step}", flush=True)
    return 1 if self.num_problems else 0
