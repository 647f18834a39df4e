"""The figure of a run is drawn for every shape of result."""

import numpy as np
import pytest
from matplotlib import image

from paws_jax.monitoring import monitor
from paws_jax.monitoring import reference_curves
from paws_jax.plots import curves
from paws_jax.plots import embedding_map
from paws_jax.plots import training_figure

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

  training_figure.training_figure(
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

  monkeypatch.setattr(embedding_map, "project", project)
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


FINDING = monitor.Finding("collapse", 2, "All images look the same.", "Stop.")


def crimson(pixels):
  """How many pixels have the colour that only findings have."""
  wanted = np.array([0xDC, 0x14, 0x3C]) / 255
  return (np.abs(pixels[..., :3] - wanted).max(axis=-1) < 0.02).sum()


def test_findings_are_marked_and_told(tmp_path):
  plain = draw(tmp_path / "a.png", num_classes=3, labelled_per_class=2)
  told = [*ROWS, {"step": 2, **FINDING.as_row()}]
  marked = draw(
    tmp_path / "b.png", num_classes=3, labelled_per_class=2, rows=told
  )
  assert crimson(plain) == 0
  assert crimson(marked) > 40
  # The sentence stands below all panels.
  assert crimson(marked[-25:]) > 10


def test_the_end_of_a_finding_is_not_marked(tmp_path):
  over = {"step": 2, **FINDING.as_row(), "event": "ends"}
  pixels = draw(
    tmp_path / "a.png", num_classes=3, labelled_per_class=2, rows=[*ROWS, over]
  )
  assert crimson(pixels) == 0


def test_what_shows_the_health_is_drawn(tmp_path):
  shown = {
    "view_agreement": 0.5,
    "classes_used": 0.9,
    "max_similarity": 0.8,
    "feature_rank": 7.0,
    "grad_norm": 2.0,
    "update_norm": 0.01,
    "param_norm": 9.0,
    "learning_rate": 0.1,
    "trust_ratio_min": 1e-4,
    "trust_ratio_median": 1e-3,
    "trust_ratio_max": 1e-2,
  }
  rows = [{"step": i} | {k: v * i for k, v in shown.items()} for i in (1, 2)]
  before, after = (
    draw(tmp_path / "f.png", num_classes=3, labelled_per_class=2, rows=rows)
    for rows in (ROWS, ROWS + rows)
  )
  third = before.shape[1] // 3
  panels = (before[:, third : 2 * third], after[:, third : 2 * third])
  assert (np.abs(panels[0] - panels[1]).max(axis=-1) > 0.1).sum() > 1000


def test_every_metric_that_tells_something_has_a_panel():
  panels = (curves._LOSSES, curves._ACCURACY, curves._SHARES, curves._SIZES)
  drawn = [name for panel in panels for name, _, _ in panel]
  losses = {"support_loss", "entropy", "nt_xent", "suncet"}
  shares = {"view_agreement", "classes_used", "max_similarity", "in_domain"}
  confidence = {"target_confidence", "pseudo_label_accuracy", "soft_nn_top1"}
  assert losses | shares | confidence <= set(drawn)
  assert len(drawn) == len(set(drawn))


def test_what_a_method_minimises_is_not_dashed(tmp_path):
  def styles(*losses):
    return {name: style for name, _, style in curves._loss_curves(losses)}

  paws, simclr = styles("cross_entropy"), styles("nt_xent", "distance")
  assert paws["cross_entropy"] == "-"
  assert paws["nt_xent"] == simclr["suncet"] == "--"
  assert simclr["nt_xent"] == simclr["distance"] == "-"
  rows = [{"step": i, "nt_xent": 3 - i, "distance": 1.0} for i in (0, 1, 2)]
  watched, minimised = (
    draw(
      tmp_path / "f.png",
      num_classes=3,
      labelled_per_class=2,
      rows=rows,
      losses=losses,
    )
    for losses in (("cross_entropy",), ("nt_xent", "distance"))
  )
  # In the first panel alone.
  changed = np.abs(watched - minimised).max(axis=-1) > 0.1
  top, left = changed.shape[0] // 2, changed.shape[1] // 3
  assert changed[:top, :left].sum() > 300
  assert not changed[:, left:].any()


def test_a_reference_lies_behind_the_curves(tmp_path):
  curve = reference_curves.Curve(
    np.array([1, 3]), *(np.array([v, v]) for v in (1.5, 1.0, 2.0))
  )
  reference = reference_curves.Reference("r", 3, {"cross_entropy": curve})
  plain, banded = (
    draw(
      tmp_path / "f.png", num_classes=3, labelled_per_class=2, reference=shown
    )
    for shown in (None, reference)
  )
  changed = np.abs(plain - banded).max(axis=-1) > 0.02
  # A band of half the panel's height, in the first panel alone.
  top, left = banded.shape[0] // 2, banded.shape[1] // 3
  assert changed[:top, :left].sum() > 5000
  assert not changed[:, left:].any()


def test_names_are_text_not_formulas(tmp_path):
  draw(
    tmp_path / "f.png",
    num_classes=3,
    labelled_per_class=1,
    class_names=["$10_$", "_hidden", r"$\frac$"],
  )


def test_many_points_are_thinned(tmp_path, monkeypatch):
  monkeypatch.setattr(embedding_map, "_MOST_POINTS", 30)
  draw(tmp_path / "f.png", num_classes=2, labelled_per_class=3, num_queries=500)


def _tile(height, width, value, channels=3):
  return np.full((height, width, channels), value, np.uint8)


def test_tiles_are_joined_on_white():
  tiles = [_tile(2, 3, 0), _tile(4, 1, 7)]
  line = training_figure.join_tiles(tiles, axis=1, gap=2)
  assert line.shape == (4, 6, 3)
  assert line[:, :, 0].tolist() == [
    [0, 0, 0, 255, 255, 7],
    [0, 0, 0, 255, 255, 7],
    [255, 255, 255, 255, 255, 7],
    [255, 255, 255, 255, 255, 7],
  ]
  assert training_figure.join_tiles(tiles, axis=0, gap=2).shape == (8, 3, 3)


def test_levels_undo_the_normalisation():
  levels = np.array([[0.0, 12.0, 255.0]])
  mean, std = (0.1, 0.2, 0.3), (0.4, 0.5, 0.6)
  views = (levels / 255 - mean) / std
  back = training_figure.to_levels(views, mean=mean, std=std)
  assert back.tolist() == [[0, 12, 255]]
  assert back.dtype == np.uint8
  # What lies outside is cut, not wrapped.
  assert training_figure.to_levels(
    np.array([[-9.0, 9.0]]), mean=(0, 0), std=(1, 1)
  ).tolist() == [[0, 255]]


def test_a_sheet_of_views(tmp_path):
  path = tmp_path / "views.png"
  large, small = _tile(100, 100, 80), _tile(40, 40, 160)
  # No captions: the edges of letters have all kinds of grey.
  strip = training_figure.Strip(
    "", _tile(900, 600, 30), ([large, large], [small] * 5)
  )
  training_figure.views_sheet(path, [strip, strip])
  sheet = (image.imread(path)[..., 0] * 255).round()
  # The original comes as 171 x 256.
  assert (sheet == 30).sum() == 2 * 256 * 171
  assert (sheet == 80).sum() == 2 * 2 * 100 * 100
  assert (sheet == 160).sum() == 2 * 5 * 40 * 40
  # Small crops stand two above each other, and a strip below the other one.
  assert (sheet == 160).any(axis=0).sum() == 3 * 40
  assert (sheet == 30).any(axis=0).sum() == 171


def test_narrow_strips_stand_side_by_side(tmp_path):
  path = tmp_path / "views.png"
  strip = training_figure.Strip("", _tile(96, 96, 70), ([_tile(96, 96, 70)],))
  training_figure.views_sheet(path, [strip] * 5)
  sheet = (image.imread(path)[..., 0] * 255).round()
  assert (sheet == 70).any(axis=0).sum() == 4 * 2 * 96
  assert (sheet == 70).any(axis=1).sum() == 2 * 96


def test_tiny_grey_crops_are_enlarged(tmp_path):
  path = tmp_path / "views.png"
  grey = _tile(8, 8, 70, channels=1)
  training_figure.views_sheet(
    path, [training_figure.Strip("", grey, ([grey],))]
  )
  sheet = (image.imread(path)[..., 2] * 255).round()
  assert (sheet == 70).sum() == 2 * 96 * 96


def test_a_strip_has_its_caption_above(tmp_path):
  path = tmp_path / "views.png"
  grey = _tile(96, 96, 200)
  training_figure.views_sheet(
    path, [training_figure.Strip("cat/1.jpg", grey, ([grey],))]
  )
  sheet = image.imread(path)[..., 0]
  assert sheet[:22].min() < 0.3
  assert sheet[22:].min() > 0.7


def test_captions_may_be_long_and_in_any_script(tmp_path):
  path = tmp_path / "views.png"
  grey = _tile(96, 96, 70)
  caption = "\u732b\udcff" * 100
  training_figure.views_sheet(
    path, [training_figure.Strip(caption, grey, ([grey],))]
  )
  sheet = image.imread(path)[..., 0]
  # It ends where the strip does, which is 96 + 16 + 96 pixels wide.
  assert sheet.shape[1] == 4 + 96 + 16 + 96 + 4
