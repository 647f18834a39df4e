"""Output and refusals of `--task=devices`, on one process and on several."""

import types

import jax
import numpy as np
import pytest

from configs import imagenet
from paws_jax import config as config_lib
from paws_jax.parallel import mesh
from paws_jax.tasks import devices as devices_lib
from tests import processes
from tests import tiny_recipe


def _recipe(changes=None):
  config = tiny_recipe.get_config()
  config.update_from_flattened_dict(changes or {})
  return config


def _mesh(num_processes, devices_of_each):
  """A mesh of devices that are only described."""
  devices = [
    types.SimpleNamespace(
      process_index=i // devices_of_each, platform="tpu", device_kind="TPU v9"
    )
    for i in range(num_processes * devices_of_each)
  ]
  grid = np.asarray(devices, object).reshape(1, -1)
  return types.SimpleNamespace(
    devices=grid,
    size=grid.size,
    shape=dict(zip(mesh.AXES, grid.shape, strict=True)),
  )


def _rows(text):
  """Cells of the table by the first of their row."""
  lines = [line.strip() for line in text.splitlines()]
  cells = [[c.strip() for c in line.split("  ") if c] for line in lines]
  return {row[0]: row[1:] for row in cells if len(row) == 5}


def test_imagenet_on_a_pod():
  text = devices_lib.describe(
    config_lib.resolve(imagenet.get_config()), _mesh(32, 4)
  )
  assert "processes: 32\n" in text
  assert "devices of each process: 4\n" in text
  assert "devices: 128 (tpu, TPU v9)\n" in text
  assert "mesh: group 1 x data 128\n" in text
  assert "BatchNorm: 1 group of 128 devices\n" in text
  assert "classes in a step: 960, 7 images of each" in text
  assert _rows(text) == {
    "unlabelled images": ["4,096", "-", "128", "32"],
    "their crops": ["32,768", "-", "1,024", "256"],
    # 960 x 7 = 6,720 = 52.5 for each device.
    "supports": ["6,784", "64", "212", "53"],
    "their views": ["6,784", "64", "212", "53"],
    "evaluated at once": ["256", "-", "8", "2"],
  }


def test_several_views_of_each_support():
  recipe = _recipe({"support.num_views": 2, "eval.batch_size": 250})
  rows = _rows(devices_lib.describe(config_lib.resolve(recipe), _mesh(1, 8)))
  assert rows["supports"] == ["16", "6", "16", "2"]
  assert rows["their views"] == ["32", "12", "32", "4"]
  assert rows["evaluated at once"] == ["256", "-", "256", "32"]


def test_all_classes_of_the_data():
  recipe = _recipe({"support.classes_per_step": 0})
  text = devices_lib.describe(config_lib.resolve(recipe), _mesh(1, 8))
  assert "supports" not in _rows(text)
  assert "all classes of the data (support.classes_per_step is 0)" in text


def test_without_unlabelled_images():
  recipe = _recipe({"method.name": "supervised"})
  text = devices_lib.describe(config_lib.resolve(recipe), _mesh(1, 8))
  assert set(_rows(text)) == {"supports", "their views", "evaluated at once"}
  assert "unlabelled images: none, method.name is 'supervised'" in text


@pytest.mark.parametrize(
  ("changes", "words"),
  [
    ({"train.batch_size": 4}, "is 4, which 8 devices do not divide: make it"),
    ({"train.batch_size": 30}, "is 30, which 8 devices do not divide: make it"),
    ({"train.batch_size": 0}, "train.batch_size is 0: .* at least 1"),
    ({"method.name": "pows"}, "method.name is 'pows'"),
    ({"model.name": "resnet"}, "'resnet'"),
    ({"views.large.count": 1}, "views.large.count is 1"),
  ],
)
def test_what_training_would_refuse(changes, words, capsys):
  assert jax.device_count() == 8
  with pytest.raises(ValueError, match=words):
    devices_lib.run(_recipe(changes))
  assert capsys.readouterr().out == ""


def test_on_these_devices(capsys):
  assert devices_lib.run(_recipe()) == 0
  out = capsys.readouterr().out
  assert "devices: 8 (cpu, " in out
  assert _rows(out)["unlabelled images"] == ["256", "-", "256", "32"]


def test_no_image_is_opened(monkeypatch):
  for name in ("load_dataset", "sources.arrays"):
    monkeypatch.setattr(f"paws_jax.data.{name}.load", None)
  recipe = _recipe({"data.source": "idx", "data.dir": "nowhere"})
  assert devices_lib.run(recipe) == 0


CODE = """
import sys
sys.path.insert(0, "tests")
from tests import tiny_recipe
from paws_jax import errors
from paws_jax.distributed import launch as launch_lib
from paws_jax.distributed import lifecycle as distributed
from paws_jax.tasks import devices
process, num_processes, port = map(int, sys.argv[1:])
distributed.initialize(
  launch_lib.Launch(f"localhost:{port}", num_processes, process, "test"),
  timeout_seconds=60,
)
config = tiny_recipe.get_config()
"""


def _run(code):
  with processes.start_code(CODE + code, num_processes=2, devices=2) as group:
    return group.wait(seconds=60)


@pytest.mark.slow
def test_process_0_prints():
  first, other = _run("print(devices.run(config))")
  assert first.status == other.status == 0, first.err + other.err
  assert "processes: 2\n" in first.out
  assert _rows(first.out)["unlabelled images"] == ["256", "-", "128", "64"]
  assert "processes" not in other.out


@pytest.mark.slow
def test_processes_with_different_recipes():
  finished = _run(
    """
if process:
  config.train.batch_size = 512
try:
  devices.run(config)
except errors.DisagreementError as error:
  print(error)
"""
  )
  for each in finished:
    assert (
      "train.batch_size is 256 on process 0, 512 on process 1" in each.out
    ), each.err
    assert "mesh" not in each.out
