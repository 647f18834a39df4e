"""benchmarks/compare/compare.py as its users run it, as small as it goes."""

import json
import os
import pathlib
import subprocess
import sys

import numpy as np
import pytest

from benchmarks.compare import data as comparison_data
from benchmarks.compare import page as comparison_page
from paws_jax.data.sources import arrays

_ROOT = pathlib.Path(__file__).parents[3]
_VIEWS = 6000
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
_NAMES = {"paws": "PAWS", "simclr": "SimCLR"}


def _python(*arguments, **environment):
  return subprocess.run(
    [sys.executable, *arguments],
    cwd=_ROOT,
    env={
      **os.environ,
      "JAX_PLATFORMS": "cpu",
      "PYTHONPATH": str(_ROOT),
      **environment,
    },
    capture_output=True,
    text=True,
    check=False,
  )


def _run(output, *arguments):
  result = _python(
    "-m", "benchmarks.compare.compare", *_TINY, f"--output={output}", *arguments
  )
  assert result.returncode == 0, result.stderr
  return result.stdout


def _read(path):
  return [json.loads(line) for line in path.read_text().splitlines()]


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
  assert rows[1]["top1_before"] is not None
  assert shown.count("compiled simclr") == 1
  assert shown.count("step 10/10") == 3
  hashes = [row["split_hash"] for row in rows]
  assert hashes[0] == hashes[1] != hashes[2] == hashes[3]

  again = _run(output, "--labels=1")
  assert "cell 1 of 3 (4 were there): supervised only, 1 labels" in again
  assert _read(output)[:4] == rows
  rows = _read(output)
  assert len(rows) == 7
  for row in rows:
    assert 0.8 * _VIEWS < row["views"] <= _VIEWS, row
    assert row["flops"] > 0
    assert 0 <= row["top1"] <= 1
    assert row["num_test"] == 360
  by_method = {row["method"]: row for row in rows}
  # Crops of an unlabelled image are two, of a labelled one it is one.
  assert by_method["supervised"]["images"] == by_method["supervised"]["views"]
  paws = by_method["paws"]
  assert (paws["steps"], paws["images"]) == (10, 10 * (256 + 20))
  assert paws["views"] == 10 * (2 * 256 + 20)
  simclr = by_method["simclr"]
  assert simclr["steps"] == 10 + 30
  assert simclr["views"] == 10 * 512 + 30 * 20
  for name in ("supervised only", "SimCLR + SuNCEt + fine-tune", "RoPAWS"):
    assert name in again
    assert name in output.with_suffix(".md").read_text()
  assert output.with_suffix(".png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.slow
def test_unknown_classes_are_told_from_known_ones(tmp_path):
  output = tmp_path / "cells.jsonl"
  shown = _run(output, "--labels=2", "--methods=paws", "--unknown_classes=5")
  (row,) = _read(output)
  assert row["num_test"] + row["num_unknown"] == 360
  assert 150 < row["num_test"] < 210
  # 5 classes of 2 supports beside two crops of all unlabelled images.
  assert row["views"] == row["steps"] * (2 * 256 + 10)
  assert 0 <= row["auroc"] <= 1
  assert "AUROC %" in shown
  assert "5 of 10 classes known" in shown


# What a flag is set to, and what the message must name.
_REFUSED = {
  "methods=paws,pawz": "--methods has 'pawz': known are supervised, simclr",
  "methods=": "--methods is empty",
  "labels=1,x": "--labels is '1,x': give whole numbers from 1 to 32",
  "labels=33": "--labels is '33': give whole numbers from 1 to 32",
  "seeds=-1": "--seeds is '-1': give whole numbers from 0, e.g.",
  "views=0": "--views is 0: at least 1",
  "views=1000": "--views is 1000, of which SimCLR + fine-tune has 900",
  "finetune_share=0.001": "--finetune_share is 0.001 of --views, 150000: 150",
  "finetune_share=1": "--finetune_share is 1: between 0 and 1",
  "finetune_lr=nan": "--finetune_lr is nan: greater than 0",
  "unknown_classes=-1": "--unknown_classes is -1: at least 0",
  "unknown_classes=9": "--unknown_classes is 9 but digits has 10 classes: lowe",
  "output=a.png": "--output is 'a.png': give a name that ends in .jsonl",
  "output=BROKEN": "line 1 of ",
  "output=OTHER": "holds cells whose views is 7, but now it is",
  "config.model.init_from=x": "model.init_from is 'x': methods are compared",
  "config.data.pipeline=host": "data.pipeline is 'host': the comparison needs",
  "config.views.small.count=1": "views.small.count is 1",
}
_DRIVER = """
import sys
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
  broken = tmp_path / "broken.jsonl"
  broken.write_text("{\n" + other.read_text())
  asked = {
    flag.replace("OTHER", str(other)).replace("BROKEN", str(broken)): message
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


def _arrays():
  labels = np.arange(8, dtype=np.int32) % 4
  images = np.arange(8, dtype=np.uint8).reshape(8, 1, 1, 1)
  return arrays.Arrays(
    "toy", tuple("abcd"), images, labels, images + 10, labels
  )


def test_hidden_classes_stay_among_the_unlabelled_images_alone():
  data = comparison_data.hide(_arrays(), 1)
  assert data.num_classes == 3
  assert data.num_images == 8
  assert data.labels.tolist() == [0, 1, 2, -1, 0, 1, 2, -1]
  assert data.arrays.test_images.ravel().tolist() == [10, 11, 12, 14, 15, 16]
  assert data.unknown_images.ravel().tolist() == [13, 17]
  everything = comparison_data.hide(_arrays(), 0)
  assert everything.unknown_images is None
  assert everything.num_classes == 4


def test_auroc_is_the_share_of_pairs_in_the_right_order():
  known, unknown = np.array([0.9, 0.4]), np.array([0.5, 0.1])
  assert comparison_data.auroc(known, unknown) == 0.75
  assert comparison_data.auroc(unknown, known) == 0.25


def _row(method, labels, seed, top1, **more):
  costs = {"steps": 10, "images": 2000, "views": 4000, "flops": 2e12}
  times = {"seconds": 3.0, "compile_seconds": 1.5, "top1_before": None}
  cell = {"method": method, "labels": labels, "seed": seed, "top1": top1}
  return cell | costs | times | more


def test_tables_have_means_deviations_and_costs():
  rows = [
    _row("simclr", 1, 0, 0.5, top1_before=0.25),
    _row("simclr", 1, 1, 0.7, top1_before=0.35),
    _row("paws", 1, 0, 0.8),
    _row("paws", 4, 0, 0.9, seconds=5.0),
    _row("paws", 4, 1, 0.9),
  ]
  scores, costs = comparison_page.tables(rows, _NAMES)
  assert scores.header == ("method", "1 a class", "4 a class")
  assert scores.lines == (
    # One of two label draws is missing.
    ("PAWS", "80.0 (1)", "90.0 ± 0.0"),
    ("SimCLR", "60.0 ± 14.1", "-"),
    ("  before fine-tuning", "30.0 ± 7.1", "-"),
  )
  assert costs.lines[0] == (
    "PAWS",
    *("10", "2,000", "4,000", "2.00", "4", "4"),
  )
  text = comparison_page.as_text((scores,)).splitlines()
  assert text[1].split() == ["method", "1", "a", "class", "4", "a", "class"]
  assert len({len(line) for line in text[2:4]}) == 1
  markdown = comparison_page.as_markdown((scores,))
  assert "| --- | --: | --: |\n| PAWS | 80.0 (1) | 90.0 ± 0.0 |" in markdown


def test_the_figure_has_a_panel_for_each_score(tmp_path):
  from matplotlib import image

  plain = [_row("paws", 1, 0, 0.8), _row("simclr", 4, 0, 0.9)]
  comparison_page.draw(tmp_path / "one.png", plain, _NAMES, "title")
  both = [row | {"auroc": 0.7} for row in plain]
  assert len(comparison_page.tables(both, _NAMES)) == 3
  comparison_page.draw(tmp_path / "two.png", both, _NAMES, "title")
  one = image.imread(tmp_path / "one.png")
  two = image.imread(tmp_path / "two.png")
  assert two.shape[1] == 2 * one.shape[1]
  assert one.std() > 0
