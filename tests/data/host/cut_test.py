"""Crops that the host cuts: those of the device, within one gray level."""

import dataclasses
import functools
import pathlib
import re
import runpy

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from paws_jax import augment
from paws_jax import config as config_lib
from paws_jax import data
from paws_jax import errors
from paws_jax.augment import crop
from paws_jax.data import sampling
from paws_jax.data.host import cut
from paws_jax.data.host import pipeline as pipeline_lib
from paws_jax.data.sources import catalog
from paws_jax.parallel import mesh as mesh_lib
from paws_jax.training import experiment
from paws_jax.training import views as views_lib
from tests import small_runs
from tests import tiny_recipe

NUM_IMAGES, BATCH, SEED, SIDE = 20, 8, 5, 40
SUPPORT = config_lib.Support(
  classes_per_step=3, images_per_class=2, num_views=2, with_replacement=True
)
PLAIN = config_lib.ViewSpec(
  jitter_probability=0.0, grey_probability=0.0, blur_probability=0.0
)
LARGE = dataclasses.replace(PLAIN, count=2, size=24, scale=(0.2, 1.0))
SMALL = dataclasses.replace(
  PLAIN, count=3, size=9, scale=(0.01, 0.3), aspect_ratio=(0.3, 2.0)
)
SECOND = dataclasses.replace(LARGE, count=1, scale=(0.05, 0.4))
# Levels: nothing is normalized away.
STEP_VIEWS = views_lib.StepViews(
  crops={"large": LARGE, "second": SECOND, "small": SMALL},
  support=dataclasses.replace(LARGE, size=16, flip_probability=1.0),
  mean=(0.0,) * 3,
  std=(1 / 255,) * 3,
)
CROPS = cut.CropSpecs(STEP_VIEWS.crops, STEP_VIEWS.support, SUPPORT.num_views)


@pytest.fixture(params=["tensorflow", "pillow"])
def decoder(request):
  return request.param


@pytest.fixture(scope="session")
def _written(tmp_path_factory):
  """Noise of many sizes: one pixel, narrow, and larger than a canvas."""
  root = tmp_path_factory.mktemp("noise")
  rng = np.random.default_rng(0)
  sizes = [(1, 1), (40, 3), (2, 37), (90, 61), (17, 40)]
  for k in range(NUM_IMAGES):
    height, width = sizes[k] if k < len(sizes) else rng.integers(8, 41, 2)
    pixels = rng.integers(0, 256, (height, width, 3), np.uint8)
    Image.fromarray(pixels).save(root / f"{k:02d}.png")
  return root


@pytest.fixture
def root(_written, tmp_path):
  for path in _written.iterdir():
    (tmp_path / path.name).hardlink_to(path)
  return tmp_path


def _pipeline(root, num_devices=1, **settings):
  index = sampling.label_index(
    np.arange(9), np.arange(NUM_IMAGES) % 3, class_names=("a", "b", "c")
  )
  paths = tuple(f"{k:02d}.png" for k in range(NUM_IMAGES))
  settings = {
    "pool": np.arange(NUM_IMAGES),
    "support": SUPPORT,
    "batch_size": BATCH,
    "seed": SEED,
    "mesh": mesh_lib.make_mesh(jax.devices()[:num_devices]),
    "canvas_size": SIDE,
    "on_bad_image": "error",
    "max_pixels": 10**6,
    "support_cache_mb": 1,
    "num_threads": 4,
    "crops": CROPS,
    **settings,
  }
  files = catalog.Files(root=str(root), paths=paths)
  return pipeline_lib.HostPipeline(files, index, **settings)


_make_views = jax.jit(
  functools.partial(
    views_lib.make_views,
    seed=SEED,
    views=STEP_VIEWS,
    num_support_views=SUPPORT.num_views,
  )
)


def _levels(views):
  return views.crops | {"support": views.support}


def _assert_equal(got, want):
  assert jax.tree.structure(got) == jax.tree.structure(want)
  for a, b in zip(jax.tree.leaves(got), jax.tree.leaves(want), strict=True):
    np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("spec", [LARGE, SMALL], ids=["large", "small"])
def test_boxes_without_jax_are_those_with_it(spec):
  rng = np.random.default_rng(0)
  draws = rng.random((5000, 4, crop.CROP_TRIES), np.float32)
  sizes = rng.integers(1, 1000, (5000, 2)).astype(np.int32)
  tries = crop.crop_tries(
    jnp.asarray(draws), scale=spec.scale, aspect_ratio=spec.aspect_ratio
  )
  boxes = crop.fit_boxes(
    np.asarray(tries), sizes, aspect_ratio=spec.aspect_ratio, xp=np
  )
  want = jax.jit(augment.crop_boxes, static_argnames=("scale", "aspect_ratio"))(
    draws, sizes, scale=spec.scale, aspect_ratio=spec.aspect_ratio
  )
  assert boxes.dtype == np.int32
  np.testing.assert_array_equal(boxes, want)


def test_views_are_those_of_the_device_within_one_level(root, decoder):
  with (
    _pipeline(root, decoder=decoder) as host,
    _pipeline(root, decoder=decoder, crops=None) as device,
  ):
    for step in (0, 1, 2):
      cut_there = host.inputs(step, 1).batches[0]
      cut_here = device.inputs(step, 1).batches[0]
      assert isinstance(cut_there.unlabelled, data.Crops)
      got = _levels(_make_views(cut_there, step=step))
      want = _levels(_make_views(cut_here, step=step))
      assert got.keys() == want.keys() == {*STEP_VIEWS.crops, "support"}
      for name in want:
        np.testing.assert_allclose(got[name], want[name], atol=1.01)
        # Rounded, but the same crops: not a pixel beside it.
        assert np.abs(np.subtract(got[name], want[name])).mean() < 0.5


def test_later_operations_are_those_of_the_device():
  rng = np.random.default_rng(0)
  # Smooth, so that rounding stays small.
  image = np.linspace(20, 230, 12 * 12 * 3).reshape(1, 12, 12, 3)
  images = np.repeat(image, 16, 0).astype(np.uint8)
  images += rng.integers(0, 9, (16, 1, 1, 3), np.uint8)
  sizes = np.full((16, 2), 12, np.int32)
  keys = jax.random.split(jax.random.key(1), (16, 1))
  spec = dataclasses.replace(
    PLAIN, size=8, rotation_degrees=20.0, grey_probability=0.5
  )
  plain = dataclasses.replace(spec, rotation_degrees=0.0, grey_probability=0.0)

  @jax.jit
  def views(keys, images):
    normal = {"mean": (0.0,) * 3, "std": (1 / 255,) * 3}
    again = jax.random.clone
    cut_there = augment.multi_views(keys, images, sizes, spec=plain, **normal)
    rounded = jnp.round(cut_there).astype(jnp.uint8)
    return (
      cut_there,
      augment.distort_views(again(keys), rounded, spec=spec, **normal),
      augment.multi_views(again(keys), images, sizes, spec=spec, **normal),
    )

  cut_there, got, want = views(keys, images)
  assert np.abs(got - want).max() < 1.01
  assert np.abs(got - cut_there).mean() > 5


def test_the_number_of_devices_changes_nothing(root, decoder):
  with (
    _pipeline(root, decoder=decoder) as one,
    _pipeline(root, 4, decoder=decoder) as several,
  ):
    for step in (0, 3):
      want, got = (p.inputs(step, 1).batches[0] for p in (one, several))
      _assert_equal(got.unlabelled, want.unlabelled)
      count = len(want.support.id)
      _assert_equal(
        jax.tree.map(lambda x, count=count: x[:count], got.support),
        want.support,
      )


def test_each_process_reads_and_cuts_its_rows_only(root, decoder):
  pipeline = _pipeline(root, 4, decoder=decoder)
  with pipeline:
    whole = pipeline.inputs(2, 1).batches[0]
  for first in (0, 2):
    part = next(pipeline.local_canvases(2, jax.devices()[first : first + 2]))
    for got, want in zip(part, (whole.unlabelled, whole.support), strict=True):
      half = len(want.id) // 2
      rows = slice(0, half) if first == 0 else slice(half, 2 * half)
      _assert_equal(got, jax.tree.map(lambda x, rows=rows: x[rows], want))


def test_a_resumed_run_gets_the_same_bits(root, decoder):
  with _pipeline(root, decoder=decoder) as pipeline:
    want = [pipeline.inputs(step, 1).batches[0] for step in range(5)]
  # Elsewhere, with other threads, without a cache, several steps at once.
  with _pipeline(
    root, decoder=decoder, num_threads=1, support_cache_mb=0
  ) as pipeline:
    for step, batch in zip((3, 4), pipeline.inputs(3, 2).batches, strict=True):
      _assert_equal(batch, want[step])


def test_shapes_are_known_without_reading(root, decoder):
  with _pipeline(root, 4, decoder=decoder) as pipeline:
    shapes = pipeline.input_shapes(1)
    inputs = pipeline.inputs(0, 1)
  assert shapes == jax.tree.map(
    lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding),
    inputs,
  )
  views = inputs.batches[0].unlabelled.views
  assert views["large"].shape == (BATCH, 2, 24, 24, 3)
  assert views["large"].dtype == np.uint8


def test_crops_of_an_unreadable_image_are_those_of_its_substitute(
  root, decoder
):
  damaged = root / "07.png"
  damaged.unlink()
  damaged.write_bytes(b"<html>404</html>")
  pipeline = _pipeline(root, decoder=decoder)
  with pipeline, pytest.raises(errors.BadImageError, match="07"):
    pipeline.inputs(0, 2)
  pool = np.array([6, 7, 8, 9, 10, 11, 12, 13], np.int32)
  with (
    _pipeline(
      root, decoder=decoder, on_bad_image="skip", pool=pool, support=None
    ) as skipping,
    _pipeline(
      root,
      decoder=decoder,
      on_bad_image="skip",
      pool=pool,
      support=None,
      crops=None,
    ) as device,
  ):
    got, want = (p.inputs(0, 1).batches[0] for p in (skipping, device))
  assert skipping.replaced == {"07.png": "08.png"}
  got, want = (_make_views(batch, step=0) for batch in (got, want))
  np.testing.assert_array_equal(got.ids, want.ids)
  for name in want.crops:
    np.testing.assert_allclose(got.crops[name], want.crops[name], atol=1.01)
    assert np.asarray(got.crops[name]).std(axis=(2, 3)).max() > 10


def test_images_in_memory_are_cut_on_the_device(tmp_path):
  config = tiny_recipe.get_config()
  config.views.crop_on = "host"
  with pytest.raises(errors.InputError, match=r"data\.pipeline is 'memory'"):
    config_lib.resolve(config)
  config.update_from_flattened_dict(small_runs.on_disk(tmp_path))
  assert config_lib.resolve(config).views.crop_on == "host"
  config.views.crop_on = "gpu"
  with pytest.raises(errors.InputError, match="one of device, host"):
    config_lib.resolve(config)


def test_the_guide_s_command_cuts_on_the_host(tmp_path, monkeypatch):
  root = pathlib.Path(__file__).parents[3]
  guide = (root / "docs" / "own_data.md").read_text(encoding="utf-8")
  (command,) = re.findall(
    r"^python -m paws_jax\.main ((?:.*\\\n)*.*crop_on=host.*)$", guide, re.M
  )
  flags = re.findall(r"--config\.([\w.]+)=(\S+)", command)
  assert "--config=configs/image_folder.py:laptop" in command
  small_runs.write_photos(tmp_path / "photos")
  monkeypatch.chdir(tmp_path)
  recipe = runpy.run_path(str(root / "configs" / "image_folder.py"))
  config = recipe["get_config"]("laptop")
  changes = {"train.batch_size": 8, "train.epochs": 9, "data.canvas_size": 32}
  config.update_from_flattened_dict(dict(flags) | changes)
  config.update_from_flattened_dict({"support.images_per_class": 2})
  built = experiment.create(config)
  with built.pipeline:
    batch = built.pipeline.inputs(0, 1).batches[0]
  size, count = config.views.large.size, config.views.large.count
  assert batch.unlabelled.views["large"].shape == (8, count, size, size, 3)
