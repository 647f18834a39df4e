"""Weights & Biases in its offline mode, where the package is installed."""

import json
import struct
import types

import pytest
from PIL import Image

from paws_jax.loggers import wandb_run
from tests.loggers import loggers_test


@pytest.fixture(autouse=True)
def offline(monkeypatch, tmp_path):
  monkeypatch.setenv("WANDB_MODE", "offline")
  monkeypatch.setenv("WANDB_SILENT", "true")
  for name in ("CONFIG_DIR", "CACHE_DIR", "DATA_DIR"):
    monkeypatch.setenv(f"WANDB_{name}", str(tmp_path / "home"))


def records(path):
  """Contents of a file that `wandb sync` reads: blocks as LevelDB has them."""
  data, place, parts = path.read_bytes(), 7, []
  while place + 7 <= len(data):
    left = 2**15 - place % 2**15
    _, length, kind = struct.unpack_from("<IHB", data, place)
    if left < 7 or not kind:
      place += left
      continue
    parts.append(data[place + 7 : place + 7 + length])
    place += 7 + length
    # Complete, or the last part.
    if kind in (1, 4):
      yield b"".join(parts)
      parts = []


def history(path):
  """Id of the run, its rows, and its recipe."""
  from wandb.proto import wandb_internal_pb2

  run_id, rows, recipe = "", [], {}
  for content in records(path):
    entry = wandb_internal_pb2.Record.FromString(content)
    if entry.HasField("run"):
      run_id = entry.run.run_id
      for item in entry.run.config.update:
        recipe[item.key] = json.loads(item.value_json)
    if entry.HasField("history"):
      items = entry.history.item
      names = [item.key or "/".join(item.nested_key) for item in items]
      values = [json.loads(item.value_json) for item in items]
      rows.append(dict(zip(names, values, strict=True)))
  return run_id, rows, recipe


@pytest.mark.slow
def test_a_resumed_run_continues_the_same_run(tmp_path):
  pytest.importorskip("wandb")
  log = loggers_test.open_log(tmp_path, "wandb")
  loggers_test.write(log, range(1, 5))
  log.note(4, {"finding": "collapse", "sentence": "all the same."})
  log.close(failed=False, done=False)
  log = loggers_test.open_log(tmp_path, "wandb", first_step=2)
  loggers_test.write(log, range(3, 7))
  Image.new("RGB", (20, 10)).save(tmp_path / "training.png")
  log.result(6, {"top1": 0.25})
  log.close(failed=False, done=True)
  paths = sorted(tmp_path.glob("wandb/offline-run*/*.wandb"))
  parts = [history(path) for path in paths]
  (first, rows, recipe), (second, more, _) = parts
  assert first == second != ""
  assert recipe["train.batch_size"] == 256
  found = rows + more
  assert [row["_step"] for row in found] == [1, 2, 3, 4, 5, 6]
  assert [row["loss"] for row in found] == [step / 3 for step in range(1, 7)]
  assert rows[3]["collapse"] == "all the same."
  assert found[5]["result/top1"] == 0.25
  assert found[5]["training/width"] == 20


@pytest.mark.parametrize(("step", "logged"), [(5, 7), (7, 7), (8, 8)])
def test_what_a_continued_run_lacks_is_not_dropped(step, logged):
  # The program drops values of steps before the next one.
  rows = []
  writer = wandb_run.WandbRun.__new__(wandb_run.WandbRun)
  writer._run = types.SimpleNamespace(
    step=7, log=lambda values, *, step: rows.append((step, values))
  )
  writer.write_scalars(step, {"result/top1": 0.5})
  writer.write_text(step, "collapse", "all the same.")
  assert rows == [
    (logged, {"result/top1": 0.5}),
    (logged, {"collapse": "all the same."}),
  ]
