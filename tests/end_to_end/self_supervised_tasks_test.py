"""Runs of self-supervised methods from their first step to every task."""

import csv
import functools
import io
import json
import shutil
import types

import jax
import numpy as np
import pytest
from PIL import Image
from sklearn import datasets

from paws_jax import config as config_lib
from paws_jax.runs import metrics
from paws_jax.runs import results
from paws_jax.runs import workdir as workdir_lib
from paws_jax.tasks import embed
from paws_jax.tasks import evaluate
from paws_jax.tasks import export
from paws_jax.tasks import finetune
from paws_jax.tasks import plan
from paws_jax.tasks import predict
from paws_jax.tasks import pretrain
from paws_jax.tasks import report
from paws_jax.training import experiment
from paws_jax.training import restore
from tests import tiny_recipe

pytestmark = [
  pytest.mark.slow,
  pytest.mark.unoptimized,
  pytest.mark.devices(2),
]

# Of a bank, a table and a head; of a queue; of prototypes.
METHODS = {
  "cmsf": {
    "constraint": "pseudo_labels",
    "bank_size": 512,
    "head_batch_size": 8,
    "threshold": 0.2,
  },
  "moco": {"queue_size": 512},
  "swav": {
    "freeze_steps": 2,
    "num_prototypes": 20,
    "queue_size": 512,
    "queue_from_epochs": 0.2,
  },
}
HEADS = {
  "cmsf": {"prediction_head": True, "prediction_hidden_dim": 16},
  "moco": {"projection_norm": False},
  "swav": {},
}
PROTOCOLS = ("linear_moco", "linear_simsiam", "linear_swav", "linear_byol")


@pytest.fixture(scope="module", autouse=True)
def one_device():
  """Eight would take longer to compile for."""
  with pytest.MonkeyPatch.context() as patch:
    create = functools.partial(experiment.create, devices=jax.devices()[:1])
    patch.setattr(experiment, "create", create)
    yield


def _recipe(name):
  """Five steps an epoch, so that rounds of a head do not halve it."""
  config = tiny_recipe.get_config()
  config.method = config_lib.method_section(name, None)
  config.method.update(METHODS[name])
  config.data.labels_per_class = 4
  config.views.small.count = 0
  config.support.classes_per_step = 10
  config.model.update(HEADS[name], name="small_resnet", projection_layers=2)
  config.checkpoint.every_steps = 3
  config.checkpoint.keep_every_steps = 3
  config.eval.update(linear_epochs=1, linear_batch_size=16)
  config.finetune.update(epochs=1, batch_size=16, learning_rates=(0.1,))
  return config.lock()


@pytest.fixture(scope="module", params=METHODS)
def trained(request, tmp_path_factory):
  """(recipe, directory, steps after which the method acted) of a run."""
  acted, config = [], _recipe(request.param)
  path = tmp_path_factory.mktemp(request.param) / "run"
  prepared = pretrain.prepare(config, str(path))
  _note_actions(prepared, acted)
  assert pretrain.run(prepared) == 0
  return types.SimpleNamespace(
    name=request.param, config=config, path=path, acted=acted
  )


def _note_actions(prepared, acted):
  """Lists the steps after which a method changes the state between steps."""
  method = prepared.experiment.trainer.method
  kind = type(method)
  if not method.acts_between_epochs:
    return

  class Noting(kind):
    def on_epoch_end(self, state, embed, *, step):
      acted.append(step)
      return kind.on_epoch_end(self, state, embed, step=step)

  object.__setattr__(method, "__class__", Noting)


def test_it_reports_while_it_trains(trained):
  rows = metrics.read(trained.path / metrics.METRICS)
  losses = {"cmsf": "mean_shift", "moco": "info_nce", "swav": "assignment_kl"}
  shown = [row for row in rows if losses[trained.name] in row]
  assert [row["step"] for row in shown] == [3, 6, 9]
  purity = [(row["step"], row["purity"]) for row in rows if "purity" in row]
  if trained.name != "cmsf":
    assert not purity
    assert not trained.acted
    return
  assert [step for step, _ in purity] == [5, 10]
  # An image is among its own neighbours.
  assert all(0.2 <= value <= 1 for _, value in purity)
  assert trained.acted == [0, 2, 5, 7, 10]
  assert all(0 <= row["free"] < 1 for row in shown)


def test_a_run_resumed_within_an_epoch_is_the_same(trained, tmp_path):
  shutil.copytree(trained.path, tmp_path / "copy")
  checkpoints = tmp_path / "copy" / workdir_lib.CHECKPOINTS
  steps = sorted(int(p.name) for p in checkpoints.iterdir() if p.name.isdigit())
  assert steps == [3, 6, 9, 10]
  for step in steps[2:]:
    shutil.rmtree(checkpoints / str(step))
  acted = []
  prepared = pretrain.prepare(trained.config, str(tmp_path / "copy"))
  _note_actions(prepared, acted)
  assert pretrain.run(prepared) == 0
  assert acted == [step for step in trained.acted if step > 6]
  recipe = config_lib.resolve(trained.config)
  states = [
    restore.load(recipe, str(path))
    for path in (trained.path, checkpoints.parent)
  ]
  for part in ("params", "batch_stats"):
    jax.tree.map(
      np.testing.assert_array_equal, *(getattr(s, part) for s in states)
    )


def _images(directory):
  directory.mkdir()
  for number, pixels in enumerate(datasets.load_digits().images[:3]):
    image = Image.fromarray((pixels * 15).astype(np.uint8))
    image.save(directory / f"{number}.png")
  return str(directory)


def test_tasks_that_read_images(trained, tmp_path):
  images, path = _images(tmp_path / "images"), str(trained.path)
  options = {"classifier": None, "head": "soft_nn"}
  made = predict.prepare(
    trained.config,
    path,
    images=images,
    add_class=[],
    output=str(tmp_path / "p.csv"),
    **options,
  )
  assert predict.run(made) == 0
  rows = list(csv.DictReader(io.StringIO((tmp_path / "p.csv").read_text())))
  assert len(rows) == 3
  assert {row["predicted_class"] for row in rows} <= {str(n) for n in range(10)}
  made = embed.prepare(
    trained.config,
    path,
    images=images,
    layer="features",
    output=str(tmp_path / "e.npz"),
    **options,
  )
  assert embed.run(made) == 0
  with np.load(tmp_path / "e.npz") as file:
    (width,) = {a.shape[1] for a in file.values() if a.ndim == 2}
  assert width == 64
  made = export.prepare(
    trained.config, path, targets=("torch",), output=str(tmp_path / "out")
  )
  assert export.run(made) == 0


def test_report_and_fine_tuning(trained, tmp_path):
  page = tmp_path / "page.html"
  assert (
    report.run(
      report.prepare(trained.config, str(trained.path), output=str(page))
    )
    == 0
  )
  text = page.read_text()
  assert f">{trained.name}" in text
  made = finetune.prepare(trained.config, str(trained.path))
  assert finetune.run(made) == 0
  row = results.read_results(trained.path)[-1]
  assert (row["task"], row["method"]) == ("finetune", trained.name)
  assert 0 <= row["top1"] <= 1


@pytest.mark.parametrize("protocol", [None, *PROTOCOLS])
def test_evaluation(trained, protocol):
  made = evaluate.prepare(trained.config, str(trained.path), protocol=protocol)
  assert evaluate.run(made) == 0
  rows = results.read_results(trained.path)
  kinds = {row["protocol"] for row in rows if row["task"] == "evaluate"}
  assert (protocol or "soft_nn") in kinds
  assert rows[-1]["method"] == trained.name


def test_a_plan_counts_the_state_of_the_method(trained, tmp_path):
  recipe = config_lib.resolve(trained.config)
  assert plan.run(recipe, str(tmp_path), machine="h200:2") == 0
  row = json.loads((tmp_path / "plan.json").read_text())
  assert row["fits"]
  assert row["batch_size"] == 256
