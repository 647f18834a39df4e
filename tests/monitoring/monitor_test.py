"""Findings: of rows written by hand, and of tiny runs broken on purpose."""

import dataclasses
import functools
import io
import json
import re
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from paws_jax import config as config_lib
from paws_jax import losses
from paws_jax import models
from paws_jax.data.sources import arrays as arrays_lib
from paws_jax.evaluation import embed as embed_lib
from paws_jax.models import batch_norm
from paws_jax.models import heads
from paws_jax.monitoring import monitor as monitor_lib
from paws_jax.monitoring import rules
from paws_jax.parallel import mesh
from paws_jax.runs import metrics
from paws_jax.runs import progress
from paws_jax.training import experiment as experiment_lib
from paws_jax.training import health
from paws_jax.training import measure
from paws_jax.training import run as run_lib
from paws_jax.training import step as step_lib
from tests import quick_compile
from tests import tiny_recipe

FACTS = rules.Facts(
  num_classes=10,
  labels_per_class=4,
  images_per_step=128,
  total_steps=1000,
  warmup_steps=50,
  temperature=0.1,
)
GOOD = {
  "loss": -1.0,
  "cross_entropy": 0.3,
  "me_max_kl": 0.03,
  "target_confidence": 0.9,
  "view_agreement": 0.95,
  "classes_used": 1.0,
  "max_similarity": 0.9,
  "feature_rank": 9.0,
  "grad_norm": 1.0,
  "update_norm": 0.1,
  "param_norm": 10.0,
  "learning_rate": 1e-3,
}


def rows_of(*parts, first=10, every=10):
  """Rows of GOOD, each with changes; a part is (count, changes)."""
  changes = [change for count, change in parts for _ in range(count)]
  return [
    {"step": first + i * every} | GOOD | change
    for i, change in enumerate(changes)
  ]


def names(found):
  return [finding.name for finding in found if not finding.ends]


def find(rows, facts=FACTS):
  return monitor_lib.findings(rows, facts=facts)


def test_a_good_run_gets_no_finding():
  rows = rows_of((100, {}))
  rows += [{"step": 1000, "soft_nn_top1": 0.85}]
  assert find(rows) == []


@pytest.mark.parametrize(
  ("change", "name", "words"),
  [
    ({"feature_rank": 1.4}, "collapse", "feature rank is 1.40"),
    ({"target_confidence": 0.14}, "collapse", "confidence is 0.140"),
    ({"me_max_kl": 1.9}, "collapse", "1.90 nats from its prior, and 2.30"),
    (
      {"target_confidence": 0.995, "view_agreement": 0.5},
      "saturation",
      "for only 50%",
    ),
    (
      {"target_confidence": 0.9999, "cross_entropy": 0.002},
      "saturation",
      r"nothing is left to learn: .* minimum is 0\.0000",
    ),
    (
      {"classes_used": 0.9},
      "unused classes",
      "only 90% of the 10 classes .* 100% would be",
    ),
    ({"update_norm": 1e-6}, "dead learning rate", "learning rate is 0.001"),
    (
      {"update_norm": 0.0, "grad_norm": 0.0},
      "dead learning rate",
      "gradient is 0",
    ),
    ({"max_similarity": 0.4}, "far from supports", "nearest support is 0.40"),
  ],
)
def test_each_way_to_go_wrong_is_said_once_and_once_when_it_ends(
  change, name, words
):
  found = find(rows_of((30, {}), (20, change), (20, {})))
  begin, end = found
  assert begin.name == end.name == name
  # The third row that says so, and the third that does not.
  assert (begin.step, end.step) == (330, 530)
  assert (begin.ends, end.ends) == (False, True)
  assert begin.remedy.endswith(".")
  assert end.remedy == ""
  assert re.search(words, begin.sentence)


@pytest.mark.parametrize(
  "change",
  [
    {"feature_rank": 1.0},
    {"update_norm": 0.0},
    {"classes_used": 0.5},
    {"max_similarity": 0.1},
  ],
)
def test_two_rows_are_no_finding(change):
  assert find(rows_of((30, {}), *[(2, change), (1, {})] * 10)) == []


def test_what_is_normal_at_the_beginning_is_no_finding():
  # The network is random: flat labels, one class, far from supports.
  start = {
    "target_confidence": 0.11,
    "feature_rank": 1.2,
    "classes_used": 0.1,
    "max_similarity": 0.2,
  }
  assert find(rows_of((10, start), (50, {}))) == []


def test_a_rate_that_ends_near_zero_is_no_finding():
  assert find(rows_of((95, {}), (5, {"update_norm": 0.0}))) == []


def test_sure_targets_are_a_finding_only_at_the_very_beginning():
  sure = {"target_confidence": 0.995}
  (found,) = find(rows_of((3, sure), (90, {})))
  assert (found.name, found.step) == ("overconfident too early", 10)
  assert find(rows_of((5, {}), (90, sure))) == []
  assert find(rows_of((3, {"target_confidence": 0.985}), (90, {}))) == []
  # A first row that covers many steps is early, too.
  late = rows_of((1, sure), (5, {}), first=100, every=100)
  assert names(find(late)) == ["overconfident too early"]


def test_small_crops_lower_the_most_that_targets_can_be_sure_of():
  # 2 large crops and 6 small ones, whose target is a mean.
  facts = dataclasses.replace(FACTS, small_share=0.75)
  change = {"target_confidence": 0.81, "view_agreement": 0.5}
  rows = rows_of((30, {}), (20, change))
  assert names(find(rows, facts)) == ["saturation"]
  assert find(rows) == []


def test_label_smoothing_leaves_a_loss_when_nothing_is_left_to_learn():
  facts = dataclasses.replace(FACTS, label_smoothing=0.1)
  # Every view lies on the support of its class, far from all others.
  points = jnp.eye(FACTS.num_classes)
  rows = losses.label_rows(
    jnp.arange(10), jnp.arange(10), smoothing=facts.label_smoothing
  )
  least, _ = losses.paws_loss(
    jnp.tile(points, (2, 1)),
    points,
    rows,
    jnp.tile(points, (2, 1)),
    points,
    num_small_crops=0,
    temperature=0.01,
    sharpen_temperature=0.25,
    me_max=False,
  )
  assert facts.min_loss == pytest.approx(float(least), abs=1e-4)
  assert FACTS.min_loss == 0

  def named(**change):
    change = {"target_confidence": 0.9999} | change
    return names(find(rows_of((30, {}), (20, change)), facts))

  assert named(cross_entropy=0.1) == ["saturation"]
  assert named(cross_entropy=0.15) == []
  # Images that count half have half the loss.
  assert named(cross_entropy=0.1, in_domain=0.5) == []
  assert named(cross_entropy=0.05, in_domain=0.5) == ["saturation"]


@pytest.mark.parametrize("known", ["soft_nn_top1", "pseudo_label_accuracy"])
def test_labels_are_short_when_confidence_outruns_accuracy(known):
  rows = rows_of((90, {}))
  for step, accuracy in ((200, 0.1), (300, 0.6), (400, 0.6), (800, 0.8)):
    rows.append({"step": step, known: accuracy})
  rows.append({"step": 900, known: 0.8})
  rows.sort(key=lambda row: row["step"])
  begin, end = find(rows)
  assert (begin.name, begin.step, end.step) == ("label shortage", 400, 900)
  assert "0.90" in begin.sentence
  assert "60%" in begin.sentence
  assert "4 labelled images per class" in begin.sentence
  assert ("hidden" in begin.sentence) == (known == "pseudo_label_accuracy")


def test_hidden_labels_go_before_the_watched_images():
  rows = [{"step": 500} | GOOD]
  for step in (500, 600):
    rows.append(
      {"step": step, "soft_nn_top1": 0.2, "pseudo_label_accuracy": 0.9}
    )
  assert find(rows) == []


def test_few_images_need_not_use_all_classes():
  facts = dataclasses.replace(FACTS, num_classes=960, images_per_step=960)
  # 1 - 1/e of the classes, if images are spread evenly.
  rows = rows_of((50, {"classes_used": 0.62}))
  assert find(rows, facts) == []
  rows = rows_of((50, {"classes_used": 0.55}))
  assert names(find(rows, facts)) == ["unused classes"]


@pytest.mark.parametrize("missing", [*GOOD, "all"])
def test_a_method_need_not_report_everything(missing):
  kept = {} if missing == "all" else GOOD
  rows = [
    {"step": step} | {k: v for k, v in kept.items() if k != missing}
    for step in range(10, 1000, 10)
  ]
  for row in list(rows[::10]):
    rows.append({"step": row["step"], "soft_nn_top1": 0.8})
  assert find(rows) == []


def test_data_without_a_class_are_judged_by_what_is_reported():
  facts = dataclasses.replace(FACTS, num_classes=0, labels_per_class=0)
  rows = [
    {"step": step, "feature_rank": rank, "update_norm": 0.1, "param_norm": 10.0}
    for step, rank in ((200, 9.0), (210, 1.1), (220, 1.1), (230, 1.1))
  ]
  assert names(find(rows, facts)) == ["collapse"]


def test_lines_of_words_change_nothing(tmp_path):
  rows = rows_of((30, {}), (30, {"classes_used": 0.5}), (10, {}))
  found = find(rows)
  assert len(found) == 2
  writer = metrics.Writer(tmp_path, first_step=0)
  for row in rows:
    writer.write(row["step"], {k: v for k, v in row.items() if k != "step"})
    for finding in found:
      if finding.step == row["step"]:
        writer.note(row["step"], finding.as_row())
  writer.close()
  written = metrics.read(tmp_path / metrics.METRICS)
  assert monitor_lib.recorded(written) == found
  assert find(written) == found


def test_a_resumed_run_does_not_say_it_again():
  rows = rows_of((30, {}), (60, {"classes_used": 0.5}))
  monitor = monitor_lib.Monitor(FACTS)
  before = [f for row in rows[:40] for f in monitor.add(row)]
  resumed = monitor_lib.Monitor(FACTS)
  for row in rows[:40]:
    resumed.add(json.loads(json.dumps(row)))
  assert names(before) == ["unused classes"]
  assert [f for row in rows[40:] for f in resumed.add(row)] == []


def test_a_run_writes_and_says_what_is_found(tmp_path):
  stream = io.StringIO()
  run = types.SimpleNamespace(
    _writer=metrics.Writer(tmp_path, first_step=0),
    _monitor=monitor_lib.Monitor(FACTS),
    _progress=progress.Progress(
      total_steps=1000, first_step=0, images_per_step=1, stream=stream
    ),
  )
  # A number that is only watched and is none must not end the run.
  bad = GOOD | {"target_confidence": 0.995, "feature_rank": float("nan")}
  run_lib.TrainingRun._write(run, 10, bad)
  run._writer.close()
  row, words = metrics.read(tmp_path / metrics.METRICS)
  assert row == {"step": 10} | {
    k: v for k, v in bad.items() if k != "feature_rank"
  }
  assert words["finding"] == "overconfident too early"
  assert stream.getvalue().startswith("! overconfident too early (step 10): ")


def test_the_end_of_a_run_says_what_was_found():
  begins = {"step": 1, monitor_lib.KEY: "collapse", "event": "starts"}
  ends = {"step": 2, monitor_lib.KEY: "collapse", "event": "ends"}
  other = {"step": 3, monitor_lib.KEY: "saturation", "event": "starts"}
  assert monitor_lib.summary([{"step": 1, "loss": 0.0}]) == (
    "health: no problems found"
  )
  assert monitor_lib.summary([begins, ends, other]) == (
    "health: collapse (ended), saturation; see the lines that begin with !"
  )
  # Back again.
  line = monitor_lib.summary([begins, ends, begins])
  assert line.startswith("health: collapse; ")


def test_lines_that_somebody_has_changed_end_nothing():
  rows = rows_of((30, {}))
  odd = (
    {"step": 5, "finding": "collapse"},
    {"step": 6, "finding": 3},
    {"step": 7, "finding": "collapse", "event": 1, "sentence": 2.5},
    {"step": 8, "soft_nn_top1": "good", "target_confidence": "high"},
    {"step": 9} | dict.fromkeys(rows[0].keys() - {"step"}, "a text"),
  )
  assert names(find([*rows, *odd])) == names(find(rows))
  assert "collapse" in monitor_lib.summary(odd)
  assert len(monitor_lib.recorded(odd)) == 3


def test_lines_are_short_and_say_what_to_do():
  for rule in rules.RULES:
    remedy = rule.remedy(GOOD, FACTS)
    finding = monitor_lib.Finding(rule.name, 1234567, "word " * 60, remedy)
    lines = finding.as_text().splitlines()
    assert lines[0].startswith(f"! {rule.name} (step 1234567): ")
    assert max(map(len, lines)) <= 79
    assert remedy.replace(" ", "") in finding.as_text().replace(
      "\n", ""
    ).replace(" ", "")


# Tiny runs. The pixels go straight into a projection head: nothing else that
# learns compiles as fast.


class Pixels(nn.Module):
  @nn.compact
  def __call__(self, x, *, train, mask=None):
    return x.reshape(x.shape[0], -1)


def tiny_encoder(output_dim, **axes):
  settings = batch_norm.LayerSettings(
    momentum=0.9, dtype=jnp.float32, param_dtype=jnp.float32, **axes
  )
  return models.Encoder(
    trunk=Pixels(),
    projection=heads.ProjectionHead(
      hidden_dim=64, output_dim=output_dim, settings=settings
    ),
    prediction=None,
  )


def run(*, arrays=None, evaluations=0, **changes):
  """Trains for an epoch or so; (rows, facts) with really measured numbers."""
  config = tiny_recipe.get_config()
  flat = {"views.small.count": 0, "train.batch_size": 64, "train.epochs": 1}
  flat |= {k.replace("__", "."): v for k, v in changes.items()}
  config.update_from_flattened_dict(flat)
  experiment = experiment_lib.create(
    config_lib.resolve(config), devices=jax.devices()[:1], arrays=arrays
  )
  axes = mesh.batch_norm_axes(config.train.bn_group_size)
  encoder = tiny_encoder(config.model.output_dim, **axes)
  method = dataclasses.replace(experiment.trainer.method, encoder=encoder)
  trainer = dataclasses.replace(experiment.trainer, method=method)
  experiment = dataclasses.replace(experiment, trainer=trainer)
  state, rows = _train(experiment)
  if evaluations:
    queries, supports = _embed(experiment, state, config)
    found = measure.soft_nn(experiment, "test", queries, supports)
    row = {"step": len(rows), "soft_nn_top1": found["top1"]}
    rows += [row] * evaluations
  return rows, health.facts(config_lib.resolve(config), experiment)


def _train(experiment):
  count = experiment.total_steps
  call = step_lib.make_train_call(
    experiment.trainer, experiment.pipeline, count
  )
  inputs = experiment.pipeline.inputs(0, count, busy=lambda: False)
  with quick_compile.quick_compile():
    state = experiment.initial_state()
    state, values = call(state, inputs)
  assert state.finite
  values = jax.device_get(values)
  rows = [
    {"step": i + 1} | {k: float(v[i]) for k, v in values.items()}
    for i in range(count)
  ]
  return state, rows


def _embed(experiment, state, config):
  embed = embed_lib.make_embedder(
    tiny_encoder(config.model.output_dim),
    view=experiment.dataset.eval_view,
    batch_size=config.eval.batch_size,
    mesh=experiment.trainer.mesh,
    resize=experiment.dataset.resize,
  )
  dataset = experiment.dataset
  return [
    embed(state.params, state.batch_stats, part.images)
    for part in (dataset.test, dataset.labelled)
  ]


@functools.cache
def digits():
  return arrays_lib.load("digits", directory="", tfds_name="")


def labels_file(path, rows):
  path.write_text("".join(f"{row}\n" for row in rows))
  return {"data__labels_file": str(path), "data__labels_per_class": 0}


def two_of_each(labels):
  return np.concatenate([np.flatnonzero(labels == k)[:2] for k in range(10)])


@pytest.mark.slow
def test_few_labels_and_no_training_to_speak_of():
  # Two labels a class and one epoch: what the tiny recipe is.
  rows, facts = run(evaluations=2)
  assert facts.labels_per_class == 2
  assert facts.num_classes == 5
  assert facts.label_smoothing == 0.1
  found = find(rows, facts)
  assert names(found) == ["label shortage"]
  assert "2 labelled images per class" in found[0].sentence


@pytest.mark.slow
def test_a_learning_rate_that_is_as_good_as_zero():
  rate = 1e-12
  rows, facts = run(optim__start_lr=0.0, optim__peak_lr=rate, optim__final_lr=0)
  (found,) = find(rows, facts)
  assert (found.name, found.step) == ("dead learning rate", 3)
  assert "optim.peak_lr" in found.remedy


@pytest.mark.slow
def test_a_temperature_that_is_much_too_low():
  rows, facts = run(method__temperature=1e-3)
  found = find(rows, facts)
  assert names(found) == ["overconfident too early", "saturation"]
  assert found[0].step == 1
  assert all("method.temperature is 0.001" in f.sentence for f in found)


@pytest.mark.slow
def test_targets_that_are_not_sharpened():
  # The numbers in docs/methods.md are from here.
  flat, facts = run(
    method__sharpen_temperature=1.0, train__epochs=9, optim__peak_lr=1e-2
  )
  found = find(flat, facts)
  assert names(found)[0] == "collapse"
  assert "the same uniform label" in found[0].sentence
  assert "method.sharpen_temperature to 0.25" in found[0].remedy
  # Me-max is on, and content: labels are as flat as its prior.
  assert flat[-1]["me_max_kl"] < 0.01
  assert 1 / facts.num_classes < flat[-1]["target_confidence"] < 0.25
  sharp, facts = run(train__epochs=9, optim__peak_lr=1e-2)
  assert find(sharp, facts) == []
  assert sharp[-1]["target_confidence"] > 0.8
  assert sharp[-1]["feature_rank"] > 1.5 * flat[-1]["feature_rank"]


@pytest.mark.slow
def test_unlabelled_images_of_two_of_ten_classes_only(tmp_path):
  labels = digits().train_labels
  rows = np.concatenate([two_of_each(labels), np.flatnonzero(labels < 2)])
  arrays = dataclasses.replace(
    digits(),
    train_images=digits().train_images[rows],
    train_labels=labels[rows],
  )
  rows, facts = run(
    arrays=arrays,
    **labels_file(tmp_path / "labels.txt", range(20)),
    train__epochs=5,
    support__classes_per_step=10,
    method__me_max=False,
    optim__peak_lr=1e-2,
  )
  found = find(rows, facts)
  assert names(found)[0] == "unused classes"
  assert "of the 10 classes" in found[0].sentence


@pytest.mark.slow
def test_unlabelled_images_that_are_noise(tmp_path):
  ids = two_of_each(digits().train_labels)
  rng = np.random.default_rng(0)
  images = rng.integers(0, 256, digits().train_images.shape).astype(np.uint8)
  images[ids] = digits().train_images[ids]
  rows, facts = run(
    arrays=dataclasses.replace(digits(), train_images=images),
    **labels_file(tmp_path / "labels.txt", ids),
    train__batch_size=256,
    support__images_per_class=1,
    model__output_dim=64,
    optim__peak_lr=1e-4,
  )
  found = find(rows, facts)
  assert names(found) == ["far from supports"]
