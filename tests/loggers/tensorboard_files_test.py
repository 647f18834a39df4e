"""TensorBoard reads the files that are written without TensorFlow."""

import json
import subprocess
import sys

import pytest
from PIL import Image

from tests.loggers import loggers_test

pytest.importorskip("tensorboard")

# Reads a directory with TensorBoard's own reader, which prefers TensorFlow.
READ = """
import json, sys, types
sys.modules["tensorboard.compat.notf"] = types.ModuleType("notf")
from tensorboard.backend.event_processing import event_accumulator
events = event_accumulator.EventAccumulator(sys.argv[1])
events.Reload()
scalars = {
  tag: [(e.step, e.value) for e in events.Scalars(tag)]
  for tag in events.Tags()["scalars"]
}
texts = {
  tag: [(e.step, e.tensor_proto.string_val[0].decode())
        for e in events.Tensors(tag)]
  for tag in events.Tags()["tensors"]
}
images = {
  tag: [(e.step, e.width, e.height) for e in events.Images(tag)]
  for tag in events.Tags()["images"]
}
print(json.dumps([scalars, texts, images]))
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
    "start = interface.Start(pathlib.Path(sys.argv[1]), 0, '', {'seed': 0})\n"
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
