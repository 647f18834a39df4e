"""TensorBoard reads the files that are written without TensorFlow."""

import json
import subprocess
import sys

import pytest
from PIL import Image

from paws_jax.runs import growing_file
from tests.loggers import loggers_test

pytest.importorskip("tensorboard")

# Reads a directory as TensorBoard's pages do; it prefers TensorFlow.
READ = """
import json, sys, types
sys.modules["tensorboard.compat.notf"] = types.ModuleType("notf")
from tensorboard.backend.event_processing import plugin_event_accumulator
from tensorboard.util import tensor_util
events = plugin_event_accumulator.EventAccumulator(sys.argv[1])
events.Reload()
found = {"scalars": {}, "text": {}, "images": {}}
for plugin in found.keys() & set(events.ActivePlugins()):
  tags = found[plugin]
  for tag in events.PluginTagToContent(plugin):
    tags[tag] = []
    for event in events.Tensors(tag):
      value = tensor_util.make_ndarray(event.tensor_proto)
      if plugin == "scalars":
        row = [value.item()]
      elif plugin == "text":
        row = [value.ravel()[0].decode()]
      else:
        row = [int(side) for side in value[:2]]
      tags[tag].append([event.step, *row])
print(json.dumps(list(found.values())))
"""


def read(workdir):
  result = subprocess.run(
    [sys.executable, "-c", READ, str(workdir)],
    capture_output=True,
    text=True,
    check=True,
    timeout=300,
  )
  return json.loads(result.stdout)


def test_writing_loads_no_tensorflow(tmp_path):
  program = (
    "import pathlib, sys\n"
    "sys.modules['tensorflow'] = sys.modules['clu'] = None\n"
    "from paws_jax.loggers import interface, tensorboard_files\n"
    "path = pathlib.Path(sys.argv[1])\n"
    "start = interface.Start(path, 0, -1, '', {'seed': 0})\n"
    "writer = tensorboard_files.TensorBoardFile(start)\n"
    "writer.write_scalars(1, {'loss': 0.5})\n"
    "writer.close('finished')\n"
  )
  subprocess.run([sys.executable, "-c", program, str(tmp_path)], check=True)
  (events,) = tmp_path.glob("events.out.tfevents.*")
  assert b"loss" in events.read_bytes()


def test_a_resumed_run_has_each_step_once(tmp_path):
  log = loggers_test.open_log(tmp_path, "tensorboard")
  loggers_test.write(log, range(1, 6))
  # Killed: what was written is there.
  log = loggers_test.open_log(tmp_path, "tensorboard", first_step=3)
  for step in range(4, 8):
    log.write(step, {"loss": step, "top1": 0.5})
  log.note(7, {"finding": "dead learning rate", "sentence": "it is low."})
  Image.new("RGB", (20, 10)).save(tmp_path / "training.png")
  log.result(7, {"top1": 0.25})
  log.close(failed=False, done=True)
  scalars, texts, images = read(tmp_path)
  assert scalars["loss"] == [
    *[[step, pytest.approx(step / 3)] for step in (1, 2, 3)],
    *[[step, step] for step in (4, 5, 6, 7)],
  ]
  assert scalars["top1"] == [[step, 0.5] for step in (4, 5, 6, 7)]
  assert scalars["result/top1"] == [[7, 0.25]]
  assert texts["dead_learning_rate"] == [[7, "it is low."]]
  ((step, recipe),) = texts["recipe"]
  assert step == 0
  assert "    train.batch_size = 256\n" in recipe
  assert images == {"training": [[7, 20, 10]]}


def test_a_file_that_is_added_later_has_the_recipe_too(tmp_path):
  log = loggers_test.open_log(tmp_path)
  loggers_test.write(log, (1, 2, 3))
  log.close(failed=False, done=False)
  log = loggers_test.open_log(tmp_path, "tensorboard", first_step=2)
  loggers_test.write(log, (3, 4))
  _, texts, _ = read(tmp_path)
  assert [step for step, _ in texts["recipe"]] == [0]
  # Killed, and started again from the beginning.
  log = loggers_test.open_log(tmp_path, "tensorboard")
  loggers_test.write(log, (1, 2))
  log = loggers_test.open_log(tmp_path, "tensorboard", first_step=2)
  loggers_test.write(log, (3,))
  scalars, texts, _ = read(tmp_path)
  assert [step for step, _ in scalars["loss"]] == [1, 2, 3]
  assert [step for step, _ in texts["recipe"]] == [0]


@pytest.fixture
def bucket(monkeypatch):
  """Writes files as in a bucket."""
  monkeypatch.setattr(
    growing_file,
    "open_file",
    lambda path, content=b"": growing_file._Object(path, content),
  )


@pytest.mark.parametrize("where", ["disk", "bucket"])
def test_rows_are_there_once_after_a_failure(
  tmp_path, monkeypatch, request, where
):
  if where == "bucket":
    request.getfixturevalue("bucket")
  log = loggers_test.open_log(tmp_path, "tensorboard")
  loggers_test.write(log, (1, 2))
  log.flush()
  loggers_test.write(log, (3,))

  def fail(*_):
    raise OSError("No space left on device")

  (sink,) = log._loggers._sinks.values()
  monkeypatch.setattr(sink.writer._records, "write", fail)
  # A bucket does not get what was not flushed.
  monkeypatch.setattr(sink.writer, "close", fail)
  loggers_test.write(log, (4, 5, 6))
  log.close(failed=False, done=False)
  log = loggers_test.open_log(tmp_path, "tensorboard", first_step=5)
  loggers_test.write(log, (6, 7))
  log.close(failed=False, done=False)
  scalars, _, _ = read(tmp_path)
  assert [step for step, _ in scalars["loss"]] == [*range(1, 8)]


@pytest.mark.usefixtures("bucket")
def test_a_bucket_has_all_rows_after_flush(tmp_path):
  log = loggers_test.open_log(tmp_path, "tensorboard")
  log.write(1, {"cross_entropy": 0.5})
  # As before a checkpoint; the process is killed after it.
  log.flush()
  log.write(2, {"never_there": 0.5})
  (events,) = tmp_path.glob("events.out.tfevents.*")
  assert b"cross_entropy" in events.read_bytes()
  assert b"never_there" not in events.read_bytes()
