"""The figure of a run is drawn for every shape of result."""

import numpy as np
import pytest
from matplotlib import image

from paws_jax import figures

ROWS = [
  {"step": 1, "cross_entropy": 2.3, "me_max_kl": 0.1, "target_confidence": 0.3},
  {"step": 2, "cross_entropy": 1.3, "me_max_kl": 0.2, "target_confidence": 0.5},
  {"step": 2, "soft_nn_top1": 0.5, "soft_nn_top5": 0.9},
  {"step": 3, "cross_entropy": 1.1, "me_max_kl": 0.1, "target_confidence": 0.6},
  {"step": 4, "soft_nn_top1": 0.7, "soft_nn_top5": 0.9},
]


def draw(path, *, num_classes, labelled_per_class, rows=ROWS, **changes):
  rng = np.random.default_rng(0)
  num_queries = changes.pop("num_queries", 40)
  dims = changes.pop("dims", 8)
  centres = rng.standard_normal((num_classes, dims)) * 3
  query_labels = np.arange(num_queries) % num_classes
  support_labels = np.repeat(np.arange(num_classes), labelled_per_class)

  def around(labels):
    noise = rng.standard_normal((len(labels), dims))
    return (centres[labels] + noise).astype(np.float32)

  figures.training_figure(
    path,
    rows,
    **{
      "queries": around(query_labels),
      "query_labels": query_labels,
      "supports": around(support_labels),
      "support_labels": support_labels,
      "class_names": [f"class {k}" for k in range(num_classes)],
    }
    | changes,
  )
  pixels = image.imread(path)
  assert pixels.shape[0] > 300
  assert pixels.shape[1] > 800
  # Something is drawn, in each half.
  for half in np.array_split(pixels[..., :3], 2, axis=1):
    assert (half.min(axis=-1) < 0.5).sum() > 300
  return pixels


@pytest.mark.parametrize(
  ("num_classes", "labelled_per_class"), [(2, 1), (10, 4), (10, 1), (30, 1)]
)
def test_few_and_many_classes(tmp_path, num_classes, labelled_per_class):
  draw(
    tmp_path / "f.png",
    num_classes=num_classes,
    labelled_per_class=labelled_per_class,
  )


def test_of_very_many_labelled_images_some_are_shown(tmp_path, monkeypatch):
  projected = []

  def project(points):
    projected.append(len(points))
    return points[:, :2]

  monkeypatch.setattr(figures, "_project", project)
  draw(
    tmp_path / "f.png", num_classes=4, labelled_per_class=400, num_queries=3000
  )
  assert projected == [2000]


def test_the_same_figure_comes_out_every_time(tmp_path):
  first, second = (
    draw(tmp_path / name, num_classes=3, labelled_per_class=2)
    for name in ("a.png", "b.png")
  )
  np.testing.assert_array_equal(first, second)


@pytest.mark.parametrize(
  "rows",
  [
    [],
    [{"step": 4, "soft_nn_top1": 0.7}],
    [{"step": 1, "cross_entropy": 2.3}],
    # A resumed run with a row for the evaluation first.
    [ROWS[2], ROWS[0], ROWS[4]],
  ],
)
def test_runs_without_some_metrics(tmp_path, rows):
  draw(tmp_path / "f.png", num_classes=3, labelled_per_class=2, rows=rows)


@pytest.mark.parametrize("value", [0, 1])
def test_an_encoder_that_has_collapsed(tmp_path, value):
  draw(
    tmp_path / "f.png",
    num_classes=3,
    labelled_per_class=2,
    queries=np.full((40, 8), value, np.float32),
    supports=np.full((6, 8), value, np.float32),
  )


@pytest.mark.parametrize(("num_queries", "dims"), [(1, 8), (40, 1), (2, 2)])
def test_hardly_anything_to_draw(tmp_path, num_queries, dims):
  draw(
    tmp_path / "f.png",
    num_classes=2,
    labelled_per_class=1,
    num_queries=num_queries,
    dims=dims,
  )


def test_names_are_text_not_formulas(tmp_path):
  draw(
    tmp_path / "f.png",
    num_classes=3,
    labelled_per_class=1,
    class_names=["$10_$", "_hidden", r"$\frac$"],
  )


def test_many_points_are_thinned(tmp_path, monkeypatch):
  monkeypatch.setattr(figures, "_MOST_POINTS", 30)
  draw(tmp_path / "f.png", num_classes=2, labelled_per_class=3, num_queries=500)
