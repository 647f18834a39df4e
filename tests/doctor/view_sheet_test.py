"""The sheet shows the views that the first step makes."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from paws_jax import config as config_lib
from paws_jax import data
from paws_jax.data.sources import arrays as arrays_lib
from paws_jax.data.sources import catalog
from paws_jax.doctor import inspect
from paws_jax.doctor import measure
from paws_jax.doctor import view_sheet
from paws_jax.plots import training_figure
from paws_jax.training import views as views_lib
from tests import tiny_recipe


def _found(root, bad=()):
  """Six labelled and six unlabelled files of 10 x 12 pixels."""
  pixels = np.random.default_rng(0).integers(0, 256, (12, 10, 12, 3), np.uint8)
  paths = tuple(f"{k:02d}.png" for k in range(12))
  for k, path in enumerate(paths):
    Image.fromarray(pixels[k]).save(root / path)
    if k in bad:
      (root / path).write_bytes(b"")
  labels = np.array([0, 1] * 3 + [-1] * 6, np.int32)
  part = catalog.Part(catalog.Files(str(root), paths), labels)
  return catalog.Catalog("toy", ("ant", "bee"), part), pixels


def _draw(monkeypatch, found, config, tmp_path, labelled_ids=None):
  """The strips of the sheet."""
  drawn = []
  sheet = training_figure.views_sheet
  monkeypatch.setattr(
    training_figure,
    "views_sheet",
    lambda path, strips: (drawn.extend(strips), sheet(path, strips)),
  )
  ids = np.flatnonzero(found.train.labels >= 0)
  groups = inspect.image_groups(
    found, ids if labelled_ids is None else labelled_ids
  )
  decode = measure.file_size_in_pixels(max_pixels=1000, canvas_size=16)
  if isinstance(found.train.images, inspect.ArrayImages):
    decode = measure.array_size(8, 8)
  seen = inspect.check_images(groups, decode, progress=lambda *_: None)
  path = view_sheet.draw(
    config_lib.resolve(config), found, groups, seen, tmp_path / "a" / "b"
  )
  assert path == tmp_path / "a" / "b" / "views.png"
  with Image.open(path) as image:
    assert image.width > 400
  return drawn


def _recipe():
  config = tiny_recipe.get_config()
  config.data.source = "folder"
  config.data.pipeline = "host"
  config.data.canvas_size = 16
  config.views.mean = (0.5, 0.5, 0.5)
  config.views.std = (0.2, 0.3, 0.4)
  config.support.num_views = 2
  return config


@pytest.mark.slow
def test_views_are_those_of_the_first_step(tmp_path, monkeypatch):
  found, pixels = _found(tmp_path)
  config = _recipe()
  strips = _draw(monkeypatch, found, config, tmp_path)
  captions = [strip.caption for strip in strips]
  assert captions[:2] == [
    "unlabelled: 06.png (12 x 10)",
    "unlabelled: 07.png (12 x 10)",
  ]
  assert captions[4] == "support of 'ant': 00.png (12 x 10)"
  assert captions[7] == "support of 'bee': 05.png (12 x 10)"
  np.testing.assert_array_equal(strips[1].original, pixels[7])
  assert [len(crops) for crops in strips[1].views] == [2, 1]
  assert [len(crops) for crops in strips[4].views] == [2]
  # An image's views do not depend on what else is in the batch.
  canvas = np.zeros((1, 16, 16, 3), np.uint8)
  canvas[0, :10, :12] = pixels[7]
  one = data.Canvases(
    jnp.asarray(canvas), jnp.array([[10, 12]]), jnp.array([7], jnp.int32)
  )
  zero = jnp.zeros(1, jnp.int32)
  section = config_lib.build_views(config.views)
  make = functools.partial(
    views_lib.make_views,
    seed=config.seed,
    step=0,
    views=views_lib.StepViews(
      section.crops, section.support, section.mean, section.std
    ),
    num_support_views=1,
  )
  batch = data.HostBatch(one, one, zero, None, zero, zero)
  views = jax.jit(make)(batch)
  levels = 255 * (
    np.array(config.views.std) * np.asarray(views.crops["large"])[0] + 0.5
  )
  np.testing.assert_allclose(strips[1].views[0], levels, atol=0.51)


@pytest.mark.slow
def test_images_that_cannot_be_read_are_not_shown(tmp_path, monkeypatch):
  found, _ = _found(tmp_path, bad=(0, 6))
  strips = _draw(monkeypatch, found, _recipe(), tmp_path)
  names = " ".join(strip.caption for strip in strips)
  assert "00.png" not in names
  assert "06.png" not in names
  assert "01.png" in names


def test_without_any_readable_image_of_a_kind_that_is_needed(
  tmp_path, monkeypatch
):
  found, _ = _found(tmp_path, bad=range(6))
  with pytest.raises(ValueError, match="no labelled image can be read"):
    _draw(monkeypatch, found, _recipe(), tmp_path)
  found, _ = _found(tmp_path, bad=range(12))
  none = np.zeros(0, int)
  with pytest.raises(ValueError, match="no unlabelled image can be read"):
    _draw(monkeypatch, found, _recipe(), tmp_path, labelled_ids=none)


@pytest.mark.slow
def test_where_all_images_are_labelled(tmp_path, monkeypatch):
  found, _ = _found(tmp_path, bad=range(6, 12))
  strips = _draw(monkeypatch, found, _recipe(), tmp_path)
  assert [len(strip.views) for strip in strips] == [2] * 4 + [1] * 4


@pytest.mark.slow
def test_images_in_memory(tmp_path, monkeypatch):
  arrays = arrays_lib.load("digits", directory="", tfds_name="")
  config = tiny_recipe.get_config()
  config.data.image_size = 16
  found = inspect.as_catalog(arrays)
  ids = np.arange(20)
  strips = _draw(monkeypatch, found, config, tmp_path, ids)
  assert {strip.original.shape for strip in strips} == {(16, 16, 1)}
  assert strips[0].caption == "unlabelled: train row 20 (8 x 8)"
