"""Out of memory: what to lower, for every task."""

import importlib
import types

import jax
import pytest

from paws_jax import config as config_lib
from paws_jax.cli import dispatch
from paws_jax.cli import flags
from paws_jax.config import recipe_files
from paws_jax.runs import compilation_cache
from paws_jax.runs import out_of_memory
from tests import tiny_recipe

FULL = "RESOURCE_EXHAUSTED: Out of memory allocating 99 bytes.\nmore\nlines"


@pytest.mark.parametrize(
  ("advice", "words"),
  [
    ("training", ["train.batch_size (now 256)", "train.remat"]),
    ("finetuning", ["finetune.batch_size (now 1024)", "train.remat"]),
    ("evaluating", ["eval.batch_size (now 256)"]),
  ],
)
def test_every_task_says_what_to_lower(advice, words):
  with (
    pytest.raises(MemoryError) as caught,
    getattr(out_of_memory, advice)(
      config_lib.resolve(tiny_recipe.get_config())
    ),
  ):
    raise jax.errors.JaxRuntimeError(FULL)
  for word in words:
    assert word in str(caught.value)
  assert str(caught.value).endswith("Out of memory allocating 99 bytes.")


@pytest.mark.parametrize(
  ("method", "fields", "words"),
  [
    ("paws", {"train.chunks": 4}, "raise train.chunks (now 4)"),
    ("paws", {"train.chunks": 0}, "raise train.chunks (now auto)"),
    ("fixmatch", {}, "lower model.width"),
    (
      "paws",
      {
        "model.trunk": "frozen",
        "model.init_from": "weights.npz",
        "views.cached": 7,
      },
      "lower views.cached (now 7) or views.cached_support (now 16)",
    ),
  ],
)
def test_what_is_advised_is_not_refused(method, fields, words):
  config = config_lib.base(method)
  if method == "fixmatch":
    config = recipe_files.load("fixmatch")
  config.update_from_flattened_dict(fields)
  with (
    pytest.raises(MemoryError) as caught,
    out_of_memory.training(config_lib.resolve(config)),
  ):
    raise jax.errors.JaxRuntimeError(FULL)
  assert f", {words}, " in str(caught.value)
  assert ("chunks" in str(caught.value)) == ("chunks" in words)


@pytest.mark.parametrize("where", ["prepare", "run"])
@pytest.mark.parametrize(
  ("task", "with_config", "word"),
  [
    ("predict", True, "eval.batch_size (now 256)"),
    ("predict", False, "batch_size in the classifier.json"),
    ("report", True, "eval.batch_size (now 256)"),
    ("export", True, "eval.batch_size (now 256)"),
  ],
)
def test_main_says_it_for_tasks_without_advice_of_their_own(
  task, with_config, word, where, monkeypatch, capsys
):
  def fail(*unused, **options):
    raise jax.errors.JaxRuntimeError(FULL)

  # Made first: a recipe imports the section of its method.
  config = tiny_recipe.get_config() if with_config else None
  module = types.SimpleNamespace(
    prepare=fail if where == "prepare" else lambda *unused, **options: None,
    run=fail,
  )
  monkeypatch.setattr(importlib, "import_module", lambda name: module)
  monkeypatch.setattr(compilation_cache, "enable", lambda path: None)
  for name, value in (("TASK", task), ("CACHE", None)):
    flag = types.SimpleNamespace(value=value)
    monkeypatch.setattr(flags, name, flag)
  assert dispatch._execute(config, "") == 1
  error = capsys.readouterr().err
  assert error.startswith("error: the devices' memory does not suffice. Lower ")
  assert word in error
