"""Bands of several runs, what lies inside, and what `--compare_to` names."""

import dataclasses
import json
import re

import numpy as np
import pytest

from paws_jax import config as config_lib
from paws_jax import errors
from paws_jax.config import upgrade
from paws_jax.monitoring import comparison
from paws_jax.monitoring import reference_curves
from paws_jax.runs import metrics
from paws_jax.runs import recipe as recipe_lib


def rows_of(seed, *, shift=0.0, count=100):
  """A run whose cross-entropy falls from 2 and whose accuracy rises."""
  rng = np.random.default_rng(seed)
  rows = []
  for i in range(1, count + 1):
    noise = rng.normal(0, 0.03)
    value = 2 * np.exp(-i / 30) + 0.1 + noise + shift
    rows.append({"step": 10 * i, "cross_entropy": value})
    if i % 20 == 0:
      rows.append({"step": 10 * i, "soft_nn_top1": 0.9 + noise / 3 - shift})
  return rows


@pytest.fixture(scope="module")
def reference():
  return reference_curves.make([rows_of(i) for i in range(4)], "tiny")


def recipe_of(**changes):
  """The defaults with these fields, "__" for a dot."""
  config = config_lib.base(changes.get("method__name", "paws"))
  config.update_from_flattened_dict(
    {name.replace("__", "."): value for name, value in changes.items()}
  )
  # Also such as no run would have.
  return upgrade.read({"version": upgrade.VERSION} | config.to_dict())


def save(path, rows, recipe=None):
  path.mkdir()
  if recipe is not None:
    (path / recipe_lib.RECIPE).write_text(json.dumps(upgrade.write(recipe)))
  writer = metrics.Writer(path, first_step=0)
  for row in rows:
    writer.write(row["step"], {k: v for k, v in row.items() if k != "step"})
  writer.close()


def test_series_leaves_rows_without_the_metric_out():
  steps, values = reference_curves.series(rows_of(0), "soft_nn_top1")
  assert steps.tolist() == [200, 400, 600, 800, 1000]
  assert values.shape == (5,)
  steps, values = reference_curves.series(rows_of(0), "none")
  assert steps.shape == values.shape == (0,)


def test_the_band_holds_other_runs_at_about_95_percent(reference):
  curve = reference.curves["cross_entropy"]
  shares = []
  for seed in range(100, 150):
    _, values = reference_curves.series(rows_of(seed), "cross_entropy")
    shares.append(np.mean((values >= curve.low) & (values <= curve.high)))
  # The spread of four runs is little known: the band is rather too wide.
  assert 0.93 < np.mean(shares) <= 1
  assert np.all(curve.high - curve.low < 0.6)


def test_the_band_has_the_width_of_a_prediction_interval():
  values = [0.0, 1.0, 2.0]
  runs = [[{"step": 1, "cross_entropy": v}] for v in values]
  curve = reference_curves.make(runs, "x").curves["cross_entropy"]
  # Student's t for two degrees of freedom, one more value beside three.
  width = 4.302653 * 1.0 * np.sqrt(4 / 3)
  np.testing.assert_allclose(curve.mean, 1)
  np.testing.assert_allclose(curve.high - curve.mean, width, rtol=1e-6)
  np.testing.assert_allclose(curve.mean - curve.low, width, rtol=1e-6)


def test_runs_that_are_all_the_same_have_a_band_all_the_same():
  runs = [[{"step": 1, "cross_entropy": 1.0}]] * 3
  curve = reference_curves.make(runs, "x").curves["cross_entropy"]
  np.testing.assert_allclose(curve.high - curve.low, 0.02)


def test_a_run_like_the_others_lies_inside(reference):
  line = comparison.verdict(rows_of(77), reference)
  assert line.startswith("this run lies inside the band of 4 runs of tiny, ")
  assert "\n" not in line


def test_a_run_that_is_different_lies_outside(reference):
  line = comparison.verdict(rows_of(77, shift=0.3), reference)
  assert "lies OUTSIDE the band" in line
  assert "cross_entropy 0% (above)" in line
  assert "soft_nn_top1 0% (below)" in line


def test_a_longer_run_is_compared_as_far_as_the_reference_goes(reference):
  line = comparison.verdict(rows_of(77, count=200), reference)
  assert "lies inside" in line


def test_a_shorter_run_says_what_was_compared(reference):
  short = [row for row in rows_of(77) if row["step"] <= 50]
  line = comparison.verdict(short, reference)
  assert re.search(r"from step \d+ to 50 of its \d{4}; points", line)
  losses = [
    {k: row[k] for k in ("step", "cross_entropy") if k in row} for row in short
  ]
  line = comparison.verdict(losses, reference)
  assert line.endswith("; no step in common: soft_nn_top1")


def test_two_runs_are_compared_at_the_last_step_in_common(tmp_path):
  save(tmp_path / "run", [row for row in rows_of(3) if row["step"] <= 50])
  found = reference_curves.find(str(tmp_path / "run"))
  line = comparison.verdict(rows_of(3), found)
  assert line.startswith("at step 50, compared with ")


def test_runs_with_nothing_in_common(reference):
  line = comparison.verdict([{"step": 1, "loss": 2.0}], reference)
  assert line.startswith("nothing to compare with tiny")


def test_another_run_has_curves_and_no_band(tmp_path):
  save(tmp_path / "run", rows_of(3))
  found = reference_curves.find(str(tmp_path / "run"))
  assert set(found.curves) == {"cross_entropy", "soft_nn_top1"}
  assert found.curves["cross_entropy"].low is None
  line = comparison.verdict(rows_of(3), found)
  last = rows_of(3)[-2]["cross_entropy"]
  assert f"cross_entropy {last:.3f} (reference {last:.3f})" in line
  assert line.startswith(f"at step 1000, compared with {tmp_path / 'run'}: ")


def test_a_run_without_cross_entropy_is_compared_by_its_own_losses(tmp_path):
  def renamed(seed):
    names = {"cross_entropy": "nt_xent"}
    return [
      {names.get(k, k): v for k, v in row.items()} for row in rows_of(seed)
    ]

  made = reference_curves.make([renamed(i) for i in range(4)], "tiny")
  assert set(made.curves) == {"nt_xent", "soft_nn_top1"}
  save(tmp_path / "run", renamed(5))
  found = reference_curves.find(str(tmp_path / "run"))
  assert "nt_xent 0.1" in comparison.verdict(renamed(6), found)
  # Of a run that has cross-entropy, NT-Xent is only watched.
  both = [{**row, "nt_xent": 1.0} for row in rows_of(5)]
  save(tmp_path / "paws", both)
  found = reference_curves.find(str(tmp_path / "paws"))
  assert set(found.curves) == {"cross_entropy", "soft_nn_top1"}


def test_a_run_of_another_recipe_is_told_with_what_differs(tmp_path):
  save(tmp_path / "run", rows_of(3), recipe_of(optim__peak_lr=0.5))
  found = reference_curves.find(str(tmp_path / "run"))
  run = recipe_of(train__epochs=7, data__dir="/images", views__std=(0.5,))
  assert comparison.recipe_note(run, found) == (
    f"trained by another recipe than {tmp_path / 'run'}: "
    "data.dir '/images' (reference ''), optim.peak_lr 6.4 (reference 0.5), "
    "train.epochs 7 (reference 100), "
    "views.std [0.5] (reference [0.229, 0.224, 0.225])"
  )


def test_of_many_differing_fields_the_method_and_a_few_are_named(tmp_path):
  save(tmp_path / "run", rows_of(3), recipe_of())
  found = reference_curves.find(str(tmp_path / "run"))
  run = recipe_of(
    data__image_size=8,
    data__labels_per_class=9,
    data__source="idx",
    method__name="simclr",
    method__temperature=0.5,
    views__small__count=0,
  )
  note = comparison.recipe_note(run, found)
  assert note.startswith(
    f"trained by another recipe than {tmp_path / 'run'}: "
    "method.name 'simclr' (reference 'paws'), data.image_size 8 (reference 0), "
  )
  assert note.endswith(" and 2 more")
  assert note.count("(reference ") == 4
  assert "\n" not in note


@pytest.mark.parametrize(
  "change",
  [
    {"seed": 5},
    {"data__split_seed": 5},
    {"data__labels_file": "mine.txt"},
    {"train__steps_per_call": 5},
    {"train__remat": "all"},
    {"method__health_metrics": False},
    {"log__every_steps": 5},
    {"eval__every_steps": 5},
    {"checkpoint__every_steps": 5},
    {"finetune__epochs": 5},
  ],
)
def test_what_changes_no_training_makes_no_other_recipe(change, reference):
  known = dataclasses.replace(reference, num_runs=1, recipe=recipe_of())
  assert recipe_of(**change) != recipe_of()
  assert comparison.recipe_note(recipe_of(**change), known) == ""


def test_fields_that_are_newer_than_the_reference_have_their_defaults(
  reference,
):
  old = upgrade.write(recipe_of())
  del old["optim"]["b2"]
  known = dataclasses.replace(reference, recipe=upgrade.read(old))
  assert comparison.recipe_note(recipe_of(), known) == ""
  note = comparison.recipe_note(recipe_of(optim__b2=0.9), known)
  assert note.endswith(": optim.b2 0.9 (reference 0.999)")


def test_a_reference_without_a_recipe_is_compared_without(reference, tmp_path):
  assert comparison.recipe_note(recipe_of(), reference) == ""
  save(tmp_path / "run", rows_of(3))
  found = reference_curves.find(str(tmp_path / "run"))
  assert comparison.recipe_note(recipe_of(seed=1), found) == ""


def test_a_run_with_a_damaged_recipe_is_refused(tmp_path):
  save(tmp_path / "run", rows_of(3))
  (tmp_path / "run" / recipe_lib.RECIPE).write_text("{")
  with pytest.raises(errors.WorkdirError, match=r"config\.json is not JSON"):
    reference_curves.find(str(tmp_path / "run"))


def test_a_band_ships_its_recipe_without_seeds_and_places(
  tmp_path, monkeypatch
):
  monkeypatch.setattr(reference_curves, "DIRECTORY", tmp_path)
  recipe = recipe_of(
    seed=1,
    data__dir="/home/me",
    optim__peak_lr=0.5,
    data__labels_file="/home/me/few.txt",
    log__every_steps=3,
  )
  made = reference_curves.make([rows_of(i) for i in range(4)], "tiny", recipe)
  (tmp_path / "tiny.json").write_text(reference_curves.as_json(made, {}))
  found = reference_curves.find("tiny")
  stored = json.loads((tmp_path / "tiny.json").read_text())["config"]
  assert stored["optim.peak_lr"] == 0.5
  assert stored["version"] == upgrade.VERSION
  assert not {"seed", "data.dir", "data.labels_file", "log.every_steps"} & set(
    stored
  )
  run = recipe_of(seed=2, data__dir="/mnt", optim__peak_lr=0.5)
  assert comparison.recipe_note(run, found) == ""
  assert comparison.recipe_note(recipe_of(), found) == (
    "trained by another recipe than tiny: optim.peak_lr 6.4 (reference 0.5)"
  )


def test_a_shipped_reference_is_found_by_name(reference, tmp_path, monkeypatch):
  monkeypatch.setattr(reference_curves, "DIRECTORY", tmp_path)
  text = reference_curves.as_json(reference, {"date": "today"})
  (tmp_path / "tiny.json").write_text(text)
  found = reference_curves.find("tiny")
  assert (found.name, found.num_runs) == ("tiny", 4)
  for name, curve in reference.curves.items():
    for part in ("steps", "mean", "low", "high"):
      np.testing.assert_allclose(
        getattr(found.curves[name], part), getattr(curve, part), atol=1e-5
      )
  assert "lies inside" in comparison.verdict(rows_of(5), found)


def test_a_name_that_is_nothing_is_refused(tmp_path, monkeypatch):
  monkeypatch.setattr(reference_curves, "DIRECTORY", tmp_path)
  with pytest.raises(FileNotFoundError, match=r"=quick is .*none exist"):
    reference_curves.find("quick")
  (tmp_path / "quickstart.json").write_text("{}")
  with pytest.raises(FileNotFoundError, match=r"\(quickstart\)"):
    reference_curves.find("quick")


def test_a_directory_without_curves_is_refused(tmp_path):
  with pytest.raises(ValueError, match=r"has no metrics\.jsonl"):
    reference_curves.find(str(tmp_path))
  save(tmp_path / "run", [{"step": 1, "loss": 2.0}])
  with pytest.raises(ValueError, match="none of cross_entropy"):
    reference_curves.find(str(tmp_path / "run"))


@pytest.mark.parametrize(
  "text",
  [
    "",
    "[]",
    "{}",
    '{"recipe": "x", "num_runs": 3, "curves": {"a": {"mean": [1]}}}',
    '{"recipe": "x", "num_runs": 3, "curves": {}, "config": ["a"]}',
    '{"recipe": "x", "num_runs": "3", "curves": {}}',
    '{"recipe": ["x"], "num_runs": 3, "curves": {}}',
    "[" * 100_000,
    json.dumps(
      {
        "recipe": "x",
        "num_runs": 3,
        "curves": {"a": {"steps": [[1]], "mean": [[1]]}},
      }
    ),
    json.dumps(
      {
        "recipe": "x",
        "num_runs": 3,
        "curves": {
          "a": {"steps": [1, 2], "mean": [1], "low": [1], "high": [1]}
        },
      }
    ),
  ],
)
def test_a_damaged_file_is_refused(text, tmp_path):
  path = tmp_path / "bad.json"
  path.write_text(text)
  with pytest.raises(ValueError, match=r"bad\.json holds no reference curves"):
    reference_curves.read(path)


def test_two_runs_have_no_spread():
  with pytest.raises(ValueError, match="2 runs are too few"):
    reference_curves.make([rows_of(0), rows_of(1)], "x")


def test_runs_of_different_lengths_are_refused():
  runs = [rows_of(0), rows_of(1), rows_of(2, count=50)]
  with pytest.raises(
    ValueError,
    match="run 2 has cross_entropy at 50 steps up to 500 and run 0 at 100",
  ):
    reference_curves.make(runs, "x")


def test_runs_without_any_curve_are_refused():
  with pytest.raises(ValueError, match="none of cross_entropy"):
    reference_curves.make([[{"step": 1, "loss": 2.0}]] * 3, "x")


def test_shipped_references_can_be_read():
  for name in reference_curves.available():
    found = reference_curves.find(name)
    assert found.num_runs >= 3
    # Without it a run of another recipe would not be told.
    assert found.recipe
