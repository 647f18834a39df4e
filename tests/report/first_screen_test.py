"""The top of a report: accuracy, baseline, next step."""

import types

import pytest

from paws_jax.monitoring import monitor
from paws_jax.report import first_screen

ROW = {
  "task": "pretrain",
  "protocol": "soft_nn",
  "top1": 0.8,
  "num_test": 400,
  "raw_pixel_top1": 0.5,
  "raw_pixel_logistic_top1": 0.6,
  "num_raw_pixel": 400,
}


def _finding(name, *, ends=False):
  found = monitor.Finding(name, 5, f"{name} is bad.", f"Mend {name}.", ends)
  return {"step": 5} | found.as_row()


def _lines(row=None, *, metrics=(), suggestions="some", finished=True):
  evidence = types.SimpleNamespace(
    results=[] if row is None else [row],
    metrics=list(metrics),
    suggestions=suggestions,
  )
  screen = first_screen.first_screen(evidence, finished=finished)
  return screen, screen.lines


def test_accuracy_has_an_interval_and_the_best_baseline():
  screen, (baseline, following) = _lines(ROW)
  assert screen.headline == "80.0%"
  assert "of 400 test images" in screen.text
  assert "95% interval 75.8% to 83.6%" in screen.text
  assert "60.0%" in baseline
  assert "20.0 points less." in baseline
  assert "label_next.csv" in following


@pytest.mark.parametrize(
  ("pixels", "words"),
  [(0.82, "2.0 points more, which so few"), (0.78, "2.0 points less, which")],
)
def test_a_difference_may_be_chance(pixels, words):
  _, (baseline, _) = _lines(ROW | {"raw_pixel_logistic_top1": pixels})
  assert words in baseline


def test_without_a_baseline_there_is_no_comparison():
  row = {k: v for k, v in ROW.items() if "raw_pixel" not in k}
  assert len(_lines(row)[1]) == 1


def test_the_next_step_is_the_problem_that_is_left():
  gone = [_finding("collapse"), _finding("collapse", ends=True)]
  _, (_, following) = _lines(ROW, metrics=gone)
  assert "label_next.csv" in following
  left = [_finding("below raw pixels"), _finding("still improving")]
  _, (_, following) = _lines(ROW, metrics=gone + left)
  assert following == "Next: below raw pixels is bad. Mend below raw pixels."
  _, (_, following) = _lines(ROW, metrics=left[1:])
  assert "Mend still improving." in following


def test_other_next_steps():
  assert "the same command" in _lines(ROW, finished=False)[1][-1]
  screen, (following,) = _lines()
  assert screen.headline == ""
  assert "No accuracy" in screen.text
  assert "--task=evaluate --test=DIR" in following
  assert "--task=predict" in _lines(ROW, suggestions=None)[1][-1]
