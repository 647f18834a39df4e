"""`model.init_from` in the tasks that read it, in memory and on disk."""

import dataclasses
import json
import pathlib

import jax
import numpy as np
import pytest

from paws_jax import config as config_lib
from paws_jax import models
from paws_jax.classifier import files as classifier_files
from paws_jax.doctor import view_sheet
from paws_jax.plan import memory
from paws_jax.runs import workdir as workdir_lib
from paws_jax.tasks import doctor
from paws_jax.tasks import pretrain
from paws_jax.training import experiment
from paws_jax.weights import open_file
from paws_jax.weights import pretrained
from paws_jax.weights import torch_names
from tests import small_runs
from tests import tiny_recipe
from tests import torch_archives

pytestmark = pytest.mark.unoptimized

IMAGENET = {
  "views.mean": [0.485, 0.456, 0.406],
  "views.std": [0.229, 0.224, 0.225],
}


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
  return small_runs.write_photos(tmp_path_factory.mktemp("photos"))


def _config(pipeline, photos, changes):
  config = tiny_recipe.get_config()
  fields = {"model.name": "resnet_tiny", "model.output_dim": 8}
  if pipeline == "disk":
    fields |= small_runs.on_disk(photos)
  config.update_from_flattened_dict(fields | changes)
  return config


def _torchvision(path, *, channels, name="resnet_tiny"):
  """Writes weights as torchvision does; returns the trunk."""
  model = dataclasses.replace(config_lib.Model(), name=name, output_dim=8)
  encoder = models.create(model)
  shapes = jax.eval_shape(
    lambda key: encoder.init(
      key, np.zeros((1, 32, 32, channels), np.float32), train=False
    ),
    jax.random.key(0),
  )
  rng = np.random.default_rng(0)
  trunk = jax.tree.map(
    lambda leaf: rng.uniform(0.5, 1, leaf.shape).astype(np.float32),
    {kind: {"trunk": parts["trunk"]} for kind, parts in shapes.items()},
  )
  state = dict(torch_names.to_torch(trunk))
  state["fc.weight"] = np.ones((1000, 128), np.float32)
  state["fc.bias"] = np.ones(1000, np.float32)
  torch_archives.save(
    path, {name: np.ascontiguousarray(a) for name, a in state.items()}
  )
  return trunk


@pytest.mark.parametrize(("pipeline", "channels"), [("memory", 1), ("disk", 3)])
def test_pre_training_accepts_a_torchvision_file(
  pipeline, channels, photos, tmp_path
):
  _torchvision(tmp_path / "resnet.pth", channels=channels)
  changes = {"model.init_from": str(tmp_path / "resnet.pth")}
  prepared = pretrain.prepare(
    _config(pipeline, photos, changes), str(tmp_path / "run")
  )
  line = prepared.experiment.check_init_from()
  assert line.startswith("init_from: 85 arrays from ")


@pytest.mark.slow
@pytest.mark.parametrize(("pipeline", "channels"), [("memory", 1), ("disk", 3)])
def test_pre_training_starts_from_a_torchvision_file(
  pipeline, channels, photos, tmp_path
):
  trunk = _torchvision(tmp_path / "resnet.pth", channels=channels)
  changes = {"model.init_from": str(tmp_path / "resnet.pth")}
  prepared = pretrain.prepare(
    _config(pipeline, photos, changes), str(tmp_path / "run")
  )
  state = jax.device_get(prepared.experiment.initial_state())
  for found, wanted in (
    (state.params, trunk["params"]),
    (state.batch_stats, trunk["batch_stats"]),
  ):
    jax.tree.map(np.testing.assert_array_equal, found["trunk"], wanted["trunk"])


@pytest.mark.parametrize("pipeline", ["memory", "disk"])
def test_pre_training_refuses_weights_before_it_writes_a_checkpoint(
  pipeline, photos, tmp_path
):
  changes = {"model.init_from": str(tmp_path / "absent.pth")}
  with pytest.raises(FileNotFoundError, match=r"absent\.pth does not exist"):
    pretrain.prepare(_config(pipeline, photos, changes), str(tmp_path / "run"))


@pytest.fixture
def examine(capsys, monkeypatch, photos, tmp_path):
  """A function that returns the doctor's status and findings."""
  nothing = memory.Memory(*[0] * 5)
  monkeypatch.setattr(memory, "memory", lambda _: nothing)
  monkeypatch.setattr(view_sheet, "draw", lambda *_: tmp_path / "views.png")

  def run(pipeline, weights, changes=None):
    config = _config(
      pipeline, photos, {"model.init_from": str(weights)} | (changes or {})
    )
    status = doctor.run(config, str(tmp_path / "work"), train_command="train")
    block = capsys.readouterr().out.partition("\nInitial weights\n")[2]
    return status, block.partition("\n\n")[0]

  return run


def test_the_doctor_names_what_is_loaded(examine, tmp_path):
  path = tmp_path / "resnet.pth"
  _torchvision(path, channels=3)
  status, text = examine("disk", path, IMAGENET)
  assert status == 0
  assert f"init_from: 85 arrays from {path} (torchvision or timm" in text
  assert "warning" not in text


@pytest.mark.parametrize(("pipeline", "channels"), [("memory", 1), ("disk", 3)])
def test_the_doctor_finds_weights_that_do_not_fit(
  pipeline, channels, examine, tmp_path
):
  status, text = examine(pipeline, tmp_path / "absent.pth")
  assert status == 1
  assert f"PROBLEM: model.init_from={tmp_path / 'absent.pth'} does not" in text
  path = tmp_path / "other.pth"
  _torchvision(path, channels=channels, name="small_resnet")
  status, text = examine(pipeline, path)
  assert status == 1
  assert f"PROBLEM: model.init_from={path} (torchvision or timm" in text
  assert "the PyTorch weights do not fit this encoder" in text


def test_the_doctor_finds_mean_and_std_of_other_weights(examine, tmp_path):
  path = tmp_path / "resnet.pth"
  _torchvision(path, channels=3)
  status, text = examine("disk", path)
  assert status == 0
  assert text.count("warning: ") == 2
  assert "warning: views.mean is (0.5, 0.5, 0.5), but images for" in text
  assert "set --config.views.std='(0.229, 0.224, 0.225)' unless" in text


def test_the_doctor_compares_mean_and_std_with_those_of_a_run(
  examine, monkeypatch, photos, tmp_path
):
  monkeypatch.setattr(
    experiment.Experiment, "check_init_from", lambda _: "init_from: ..."
  )
  run = tmp_path / "run"
  config = config_lib.resolve(_config("disk", photos, IMAGENET))
  workdir_lib.prepare(run, config)
  status, text = examine("disk", run, IMAGENET)
  assert (status, "warning" in text) == (0, False)
  status, text = examine("disk", run)
  assert status == 0
  assert "views.mean is (0.5, 0.5, 0.5), but images for a run are" in text
  golden = pathlib.Path("tests/golden/run_0_1/run/classifier")
  used = json.loads((golden / classifier_files.SETTINGS).read_text())
  used = used["preprocessing"]
  assert used["mean"] != [0.5]
  status, text = examine("memory", golden, {"views.mean": [0.5]})
  assert status == 0
  assert "views.mean is (0.5,), but images for a saved classifier are" in text
  assert f"normalized with ({used['mean'][0]},)" in text


@pytest.mark.slow
@pytest.mark.parametrize("channels", [1, 3])
def test_pre_training_starts_from_public_weights(
  channels, photos, examine, tmp_path
):
  pipeline = "memory" if channels == 1 else "disk"
  changes = {
    "model.name": "efficientnet_lite0",
    "model.init_from": "efficientnet_lite0",
    "model.freeze_bn": True,
    "views.mean": [127 / 255] * channels,
    "views.std": [128 / 255] * channels,
  }
  status, text = examine(pipeline, "efficientnet_lite0", changes)
  assert (status, "warning" in text) == (0, False)
  assert "EfficientNet-Lite0, trained on ImageNet; license: Apache 2.0" in text
  assert ("images are grey" in text) == (channels == 1)
  config = _config(pipeline, photos, changes)
  prepared = pretrain.prepare(config, str(tmp_path / "run"))
  state = jax.device_get(prepared.experiment.initial_state())
  kernel = state.params["trunk"]["conv_stem"]["kernel"]
  with open_file.open_weights(pretrained.find("efficientnet_lite0")) as public:
    wanted = np.asarray(public["_conv_stem.weight"]).transpose(2, 3, 1, 0)
  if channels == 1:
    wanted = wanted.sum(axis=2, keepdims=True)
  np.testing.assert_array_equal(kernel, wanted)
