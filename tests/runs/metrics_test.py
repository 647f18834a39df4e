"""metrics.jsonl, results.json, means over intervals, the progress line."""

import json
import subprocess
import sys

import numpy as np
import pytest

from paws_jax import errors
from paws_jax.runs import metrics
from tests import odd_files


def lines(workdir):
  text = (workdir / metrics.METRICS).read_text()
  return [json.loads(line) for line in text.splitlines()]


def open_writer(workdir, first_step=0):
  return metrics.Writer(workdir, first_step=first_step)


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


def test_a_new_run_starts_an_empty_file(tmp_path, capsys):
  writer = open_writer(tmp_path)
  writer.write(1, {"loss": 1.0})
  writer.close()
  before = (tmp_path / metrics.METRICS).read_bytes()
  open_writer(tmp_path, first_step=0).close()
  assert lines(tmp_path) == []
  assert (tmp_path / "metrics.old.jsonl").read_bytes() == before
  assert "metrics.old.jsonl (the run starts again" in capsys.readouterr().out


def written(workdir, steps):
  writer = open_writer(workdir)
  for step in steps:
    writer.write(step, {"loss": step / 3})
  writer.note(steps[-1], {"finding": "collapse", "sentence": "all the same."})
  writer.close()
  return (workdir / metrics.METRICS).read_text()


# What somebody has made of the rows of steps 1 to 4.
CHANGES = {
  "a damaged line": lambda t: t.replace('{"step": 2,', '{"step": 2'),
  "a line of notes": lambda t: t.replace('{"step": 2', 'note\n{"step": 2'),
  "notes below": lambda t: t + "# checked by hand\n",
  "notes without a line end": lambda t: t + "checked by hand",
  "a row with a note": lambda t: t.replace(
    '{"step": 4, "loss"', '{"step": 4, "note": "odd", "loss"'
  ),
  "a row of another kind": lambda t: t.replace('{"step": 2,', "{"),
  "a number": lambda t: t + "5\n",
  "no last line end": lambda t: t[:-1],
}


@pytest.mark.parametrize("change", CHANGES)
def test_lines_that_no_run_writes_are_kept(tmp_path, capsys, change):
  path = tmp_path / metrics.METRICS
  changed = CHANGES[change](written(tmp_path, (1, 2, 3, 4)))
  path.write_text(changed)
  # Reading goes on behind them.
  steps = [row["step"] for row in metrics.read(path)]
  assert {1, 3, 4} <= set(steps)
  writer = open_writer(tmp_path, first_step=3)
  writer.write(4, {"loss": 4.0})
  writer.close()
  assert (tmp_path / "metrics.old.jsonl").read_text() == changed
  assert "is kept as metrics.old.jsonl" in capsys.readouterr().out
  want = [step for step in (1, 2, 3) if step in steps]
  assert [row["step"] for row in lines(tmp_path)] == [*want, 4]


def test_lines_are_copied_as_they_stand(tmp_path):
  path = tmp_path / metrics.METRICS
  path.write_text('{"step":1,  "loss": 1.50}\n{"step": 2, "loss": 1}\n')
  open_writer(tmp_path, first_step=1).close()
  assert path.read_text() == '{"step":1,  "loss": 1.50}\n'
  assert [p.name for p in tmp_path.iterdir()] == [path.name]


@pytest.mark.parametrize(
  "tail",
  [
    b'{"step": 3, "lo',
    b'{"step": 3, "name": "\xc3',
    b"\0\0\0",
    b"[" * 100_000,
    b"3",
    b'{"loss": 2.0}',
    b'{"step": "3", "loss": 2.0}',
    b'{"step": 3, "loss": [2.0]}',
    b'{"step": 3, "loss": NaN}',
  ],
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
    "metrics.Writer(path, first_step=0).close()\n"
    "print([m for m in ('tensorflow', 'tensorboard') if m in sys.modules])"
  )
  result = subprocess.run(
    [sys.executable, "-c", program], capture_output=True, text=True, check=True
  )
  assert result.stdout == "[]\n"


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


@pytest.mark.parametrize(
  "change",
  [
    lambda text: text.replace(b"\n", b"\r"),
    lambda text: text.decode().encode("utf-16"),
    lambda text: text + b'{"step": 5, "note": "the lamp was broken"}\n',
    lambda text: b"\xff\xfe" + text,
  ],
  ids=["line ends", "encoding", "note", "bytes"],
)
def test_a_file_saved_by_another_program_is_kept(tmp_path, change):
  path = tmp_path / metrics.METRICS
  content = change(b'{"step": 1, "loss": 0.5}\n{"step": 2, "loss": 0.25}\n')
  path.write_bytes(content)
  metrics.Writer(tmp_path, first_step=2).close()
  assert (tmp_path / "metrics.old.jsonl").read_bytes() == content


@pytest.mark.parametrize("kind", ["pipe", "directory"])
def test_what_is_no_file_of_metrics_is_an_error_that_names_it(tmp_path, kind):
  odd_files.make(tmp_path / metrics.METRICS, kind)
  problem = f"metrics.jsonl cannot be read .*{odd_files.KINDS[kind]}"
  with pytest.raises(errors.WorkdirError, match=problem):
    metrics.read(tmp_path / metrics.METRICS)
  with pytest.raises(errors.WorkdirError, match=problem):
    metrics.Writer(tmp_path, first_step=0)
