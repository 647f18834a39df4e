"""Figures of a report: SVG and thumbnails inside data URIs."""

import base64
import io

import numpy as np
import pytest
from PIL import Image

from paws_jax.monitoring import monitor
from paws_jax.report import figures

RNG = np.random.default_rng(0)


_LOSSES = ("cross_entropy",)


def svg(picture):
  kind, content = picture.uri.split(";base64,")
  assert kind == "data:image/svg+xml"
  return base64.b64decode(content).decode()


def opened(picture):
  return Image.open(io.BytesIO(base64.b64decode(picture.uri.split(",")[1])))


def points(count, num_classes, **options):
  return figures.Points(
    "dots",
    RNG.normal(size=(count, 3)).astype(np.float32),
    RNG.integers(0, num_classes, count),
    **options,
  )


def test_a_tiny_image_keeps_its_pixels():
  pixels = RNG.integers(0, 256, (8, 6, 1), np.uint8)
  picture = figures.thumbnail(pixels)
  assert picture.tiny
  np.testing.assert_array_equal(np.asarray(opened(picture)), pixels[..., 0])


def test_a_photograph_becomes_a_small_jpeg():
  picture = figures.thumbnail(np.full((300, 600, 3), 77, np.uint8))
  assert not picture.tiny
  image = opened(picture)
  assert (image.format, image.size) == ("JPEG", (112, 56))
  assert np.abs(np.asarray(image).astype(int) - 77).max() <= 2


def test_curves_of_a_run():
  rows = [
    {"step": i, "loss": 1.0, "cross_entropy": 1.0, "learning_rate": 0.1}
    for i in range(3)
  ]
  assert svg(figures.curves(rows, losses=_LOSSES)).count("<path") > 10
  assert figures.curves([], losses=_LOSSES) is None
  assert (
    figures.curves([{"step": 1, "soft_nn_top1": 0.5}], losses=_LOSSES) is None
  )


def test_findings_are_not_drawn():
  row = {"step": 1, "loss": 1.0, "cross_entropy": 1.0}
  found = {
    "step": 1,
    monitor.KEY: "collapse",
    "event": "starts",
    "sentence": "s",
    "remedy": "r",
  }
  assert svg(figures.curves([row, found], losses=_LOSSES)) == svg(
    figures.curves([row], losses=_LOSSES)
  )


@pytest.mark.parametrize("num_classes", [2, 12, 13, 60])
def test_confusion_matrix(num_classes):
  counts = np.eye(num_classes, dtype=int) * 1234
  names = [f"_n$a{'m' * 40}e" for _ in range(num_classes)]
  text = svg(figures.confusion(counts, names, others=num_classes == 60))
  # A comment tells what a group of glyphs says.
  assert ("<!-- 1234 -->" in text) == (num_classes <= 12)
  assert ("<!--  _n$a" in text) == (num_classes <= 40)
  assert "m" * 20 not in text


def test_map_of_labelled_and_other_images():
  names = [f"class {k}" for k in range(3)]
  chosen = np.array([1, 5])
  text = svg(
    figures.embedding_map(points(6, 3), points(30, 3, chosen=chosen), names)
  )
  assert "<!-- class 2 -->" in text
  assert "<!-- to label next -->" in text
  assert "<!-- other classes -->" not in text
  assert "<image" in text


def test_map_of_labelled_images_alone_and_of_many_classes():
  none = figures.Points("", np.zeros((0, 3)), np.zeros(0, int))
  names = [f"class {k}" for k in range(30)]
  labelled = figures.Points("labelled", RNG.normal(size=(30, 3)), np.arange(30))
  text = svg(figures.embedding_map(labelled, none, names))
  assert "<!-- other classes -->" in text
  assert text.count("<!-- class ") == 20
  assert "label next" not in text


def test_marked_points_are_never_left_out():
  chosen = np.array([3, 998])
  rows = figures._with_chosen(points(1000, 2, chosen=chosen), 10)
  assert len(rows) == 10
  assert set(chosen) <= set(rows)
  np.testing.assert_array_equal(rows, np.unique(rows))
