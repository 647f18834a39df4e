"""--task=evaluate --protocol: its row, files, images on disk, refusals."""

import dataclasses
import functools

import jax
import numpy as np
import pytest
from PIL import Image

from paws_jax import config as config_lib
from paws_jax import errors
from paws_jax.evaluation import linear_protocols
from paws_jax.finetune import frozen_trunk
from paws_jax.finetune import linear_settings
from paws_jax.parallel import mesh as mesh_lib
from paws_jax.runs import checkpoint
from paws_jax.runs import results
from paws_jax.runs import workdir as workdir_lib
from paws_jax.tasks import evaluate
from paws_jax.training import checkpoints
from paws_jax.training import experiment
from paws_jax.training import restore
from tests import small_runs
from tests import tiny_recipe

pytestmark = pytest.mark.unoptimized


@pytest.fixture(scope="module", autouse=True)
def one_device():
  """Eight would take longer to compile for; the parts are tried on more."""
  with pytest.MonkeyPatch.context() as patch:
    create = functools.partial(experiment.create, devices=jax.devices()[:1])
    patch.setattr(experiment, "create", create)
    yield


def _recipe(**changes):
  config = tiny_recipe.get_config()
  config.support.classes_per_step = 10
  config.model.name = "small_resnet"
  config.model.width = 1
  config.eval.update(linear_epochs=20, linear_batch_size=16)
  config.eval.linear_learning_rate = 3.0
  config.finetune.crop_scale = (0.8, 1.0)
  for name, value in changes.items():
    config.update_from_flattened_dict({name.replace("__", "."): value})
  return config.lock()


def _untrained(config, path):
  """A run that has taken no steps: its weights are random."""
  recipe = config_lib.resolve(config)
  built = experiment.create(recipe)
  split = built.dataset.split.as_json()
  path = workdir_lib.prepare(path, recipe, split)
  workdir_lib.write_split(path, split)
  directory = path / workdir_lib.CHECKPOINTS
  with checkpoint.Checkpointer(directory) as checkpointer:
    checkpoints.save(
      checkpointer, built.trainer, built.total_steps, built.initial_state(), {}
    )
  return path


def _evaluate(config, path, name):
  assert evaluate.run(evaluate.prepare(config, str(path), protocol=name)) == 0
  return results.read_results(path)


@pytest.fixture(scope="module")
def in_memory(tmp_path_factory):
  config = _recipe()
  return config, _untrained(config, tmp_path_factory.mktemp("memory"))


@pytest.mark.slow
def test_a_row_says_what_was_trained_and_measured(in_memory, capsys):
  config, path = in_memory
  (row,) = _evaluate(config, path, "linear_moco")
  expected = {
    "task": "evaluate",
    "protocol": "linear_moco",
    "title": "linear layer, MoCo v2",
    "embedding": "trunk",
    "batch_size": 16,
    "epochs": 20,
    "learning_rate": 3.0,
    "crop_scale": [0.8, 1.0],
    "part": "test",
    "num_images": 360,
    "num_labels": 20,
  }
  assert {name: row[name] for name in expected} == expected
  # Far better than one in ten, on random features.
  assert row["top1"] > 0.25
  text = capsys.readouterr().out
  assert "20 epochs of 2 steps on 20 labelled images" in text
  assert "of batches of 16, learning rate 3; after the last epoch" in text
  for name in ("confusion.csv", "per_class.csv"):
    assert (path / "evaluation" / "linear_moco" / name).exists()
    assert not (path / "evaluation" / name).exists()
  # The seed decides: the same numbers, so no other row.
  assert _evaluate(config, path, "linear_moco") == [row]


@pytest.mark.parametrize("name", linear_protocols.PROTOCOLS)
def test_fewer_images_than_a_batch_are_said(name):
  recipe, protocol = config_lib.base(), linear_protocols.PROTOCOLS[name]
  recipe = config_lib.resolve(recipe)
  settings = linear_settings.choose(name, recipe.eval, 20)
  row = settings.as_row(recipe.finetune)
  assert (row["batch_size"], row["epochs"]) == (20, protocol.epochs)
  assert row["batch_size_wanted"] == protocol.batch_size
  assert row["learning_rate"] == pytest.approx(
    protocol.learning_rate(256) * 20 / 256
  )
  row = linear_settings.choose(name, recipe.eval, 10**6).as_row(recipe.finetune)
  assert row["batch_size"] == protocol.batch_size
  assert "batch_size_wanted" not in row


def _photos(root):
  """Two classes on disk, one of their images not readable, and a test set."""
  small_runs.write_photos(root)
  for label, level in (("a", 60), ("b", 190)):
    noise = np.random.default_rng(level).normal(level, 20, (4, 24, 24, 3))
    for part in ("labelled", "test"):
      for i, pixels in enumerate(noise.clip(0, 255).astype(np.uint8)):
        path = root / part / label / f"plain{i}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels + (part == "test")).save(path)
  return root


@pytest.mark.slow
def test_images_on_disk(tmp_path, capsys):
  root = _photos(tmp_path / "photos")
  changes = small_runs.on_disk(root) | {
    "data.test_dir": str(root / "test"),
    "data.on_bad_image": "skip",
    "views.eval_resize": 8,
  }
  config = _recipe(**{k.replace(".", "__"): v for k, v in changes.items()})
  path = _untrained(config, tmp_path / "run")
  bad = next((root / "labelled" / "a").glob("plain*"))
  bad.write_bytes(bad.read_bytes()[:60])
  (row,) = _evaluate(config, path, "linear_byol")
  assert (row["num_labels"], row["num_images"]) == (13, 8)
  assert row["top1"] == 1
  assert "1 of 14 labelled images cannot be read" in capsys.readouterr().out


@pytest.mark.slow
def test_a_rate_that_diverges_names_the_field(in_memory):
  _, path = in_memory
  config = _recipe(eval__linear_learning_rate=1e38)
  problem = r"linear_byol with learning rate 1e\+38: .*linear_learning_rate"
  with pytest.raises(errors.NonFiniteError, match=problem):
    _evaluate(config, path, "linear_byol")


@pytest.mark.parametrize("name", ["moco", "linear_probe", ""])
def test_an_unknown_protocol_is_refused(in_memory, name):
  with pytest.raises(errors.InputError) as caught:
    evaluate.prepare(in_memory[0], str(in_memory[1]), protocol=name)
  assert all(known in str(caught.value) for known in linear_protocols.PROTOCOLS)


def test_other_test_images_are_refused(in_memory):
  with pytest.raises(errors.InputError, match="--test=photos does without"):
    evaluate.prepare(
      in_memory[0], str(in_memory[1]), protocol="linear_moco", test="photos"
    )


@pytest.fixture(scope="module")
def trained(in_memory):
  return restore.load(config_lib.resolve(in_memory[0]), str(in_memory[1]))


def _with(trained, **parts):
  built = trained.experiment
  dataset = dataclasses.replace(built.dataset, **parts)
  built = dataclasses.replace(built, dataset=dataset)
  return dataclasses.replace(trained, experiment=built)


def test_a_class_without_a_label_is_refused_by_name(trained):
  labelled = trained.experiment.dataset.labelled
  fewer = dataclasses.replace(labelled, labels=labelled.labels[:5] // 9)
  problem = r"5 labelled images of 10 classes, none of 1, 2, 3, 4, 5 and 4 more"
  with pytest.raises(errors.InputError, match=problem):
    linear_settings.check(_with(trained, labelled=fewer), "linear_byol")


def test_no_test_images_are_refused(trained):
  with pytest.raises(errors.InputError, match=r"no test .*data\.test_dir"):
    linear_settings.check(_with(trained, test=None), "linear_byol")


def test_labelled_images_that_cannot_be_read_may_leave_a_class_empty(trained):
  class Broken(np.ndarray):
    readable = trained.experiment.dataset.labelled.labels != 4

  labelled = trained.experiment.dataset.labelled
  images = labelled.images.view(Broken)
  changed = _with(
    trained, labelled=dataclasses.replace(labelled, images=images)
  )
  with pytest.raises(errors.InputError, match=r"18 .* none of 4: "):
    frozen_trunk.measure(changed, "linear_byol", "test")


def test_a_batch_that_the_devices_do_not_divide_is_refused(trained):
  built = trained.experiment
  mesh = mesh_lib.make_mesh(jax.devices()[:3])
  built = dataclasses.replace(
    built, trainer=dataclasses.replace(built.trainer, mesh=mesh)
  )
  changed = dataclasses.replace(trained, experiment=built)
  with pytest.raises(errors.InputError, match=r"eval\.linear_batch_size is 16"):
    linear_settings.check(changed, "linear_byol")
