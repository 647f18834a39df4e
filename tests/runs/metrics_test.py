"""metrics.jsonl, results.json, means over intervals, the progress line."""

import io
import json
import pathlib
import re
import subprocess
import sys

import numpy as np
import pytest

from paws_jax.runs import files
from paws_jax.runs import metrics
from paws_jax.runs import progress as progress_lib
from paws_jax.runs import results


def lines(workdir):
  text = (workdir / metrics.METRICS).read_text()
  return [json.loads(line) for line in text.splitlines()]


def open_writer(workdir, first_step=0):
  return metrics.Writer(workdir, first_step=first_step, tensorboard=False)


def test_writer_writes_a_line_at_once(tmp_path):
  writer = open_writer(tmp_path)
  writer.write(1, {"loss": np.float32(0.5), "count": 3})
  # A run may be killed at any moment: nothing waits in a buffer.
  assert lines(tmp_path) == [{"step": 1, "loss": 0.5, "count": 3.0}]
  writer.close()


def test_words_have_a_line_of_their_own(tmp_path):
  writer = open_writer(tmp_path)
  writer.write(4, {"loss": 0.5})
  writer.note(4, {"finding": "collapse", "sentence": "all the same."})
  writer.close()
  assert metrics.read(tmp_path / metrics.METRICS)[1] == {
    "step": 4,
    "finding": "collapse",
    "sentence": "all the same.",
  }


def test_writer_refuses_numbers_that_json_has_not(tmp_path):
  writer = open_writer(tmp_path)
  for value in (float("nan"), float("inf")):
    with pytest.raises(ValueError, match="JSON"):
      writer.write(1, {"loss": value})
  writer.close()
  assert lines(tmp_path) == []


def test_resumed_writer_drops_what_will_be_written_again(tmp_path):
  writer = open_writer(tmp_path)
  for step in (1, 2, 3, 4):
    writer.write(step, {"loss": step / 3})
    writer.write(step, {"soft_nn_top1": 0.5})
  writer.close()
  before = (tmp_path / metrics.METRICS).read_text().splitlines()
  writer = open_writer(tmp_path, first_step=2)
  writer.write(3, {"loss": 7.0})
  writer.close()
  after = (tmp_path / metrics.METRICS).read_text().splitlines()
  assert after == [*before[:4], '{"step": 3, "loss": 7.0}']


def test_a_new_run_starts_an_empty_file(tmp_path):
  writer = open_writer(tmp_path)
  writer.write(1, {"loss": 1.0})
  writer.close()
  open_writer(tmp_path, first_step=0).close()
  assert lines(tmp_path) == []


@pytest.mark.parametrize(
  "tail", [b'{"step": 3, "lo', b'{"step": 3, "name": "\xc3', b"\0\0\0"]
)
def test_a_line_cut_off_by_a_crash_is_left_out(tmp_path, tail):
  path = tmp_path / metrics.METRICS
  path.write_bytes(
    b'{"step": 1, "loss": 1.0}\n{"step": 2, "loss": 2.0}\n' + tail
  )
  assert [row["step"] for row in metrics.read(path)] == [1, 2]
  writer = open_writer(tmp_path, first_step=2)
  writer.write(3, {"loss": 3.0})
  writer.close()
  assert [row["step"] for row in lines(tmp_path)] == [1, 2, 3]


def test_read_without_a_file(tmp_path):
  assert metrics.read(tmp_path / "none.jsonl") == []


def test_writing_metrics_loads_no_tensorflow(tmp_path):
  # In a process of its own: other tests load it.
  program = (
    "import pathlib, sys\n"
    "from paws_jax.runs import metrics\n"
    f"path = pathlib.Path({str(tmp_path)!r})\n"
    "metrics.Writer(path, first_step=0, tensorboard=False).close()\n"
    "print([m for m in ('tensorflow', 'clu') if m in sys.modules])"
  )
  result = subprocess.run(
    [sys.executable, "-c", program], capture_output=True, text=True, check=True
  )
  assert result.stdout == "[]\n"


@pytest.mark.slow
def test_tensorboard_gets_the_same_numbers(tmp_path):
  code = """if True:
    import pathlib, sys
    from paws_jax.runs import metrics
    writer = metrics.Writer(
      pathlib.Path(sys.argv[1]), first_step=0, tensorboard=True
    )
    writer.write(3, {"cross_entropy": 0.5})
    writer.close()
  """
  # In a process of its own: TensorFlow does not leave once it is loaded.
  subprocess.run(
    [sys.executable, "-c", code, str(tmp_path)],
    cwd=pathlib.Path(__file__).parents[2],
    check=True,
    timeout=600,
  )
  assert lines(tmp_path) == [{"step": 3, "cross_entropy": 0.5}]
  (events,) = tmp_path.glob("events.out.tfevents.*")
  assert b"cross_entropy" in events.read_bytes()


def test_results_are_appended(tmp_path):
  assert results.read_results(tmp_path) == []
  results.append_result(tmp_path, {"top1": 0.5})
  results.append_result(tmp_path, {"top1": 0.75, "interval": (0.7, 0.8)})
  rows = json.loads((tmp_path / results.RESULTS).read_text())
  assert rows == [{"top1": 0.5}, {"top1": 0.75, "interval": [0.7, 0.8]}]
  assert results.read_results(tmp_path) == rows
  assert [path.name for path in tmp_path.iterdir()] == [results.RESULTS]


@pytest.mark.parametrize(
  ("text", "problem"),
  [
    ("[1, 2", "is not JSON"),
    ("", "is not JSON"),
    ('{"top1": 1}', "is not a JSON list"),
    ("[1, 2]", "is not a JSON list"),
  ],
)
def test_results_that_are_no_list_are_refused(tmp_path, text, problem):
  path = tmp_path / results.RESULTS
  path.write_text(text)
  with pytest.raises(ValueError, match=f"results.json {problem}"):
    results.append_result(tmp_path, {"top1": 0.5})
  assert path.read_text() == text


def test_a_result_that_is_no_json_leaves_the_file(tmp_path):
  results.append_result(tmp_path, {"top1": 0.5})
  with pytest.raises(ValueError, match="JSON"):
    results.append_result(tmp_path, {"top1": float("nan")})
  assert results.read_results(tmp_path) == [{"top1": 0.5}]


def test_a_crash_while_replacing_leaves_the_old_text(tmp_path, monkeypatch):
  path = tmp_path / "file"
  files.replace_text(path, "old")

  def crash(*unused):
    raise OSError("power cut")

  monkeypatch.setattr(files.os, "replace", crash)
  with pytest.raises(OSError, match="power cut"):
    files.replace_text(path, "new")
  assert path.read_text() == "old"


def per_step(first, count):
  steps = np.arange(first, first + count, dtype=np.float32)
  return {"loss": steps, "learning_rate": steps / 10}


def test_means_over_intervals():
  means = metrics.StepMeans(3)
  assert means.add(1, per_step(1, 1)) == []
  assert means.add(2, per_step(2, 1)) == []
  ((step, row),) = means.add(3, per_step(3, 1))
  assert step == 3
  assert row["loss"] == 2.0
  # The learning rate is that of the last step.
  assert row["learning_rate"] == pytest.approx(0.3)


def test_means_do_not_depend_on_how_steps_arrive():
  one_by_one, at_once, mixed = (metrics.StepMeans(4) for _ in range(3))
  expected = [
    row for s in range(1, 13) for row in one_by_one.add(s, per_step(s, 1))
  ]
  assert [step for step, _ in expected] == [4, 8, 12]
  assert at_once.add(12, per_step(1, 12)) == expected
  assert (
    mixed.add(6, per_step(1, 6)) + mixed.add(12, per_step(7, 6)) == expected
  )


def test_means_go_on_from_what_was_pending():
  whole = metrics.StepMeans(5)
  expected = whole.add(10, per_step(1, 10))
  first = metrics.StepMeans(5)
  rows = first.add(7, per_step(1, 7))
  pending = json.loads(json.dumps(first.pending))
  assert len(pending) == 2
  second = metrics.StepMeans(5, pending)
  assert rows + second.add(10, per_step(8, 3)) == expected
  assert second.pending == []


def test_steps_of_an_older_version_may_lack_a_metric():
  means = metrics.StepMeans(2, [{"loss": 1.0, "learning_rate": 0.1}])
  values = {"loss": [3.0], "learning_rate": [0.2], "new": [5.0]}
  ((step, found),) = means.add(
    2, {name: np.array(value) for name, value in values.items()}
  )
  assert step == 2
  assert found == {"loss": 2.0, "learning_rate": 0.2, "new": 5.0}


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
  monkeypatch.setattr(metrics.time, "perf_counter", clock)
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


NUMBERS = {"cross_entropy": 1.2345, "me_max_kl": 0.5, "target_confidence": 0.66}


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
  progress.accuracy(0.8769, 55)
  clock.now += 1
  progress.show(60, {"cross_entropy": 2.0})
  line = stream.getvalue()
  assert line.endswith("cross-entropy 2.000  soft-NN 87.7% @55\n")
  assert "me-max" not in line
  assert "confidence" not in line


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
