"""benchmarks/compare/compare.py as its users run it, as small as it goes."""

import dataclasses
import json
import os
import pathlib
import shutil
import subprocess
import sys
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from benchmarks.compare import data as comparison_data
from benchmarks.compare import page as comparison_page
from benchmarks.compare import recipes as comparison_recipes
from benchmarks.compare import training as comparison_training
from paws_jax import config as config_lib
from paws_jax.data.sources import arrays
from paws_jax.training import loop
from paws_jax.training import step as step_lib
from tests import quick_compile

_ROOT = pathlib.Path(__file__).parents[3]
_VIEWS = 9000
_TINY = (
  "--config.data.image_size=0",
  "--config.model.output_dim=8",
  "--config.train.batch_size=256",
  "--config.support.images_per_class=2",
  "--config.views.large.size=8",
  "--config.views.rotation_degrees=0.0",
  "--config.views.eval_resize=8",
  "--seeds=3",
  f"--views={_VIEWS}",
)
# Of runs, whose time is that of the steps: an epoch of 22, or two.
_FEW_VIEWS = 3700
_FEW = ("--config.train.batch_size=64", f"--views={_FEW_VIEWS}")
_NAMES = {"paws": "PAWS", "simclr": "SimCLR"}


def _python(*arguments, **environment):
  return subprocess.run(
    [sys.executable, *arguments],
    cwd=_ROOT,
    env={
      **os.environ,
      "JAX_PLATFORMS": "cpu",
      "PYTHONPATH": str(_ROOT),
      **quick_compile.ENVIRON,
      **environment,
    },
    capture_output=True,
    text=True,
    check=False,
  )


def _run(output, *arguments):
  result = _python(
    *("-m", "benchmarks.compare.compare", *_TINY, *_FEW),
    *(f"--output={output}", *arguments),
  )
  assert result.returncode == 0, result.stderr
  return result.stdout


def _read(path):
  return [json.loads(line) for line in path.read_text().splitlines()]


# One method of each kind: without labels, with one crop and an average network,
# with labels beside it, with a table of labels and work between epochs.
_KINDS = ("supervised", "paws", "simclr", "moco", "swav_suncet")
_BETWEEN = "cmsf_pseudo_labels"


@pytest.mark.slow
def test_methods_are_compared_at_one_budget_and_a_second_start_goes_on(
  tmp_path,
):
  output = tmp_path / "new" / "cells.jsonl"
  shown = _run(output, "--labels=1,2", "--methods=paws,simclr")
  rows = _read(output)
  assert [(row["labels"], row["method"]) for row in rows] == [
    (1, "paws"),
    (1, "simclr"),
    (2, "paws"),
    (2, "simclr"),
  ]
  # Each program is compiled for the first cell that needs it, and never again.
  assert [row["compile_seconds"] > 0 for row in rows] == [True, True] + [
    False
  ] * 2
  # What sees no labels is trained once; a split is the same for all methods.
  assert shown.count("compiled simclr") == 1
  assert shown.count("compiled fine-tuning") == 1
  assert shown.count("step 22/22") == 3
  hashes = [row["split_hash"] for row in rows]
  assert hashes[0] == hashes[1] != hashes[2] == hashes[3]

  again = _run(output, "--labels=1", f"--methods={','.join(_KINDS)}")
  assert "cell 1 of 3 (4 were there): supervised only, 1 labels" in again
  assert _read(output)[:4] == rows
  rows = _read(output)
  assert len(rows) == 7
  for row in rows:
    assert 0.8 * _FEW_VIEWS < row["views"] <= _FEW_VIEWS, row
    assert row["flops"] > 0
    for score in ("knn", "linear", "soft_nn", "fine_tuned"):
      assert 0 <= row[score] <= 1
    assert row["num_test"] == 360
  by_method = {row["method"]: row for row in rows}
  # Crops of an unlabelled image are two, of a labelled one it is one.
  assert by_method["supervised"]["images"] == by_method["supervised"]["views"]
  paws = by_method["paws"]
  # Fine-tuning: 18 steps of 20 images.
  assert (paws["steps"], paws["images"]) == (22 + 18, 22 * (64 + 20) + 360)
  assert paws["views"] == 22 * (2 * 64 + 20) + 360
  assert by_method["simclr"]["views"] == 22 * 128 + 360
  # The trained encoder sees one of the two crops, so that steps are twice as
  # many.
  moco = by_method["moco"]
  assert (moco["steps"], moco["views"]) == (44 + 18, 44 * 64 + 360)
  assert 1.2 < moco["flops"] / by_method["simclr"]["flops"] < 1.45
  for name in ("supervised only", "SwAV + SuNCEt", "MoCo v2"):
    assert name in again
    assert name in output.with_suffix(".md").read_text()
  assert output.with_suffix(".png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.slow
def test_tables_of_labels_and_what_is_done_between_epochs(tmp_path):
  output = tmp_path / "cells.jsonl"
  shown = _run(output, "--labels=1,2", f"--methods={_BETWEEN}")
  first, second = _read(output)
  # The table has a row for each labelled image.
  assert shown.count(f"compiled {_BETWEEN}") == 2
  assert first["steps"] == second["steps"]
  assert first["split_hash"] != second["split_hash"]


@pytest.mark.slow
def test_unknown_classes_are_distinguished_from_known_ones(tmp_path):
  output = tmp_path / "cells.jsonl"
  shown = _run(output, "--labels=2", "--methods=paws", "--unknown_classes=5")
  (row,) = _read(output)
  assert row["num_test"] + row["num_unknown"] == 360
  assert 150 < row["num_test"] < 210
  # 5 classes of 2 supports beside two crops of all unlabelled images; nothing
  # is fine-tuned.
  assert row["views"] == row["steps"] * (2 * 64 + 10)
  assert "fine_tuned" not in row
  assert 0 <= row["auroc"] <= 1
  assert "AUROC" in shown
  assert "5 of 10 classes known" in shown


def _base():
  """The recipe that is shared, as small as in `_TINY`."""
  config = config_lib.beside(str(comparison_recipes.CONFIGS / "x.py"), "ropaws")
  for setting in _TINY:
    name, _, value = setting.removeprefix("--config.").partition("=")
    if not name.startswith("--"):
      config.update_from_flattened_dict({name: json.loads(value)})
  return config


def _digits():
  return comparison_data.hide(
    arrays.load("digits", directory="", tfds_name=""), 0
  )


_SHARED = ("data", "views", "optim", "finetune", "seed")
_BUDGET = comparison_recipes.Budget(_VIEWS, 0.1, 1.0)


@pytest.mark.parametrize("name", comparison_recipes.METHODS)
def test_the_recipe_of_each_method(name):
  base, data = _base(), _digits()
  method = comparison_recipes.METHODS[name]
  config = comparison_recipes.recipe(base, method, _BUDGET, data)
  comparison_recipes.check_views(config, "digits")
  # Methods with a class head have views and optimizer of their own.
  shared = ("data", "finetune", "seed") if method.class_head else _SHARED
  for section in shared:
    assert config[section] == base[section], section
  for field in ("name", "width", "bn_momentum"):
    assert config.model[field] == base.model[field]
  if not method.class_head:
    assert config.train.batch_size == base.train.batch_size
  built = data.experiment(config, labels=2, seed=3)
  every = comparison_training.between_epochs(built).every
  # Two rounds of a head in each epoch of 5 steps.
  acts = (5, (2,)) if name == _BETWEEN else (0, ())
  assert (every.epoch, every.within_epoch) == acts
  assert (every.evaluate, every.save) == (0, 0)
  views = comparison_recipes.views_per_step(config, method)
  per_epoch = views * (data.num_images // config.train.batch_size)
  spent = views * built.total_steps
  assert spent <= 0.9 * _VIEWS < spent + per_epoch
  assert bool(method.trained_crops) == bool(built.trainer.views.crops)
  # Labels are for those that say so: a pre-training serves all label draws.
  assert method.uses_labels or not built.trainer.method.needs_support
  assert method.uses_labels or name not in ("cmsf_labels", _BETWEEN)


def test_a_budget_of_less_than_an_epoch_is_refused():
  budget = comparison_recipes.Budget(1000, 0.0, 1.0)
  method = comparison_recipes.METHODS["simclr"]
  with pytest.raises(ValueError, match=r"SimCLR has 1000 to .* takes 2560"):
    comparison_recipes.recipe(_base(), method, budget, _digits())


def test_more_labelled_than_unlabelled_images_of_a_step_are_refused():
  base, method = _base(), comparison_recipes.METHODS["fixmatch"]
  base.support.classes_per_step = 200
  data = types.SimpleNamespace(num_classes=200, num_images=2000)
  with pytest.raises(ValueError, match=r"200 labelled images a .*\(now 200\)"):
    comparison_recipes.recipe(base, method, _BUDGET, data)


def test_a_budget_without_a_step_of_the_prototypes_is_refused():
  budget = comparison_recipes.Budget(3000, 0.0, 1.0)
  method = comparison_recipes.METHODS["swav"]
  with pytest.raises(ValueError, match=r"freeze_steps is 12 .* has 5 steps"):
    comparison_recipes.recipe(_base(), method, budget, _digits())


def test_methods_have_the_heads_of_their_own_recipes():
  base, data = _base(), _digits()
  asked = {
    "simsiam": {"model.projection_final_norm": True, "model.output_dim": 128},
    "moco": {"method.queue_size": 512, "train.bn_groups": 4},
    "swav_suncet": {"support.label_smoothing": 0.0, "model.output_dim": 8},
    "cmsf_labels": {"method.constraint": "labels", "method.k": 5},
    "paws": {"method.support_loss_weight": 1.0, "model.output_dim": 8},
  }
  for name, fields in asked.items():
    config = comparison_recipes.recipe(
      base, comparison_recipes.METHODS[name], _BUDGET, data
    )
    for field, value in fields.items():
      section, key = field.split(".")
      assert config[section][key] == value, (name, field)


def test_cells_of_other_recipes_are_not_continued(tmp_path, monkeypatch):
  base, data = _base(), _digits()

  def digest():
    return comparison_recipes.digest(base, data)

  found = [digest()]
  assert digest() == found[0]
  policies = comparison_recipes.rand_augment.POLICIES
  weaker = dataclasses.replace(policies["digits"], num_ops=1)
  with monkeypatch.context() as patch:
    patch.setitem(policies, "digits", weaker)
    found.append(digest())
  moco = dataclasses.replace(
    comparison_recipes.METHODS["moco"], trained_crops=2
  )
  with monkeypatch.context() as patch:
    patch.setitem(comparison_recipes.METHODS, "moco", moco)
    found.append(digest())
  copied = tmp_path / "configs"
  shutil.copytree(comparison_recipes.CONFIGS, copied)
  monkeypatch.setattr(comparison_recipes, "CONFIGS", copied)
  assert digest() == found[0]
  for name, old, new in (
    ("fixmatch", "peak_lr = 0.03", "peak_lr = 0.02"),
    ("moco", "queue_size = 512", "queue_size = 640"),
  ):
    text = (copied / f"{name}.py").read_text()
    assert old in text
    (copied / f"{name}.py").write_text(text.replace(old, new))
    found.append(digest())
  base.optim.peak_lr *= 2
  found.append(digest())
  assert len(set(found)) == len(found) == 6


class _Pixels(nn.Module):
  """No trunk: nothing else compiles as fast."""

  @nn.compact
  def __call__(self, x, *, train, mask=None):
    del train, mask
    return x.reshape(x.shape[0], -1)


def _tiny_encoder(encoder):
  settings = dataclasses.replace(encoder.projection.settings, dtype=jnp.float32)
  projection = encoder.projection.clone(hidden_dim=8, settings=settings)
  return encoder.clone(trunk=_Pixels(), projection=projection)


@pytest.mark.unoptimized
def test_a_program_trains_on_any_number_of_labels():
  """One step on a padded pipeline, by the functions of the benchmark."""
  data, programs = _digits(), comparison_training.Programs()
  # Without unlabelled crops: most of the time is the compiler's.
  method = comparison_recipes.METHODS["supervised"]
  state, spent, calls = None, [], []
  for labels in (1, 2):
    config = comparison_recipes.recipe(_base(), method, _BUDGET, data)
    built = data.experiment(config, labels=labels, seed=3)
    trainer = built.trainer
    encoder = _tiny_encoder(trainer.method.encoder)
    trainer = dataclasses.replace(
      trainer, method=dataclasses.replace(trainer.method, encoder=encoder)
    )
    if state is None:
      shapes = jax.eval_shape(
        built.pipeline.batch, built.pipeline.input_shapes(1), jnp.int32(0)
      )
      state = step_lib.init_state(trainer, shapes)
    trained, cost = programs.train(
      "supervised",
      trainer,
      comparison_training.Padded(built.pipeline, trainer.mesh),
      jax.tree.map(jnp.copy, state),
      images=comparison_recipes.images_per_step(config, method),
      views=comparison_recipes.views_per_step(config, method),
      num_steps=1,
      between=comparison_training.Between(
        loop.Intervals(epoch=1), lambda state, step: calls.append(step) or state
      ),
    )
    assert trained.finite
    assert int(trained.step) == 1
    spent.append(cost)
  assert [cost.compile_seconds > 0 for cost in spent] == [True, False]
  assert spent[0].views == 20
  assert spent[0].flops > 0
  # Before the first step and after the last.
  assert calls == [0, 1] * 2


# What a flag is set to, and what the message must name.
_REFUSED = {
  "methods=paws,pawz": "--methods has 'pawz': known are supervised, simclr",
  "methods=": "--methods is empty",
  "labels=1,x": "--labels is '1,x': give whole numbers from 1 to 32",
  "labels=33": "--labels is '33': give whole numbers from 1 to 32",
  "seeds=-1": "--seeds is '-1': give whole numbers from 0, e.g.",
  "views=0": "--views is 0: at least 1",
  "views=1000": "--finetune_share is 0.1 of --views, 1000: 100 views",
  "finetune_share=0.001": "--finetune_share is 0.001 of --views, 150000: 150",
  "finetune_share=1": "--finetune_share is 1: at least 0, and below 1",
  "finetune_share=-0.1": "--finetune_share is -0.1: at least 0",
  "finetune_lr=nan": "--finetune_lr is nan: greater than 0",
  "unknown_classes=-1": "--unknown_classes is -1: at least 0",
  "unknown_classes=9": "--unknown_classes is 9 but digits has 10 classes: lowe",
  "output=a.png": "--output is 'a.png': give a name that ends in .jsonl",
  "output=BROKEN": "line 1 of ",
  "output=OTHER": "holds cells whose views is 7, but now it is",
  "output=OLDER": "was written before all methods were fine-tuned",
  "config.model.init_from=x": "model.init_from is 'x': methods are compared",
  "config.data.pipeline=host": "data.pipeline is 'host': the comparison needs",
  "config.views.small.count=1": "views.small.count is 1",
}
_DRIVER = """
import sys
import types
import types
from absl import flags
from benchmarks.compare import compare
output, number, *arguments = sys.argv[1:]
fields, changes = arguments[:int(number)], arguments[int(number):]
# Their flags are made of sys.argv.
sys.argv = ["compare.py", *fields]
flags.FLAGS(sys.argv)
recipe = compare._CONFIG.value
for change in changes:
  for name in ("methods", "labels", "seeds", "views", "finetune_share",
               "finetune_lr", "unknown_classes", "output"):
    flags.FLAGS[name].unparse()
  config, own = recipe.copy_and_resolve_references(), []
  name, value = change.split("=", 1)
  if name.startswith("config."):
    name = name.removeprefix("config.")
    kind = int if value.isdigit() else str
    config.update_from_flattened_dict({name: kind(value)})
  else:
    own = [f"--{change}"]
  flags.FLAGS(["compare.py", "--seeds=3", f"--output={output}", *own])
  compare._CONFIG = types.SimpleNamespace(value=config)
  sys.stderr.write(f"{change}\\n")
  sys.stderr.write(f"status {compare.main(['compare.py'])}\\n")
"""


@pytest.mark.slow
def test_what_cannot_be_compared_is_refused_by_name(tmp_path):
  other = tmp_path / "other.jsonl"
  other.write_text(json.dumps({"settings": {"views": 7}}) + "\n")
  older = tmp_path / "older.jsonl"
  older.write_text(json.dumps({"settings": {}, "top1": 0.5}) + "\n")
  broken = tmp_path / "broken.jsonl"
  broken.write_text("{\n" + other.read_text())
  asked = {
    flag.replace("OTHER", str(other))
    .replace("BROKEN", str(broken))
    .replace("OLDER", str(older)): message
    for flag, message in _REFUSED.items()
  }
  # One process for all: importing takes longer than refusing.
  fields = [flag for flag in _TINY if flag.startswith("--config")]
  result = _python(
    *("-c", _DRIVER, f"{tmp_path}/x.jsonl", str(len(fields)), *fields), *asked
  )
  assert result.returncode == 0, result.stderr
  assert "Traceback" not in result.stderr
  told = result.stderr.splitlines()
  for flag, message in asked.items():
    first, status = told[told.index(flag) + 1 :][:2]
    assert first.startswith("error: "), (flag, first)
    assert message in first, (flag, first)
    assert status == "status 2", (flag, status)


def _toy_arrays():
  labels = np.arange(8, dtype=np.int32) % 4
  images = np.arange(8, dtype=np.uint8).reshape(8, 1, 1, 1)
  return arrays.Arrays(
    "toy", tuple("abcd"), images, labels, images + 10, labels
  )


def test_hidden_classes_stay_among_the_unlabelled_images_alone():
  data = comparison_data.hide(_toy_arrays(), 1)
  assert data.num_classes == 3
  assert data.num_images == 8
  assert data.labels.tolist() == [0, 1, 2, -1, 0, 1, 2, -1]
  assert data.arrays.test_images.ravel().tolist() == [10, 11, 12, 14, 15, 16]
  assert data.unknown_images.ravel().tolist() == [13, 17]
  everything = comparison_data.hide(_toy_arrays(), 0)
  assert everything.unknown_images is None
  assert everything.num_classes == 4


def test_auroc_is_the_share_of_pairs_in_the_right_order():
  known, unknown = np.array([0.9, 0.4]), np.array([0.5, 0.1])
  assert comparison_data.auroc(known, unknown) == 0.75
  assert comparison_data.auroc(unknown, known) == 0.25


def _row(method, labels, seed, score, **more):
  costs = {"steps": 10, "images": 2000, "views": 4000, "flops": 2e12}
  times = {"seconds": 3.0, "compile_seconds": 1.5}
  cell = {"method": method, "labels": labels, "seed": seed, "soft_nn": score}
  return cell | costs | times | more


def test_tables_have_means_deviations_and_costs():
  rows = [
    _row("simclr", 1, 0, 0.5, fine_tuned=0.25),
    _row("simclr", 1, 1, 0.7, fine_tuned=0.35),
    _row("paws", 1, 0, 0.8),
    _row("paws", 4, 0, 0.9, seconds=5.0),
    _row("paws", 4, 1, 0.9),
  ]
  one, four, costs = comparison_page.tables(rows, _NAMES)
  assert one.header == ("method", "soft NN", "fine-tuned")
  assert one.title.startswith("1 labelled image of each class, %")
  assert one.lines == (
    # One of two label draws is missing, and all that is fine-tuned.
    ("PAWS", "80.0 (1)", "-"),
    ("SimCLR", "60.0 ± 14.1", "30.0 ± 7.1"),
  )
  assert four.lines == (("PAWS", "90.0 ± 0.0", "-"),)
  assert costs.lines[0] == (
    "PAWS",
    *("10", "2,000", "4,000", "2.00", "4", "4"),
  )
  text = comparison_page.as_text((one,)).splitlines()
  assert text[1].split() == ["method", "soft", "NN", "fine-tuned"]
  assert len({len(line) for line in text[2:4]}) == 1
  markdown = comparison_page.as_markdown((four,))
  assert "| --- | --: | --: |\n| PAWS | 90.0 ± 0.0 | - |" in markdown
  assert comparison_page.summary(rows[0]) == "soft NN 50.0%, fine-tuned 25.0%"


def test_the_figure_has_a_panel_for_each_score_and_a_line_for_each_method(
  tmp_path,
):
  from matplotlib import image

  def size(name, rows):
    comparison_page.draw(tmp_path / name, rows, _NAMES, "title")
    pixels = image.imread(tmp_path / name)
    assert pixels.std() > 0
    return pixels.shape[:2]

  plain = [_row("paws", 1, 0, 0.8), _row("simclr", 4, 0, 0.9)]
  height, width = size("one.png", plain)
  both = size("two.png", [row | {"auroc": 0.7} for row in plain])
  assert both == (height, width + 288)
  assert size("few.png", plain[:1]) == (height - 43, width)
