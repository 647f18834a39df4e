"""A run of the tiny recipe that is said to be finished, without its steps.

Classifiers need weights, not good ones. Made once for all tests of a process.
"""

import contextlib
import dataclasses
import functools
import importlib.util
import io
import pathlib
import tempfile

import numpy as np

from paws_jax import config as config_lib
from paws_jax.classifier import preprocessing
from paws_jax.runs import checkpoint
from paws_jax.runs import results
from paws_jax.runs import workdir as workdir_lib
from paws_jax.tasks import pretrain
from paws_jax.training import checkpoints
from paws_jax.training import measure
from paws_jax.training import restore
from paws_jax.training import save_classifier

RECIPE = pathlib.Path(__file__).parent / "tiny_recipe.py"
_HOME = tempfile.TemporaryDirectory()


def recipe():
  """Digits are enlarged, resized and cut: every step of preprocessing."""
  spec = importlib.util.spec_from_file_location("tiny_recipe", RECIPE)
  module = importlib.util.module_from_spec(spec)
  spec.loader.exec_module(module)
  config = module.get_config()
  config.data.image_size = 12
  config.views.eval_resize = 10
  return config


@functools.cache
def workdir():
  """A directory with the run's last checkpoint, and nothing made of it."""
  path = pathlib.Path(_HOME.name) / "run"
  prepared = pretrain.prepare(recipe(), str(path))
  experiment = prepared.experiment
  spent = dataclasses.asdict(measure.Spent(1.0, 1.0, 1.0))
  with checkpoint.Checkpointer(path / workdir_lib.CHECKPOINTS) as checkpointer:
    checkpoints.save(
      checkpointer,
      experiment.trainer,
      experiment.total_steps,
      experiment.initial_state(),
      {"spent": spent, "pending_metrics": []},
    )
  return path


@functools.cache
def trained():
  return restore.load(config_lib.resolve(recipe()), str(workdir()))


@functools.cache
def classifier():
  return save_classifier.from_trained(trained())


@functools.cache
def result():
  """The row that pre-training writes of the run."""
  with contextlib.redirect_stdout(io.StringIO()):
    assert pretrain.run(pretrain.prepare(recipe(), str(workdir()))) == 0
  (row,) = results.read_results(workdir())
  return row


def photograph(height, width, channels=3, seed=0):
  """uint8 noise, smooth enough to be resized."""
  coarse = np.random.default_rng(seed).integers(0, 256, (4, 4, channels))
  return preprocessing.cover(coarse.astype(np.uint8), height, width)
