"""The line that shows the progress of a run."""

import io
import re

import pytest

from paws_jax.runs import progress as progress_lib

NUMBERS = {"cross_entropy": 1.2345, "me_max_kl": 0.5, "target_confidence": 0.66}


class Terminal(io.StringIO):
  def isatty(self):
    return True


class Clock:
  """Stands in for time.perf_counter."""

  now = 100.0

  def __call__(self):
    return self.now


@pytest.fixture
def clock(monkeypatch):
  clock = Clock()
  monkeypatch.setattr(progress_lib.time, "perf_counter", clock)
  return clock


def make_progress(stream, first_step=0, total_steps=1000, **options):
  return progress_lib.Progress(
    total_steps=total_steps,
    first_step=first_step,
    images_per_step=32,
    interval=5,
    stream=stream,
    **options,
  )


def test_progress_in_a_log_file(clock):
  stream = io.StringIO()
  progress = make_progress(stream)
  for step in range(1, 1001):
    clock.now += 0.1
    progress.show(step, NUMBERS)
  progress.end()
  written = stream.getvalue().split("\n")
  assert written.pop() == ""
  # 100 seconds, a line every 5, the first and the last step.
  assert len(written) == 20 + 1
  assert "\r" not in stream.getvalue()
  assert written[0] == (
    "step 1/1000  320 img/s  ETA 1:40  cross-entropy 1.234  me-max KL 0.500  "
    "confidence 0.66"
  )
  assert written[-1].startswith("step 1000/1000  320 img/s  ETA 0:00")


def test_progress_on_a_terminal(clock, monkeypatch):
  monkeypatch.setenv("COLUMNS", "200")
  stream = Terminal()
  progress = make_progress(stream)
  for step in range(1, 11):
    clock.now += 0.1
    progress.show(step, {"cross_entropy": 10.0 ** (5 - step)})
  progress.end()
  text = stream.getvalue()
  assert text.count("\r") == 10
  # Only `end` leaves the line.
  assert text.count("\n") == 1
  assert text.endswith("\n")
  # What a terminal shows: a shorter line covers the longer one before.
  shown = ""
  for part in text.rstrip("\n").split("\r")[1:]:
    shown = part + shown[len(part) :]
    assert shown.rstrip() == part.rstrip()


def test_words_do_not_break_the_line_on_a_terminal(clock, monkeypatch):
  monkeypatch.setenv("COLUMNS", "200")
  stream = Terminal()
  progress = make_progress(stream)
  clock.now += 1
  progress.show(1, NUMBERS)
  width = len(stream.getvalue()) - 1
  progress.say("! collapse\n  of all")
  clock.now += 1
  progress.show(2, NUMBERS)
  progress.end()
  lines = stream.getvalue().split("\n")
  # The line is wiped before the words take its place, and comes again below.
  assert lines[0].endswith("\r" + " " * width + "\r! collapse")
  assert lines[1] == "  of all"
  assert lines[2].startswith("\rstep 2/1000")
  assert lines[3] == ""


def test_words_in_a_log_file_are_lines(clock):
  stream = io.StringIO()
  progress = make_progress(stream)
  progress.say("! collapse")
  clock.now += 1
  progress.show(1, NUMBERS)
  assert stream.getvalue().startswith("! collapse\nstep 1/1000")


def test_the_line_shows_no_loss_that_may_be_negative(clock):
  stream = io.StringIO()
  progress = make_progress(stream)
  clock.now += 1
  progress.show(1, {"loss": -1.5, "me_max_kl": 0.25})
  text = stream.getvalue()
  assert text.endswith("ETA 16:39  me-max KL 0.250\n")
  assert "1.5" not in text


def test_progress_fits_a_narrow_terminal(clock, monkeypatch):
  monkeypatch.setenv("COLUMNS", "40")
  stream = Terminal()
  progress = make_progress(stream)
  clock.now += 1
  progress.show(1, NUMBERS)
  assert len(stream.getvalue().lstrip("\r")) == 39


def test_progress_shows_accuracy_and_what_there_is(clock):
  stream = io.StringIO()
  progress = make_progress(stream)
  progress.accuracy({"soft_nn_top1": 0.8769}, 55)
  # Nothing that could be shown.
  progress.accuracy({"prior_change": 0.1}, 57)
  clock.now += 1
  progress.show(60, {"cross_entropy": 2.0})
  line = stream.getvalue()
  assert line.endswith("cross-entropy 2.000  soft-NN 87.7% @55\n")
  assert "me-max" not in line
  assert "confidence" not in line


@pytest.mark.parametrize(
  ("others", "expected"),
  [
    ({}, "soft-NN 87.7% @55"),
    ({"prior_largest": 0.4}, "soft-NN 87.7% @55"),
    ({"pseudo_label_accuracy": 0.9, "purity": 0.2}, "soft-NN 87.7% @55"),
    ({"class_head_top1": 0.91, "class_head_top5": 1.0}, "class head 91.0% @55"),
  ],
)
def test_progress_says_whose_accuracy_it_shows(clock, others, expected):
  stream = io.StringIO()
  progress = make_progress(stream)
  progress.accuracy({**others, "soft_nn_top1": 0.8769}, 55)
  clock.now += 1
  progress.show(60, {})
  assert stream.getvalue().endswith(f"{expected}\n")


def test_progress_shows_the_losses_of_the_method(clock):
  stream = io.StringIO()
  losses = ("nt_xent", "suncet", "distance")
  progress = make_progress(stream, losses=losses)
  clock.now += 1
  progress.show(60, {"distance": 3.0, "nt_xent": 1.0, "cross_entropy": 2.0})
  assert stream.getvalue().endswith("  NT-Xent 1.000  distance 3.000\n")
  assert "cross" not in stream.getvalue()


def test_progress_shows_how_long_was_waited_for_images(clock):
  stream = io.StringIO()
  progress = make_progress(stream)
  clock.now += 1
  progress.show(60, {"cross_entropy": 2.0, "input_stall": 0.123})
  assert stream.getvalue().endswith("cross-entropy 2.000  input stall 12%\n")


def test_progress_rate_leaves_pauses_and_earlier_steps_out(clock):
  progress = make_progress(io.StringIO(), first_step=500)
  clock.now += 10
  with progress.paused():
    clock.now += 1000
  assert progress.seconds() == 10
  assert progress.rate(520) == 2.0
  progress.end()
  clock.now += 1000
  progress.end()
  assert progress.seconds() == 10


def test_a_pause_that_fails_is_left_out_too(clock):
  progress = make_progress(io.StringIO())

  def fail():
    with progress.paused():
      clock.now += 1000
      raise KeyError

  with pytest.raises(KeyError):
    fail()
  assert progress.seconds() == 0


@pytest.mark.parametrize(
  ("steps", "shown"), [(60, "1:00"), (3599, "59:59"), (90_061, "25:01:01")]
)
def test_progress_eta(clock, steps, shown):
  stream = io.StringIO()
  progress = make_progress(stream, total_steps=steps + 1)
  clock.now += 1
  progress.show(1, NUMBERS)
  assert re.search(r"ETA (\S+)", stream.getvalue())[1] == shown


def test_the_last_line_is_shown_whatever_its_step(clock):
  stream = io.StringIO()
  progress = make_progress(stream, total_steps=10)
  for step in (3, 6, 9):
    clock.now += 0.1
    progress.show(step, NUMBERS)
  assert [line[:7] for line in stream.getvalue().splitlines()] == ["step 3/"]
  progress.end()
  progress.end()
  shown = [line[:7] for line in stream.getvalue().splitlines()]
  assert shown == ["step 3/", "step 9/"]


def test_progress_before_the_first_step_divides_by_nothing(clock):
  progress = make_progress(io.StringIO(), first_step=3)
  progress.show(3, NUMBERS)
  assert progress.rate(3) == 0


def test_progress_is_shown_from_time_to_time(capsys, monkeypatch):
  now = iter([0.0, 1.0, 12.0, 13.0])
  monkeypatch.setattr(progress_lib.time, "perf_counter", lambda: next(now))
  with progress_lib.Images() as line:
    for done in (1, 6, 7):
      line.show(done, 10)
  assert (
    capsys.readouterr().out == "  read 6 of 10 images  0.5 img/s  ETA 8 s\n"
  )
