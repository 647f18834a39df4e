"""Names that documents, notebooks and other programs import stay importable."""

import importlib
import importlib.util
import pathlib
import re
import subprocess
import sys

import pytest

from paws_jax import _moved

ROOT = pathlib.Path(__file__).parents[1]

# Former path: where the same object is now.
NAMES = {
  "abstract_step.create": "plan.abstract_step.create",
  "augment.normalise": "augment.views.normalize",
  "checkpoint.Checkpointer": "runs.checkpoint.Checkpointer",
  "checkpoint.CheckpointError": "errors.CheckpointError",
  "classifier.Classifier": "classifier.classifier.Classifier",
  "classifier.from_trained": "training.save_classifier.from_trained",
  "data.decode.BadImageError": "errors.BadImageError",
  "data.decode.canvas": "data.host.decode.canvas",
  "data.decode.image": "data.host.decode.image",
  "data.sources.Arrays": "data.sources.arrays.Arrays",
  "data.sources.load": "data.sources.arrays.load",
  "evaluate.make_embedder": "evaluation.embed.make_embedder",
  "evaluate.soft_nn_accuracy": "evaluation.soft_nn.soft_nn_accuracy",
  "evaluate.top_k_accuracy": "evaluation.accuracy.top_k_accuracy",
  "experiment.Experiment": "training.experiment.Experiment",
  "experiment.create": "training.experiment.create",
  "interop.torch_weights.torch_state": "weights.write_torch.torch_state",
  "interop.torch_weights.write_torch": "weights.write_torch.write_torch",
  "notebook.run": "cli.notebook.run",
  "program_audit.collectives": "plan.hlo.collectives",
  "program_audit.dtypes_of": "plan.hlo.operation_dtypes",
  "program_audit.host_calls": "plan.hlo.host_calls",
  "program_audit.memory": "plan.hlo.memory",
  "sharding.REPLICATED": "parallel.mesh.REPLICATED",
  "sharding.make_mesh": "parallel.mesh.make_mesh",
  "sharding.use_cpu_cores": "parallel.cpu_devices.use_cpu_cores",
  "train.NonFiniteError": "errors.NonFiniteError",
  "train.TrainState": "training.state.TrainState",
  "train.loop": "training.loop.loop",
  "train.make_train_call": "training.step.make_train_call",
}
# Names that have not moved.
KEPT = (
  "Classifier",
  "augment.ViewsConfig",
  "augment.evaluation_view",
  "config.base",
  "config.validate",
  "data.HostBatch",
  "data.Views",
  "data.sampling.class_balanced_indices",
  "losses.nt_xent_loss",
  "losses.paws_loss",
  "losses.sharpen",
  "losses.soft_nearest_neighbours",
  "losses.suncet_loss",
  "models.create",
  "optim.create",
  "optim.lars",
  "optim.warmup_cosine",
)


def _get(path):
  """Imports the module of a dotted path and returns the attribute."""
  module, _, name = f"paws_jax.{path}".rpartition(".")
  return getattr(importlib.import_module(module), name)


@pytest.mark.parametrize("former", NAMES)
def test_a_former_name_is_the_same_object(former):
  assert _get(former) is _get(NAMES[former])


@pytest.mark.parametrize("name", KEPT)
def test_a_public_name_is_kept(name):
  assert _get(name) is not None


def test_every_former_module_is_tested():
  tested = {f"paws_jax.{name.rpartition('.')[0]}" for name in NAMES}
  assert set(_moved.MODULES) - {"paws_jax.interop"} <= tested
  for module, places in _moved.MODULES.items():
    assert not importlib.util.find_spec(module).has_location
    for place in places:
      assert importlib.util.find_spec(place).has_location


def test_both_forms_of_an_import():
  import paws_jax.interop.torch_weights
  from paws_jax.interop import torch_weights

  from paws_jax import train

  assert paws_jax.interop.torch_weights is torch_weights
  assert train is importlib.import_module("paws_jax.train")


@pytest.mark.parametrize(
  "module", ["train", "sharding", "interop", "classifier", "data.sources"]
)
def test_a_name_that_never_was_is_missed(module):
  with pytest.raises(AttributeError, match=f"'paws_jax.{module}'.*'nothing'"):
    _get(f"{module}.nothing")


def test_a_module_that_never_was_is_missed():
  with pytest.raises(ModuleNotFoundError, match="nothing"):
    importlib.import_module("paws_jax.nothing")


def test_the_package_imports_nothing_large():
  code = (
    "import sys, paws_jax\n"
    "assert not hasattr(paws_jax, 'nothing')\n"
    "print([m for m in ('jax', 'numpy', 'flax') if m in sys.modules])\n"
  )
  result = subprocess.run(
    [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True
  )
  assert result.stdout == "[]\n", result.stderr


def test_documents_use_the_new_paths():
  paths = [*ROOT.glob("docs/*.md"), *ROOT.glob("colabs/*.ipynb")]
  paths += [*ROOT.glob("*.md")]
  imports = re.compile(
    r"from (paws_jax[\w.]*) import (\w+)|import (paws_jax[\w.]*)"
  )
  found = 0
  for path in paths:
    if path.name == "CHANGELOG.md":
      continue
    for module, name, plain in imports.findall(path.read_text("utf-8")):
      full = plain or f"{module}.{name}"
      assert full not in _moved.MODULES, path
      found += 1
  assert found >= 10
