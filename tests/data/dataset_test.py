"""From section `data` to images: labelled, unlabelled, held out."""

import dataclasses

import jax
import numpy as np
import pytest
from PIL import Image

from paws_jax import config as config_lib
from paws_jax.data import load_dataset
from paws_jax.data.sources import arrays as arrays_lib
from paws_jax.parallel import mesh

pytestmark = pytest.mark.unoptimized

NUM_TRAIN = 44


@pytest.fixture(scope="module")
def arrays():
  rng = np.random.default_rng(0)
  labels = np.arange(NUM_TRAIN, dtype=np.int32) % 5
  return arrays_lib.Arrays(
    name="toy",
    class_names=("ant", "bee", "cat", "dog", "elk"),
    train_images=rng.integers(0, 256, (NUM_TRAIN, 8, 10, 1), np.uint8),
    train_labels=labels,
    test_images=rng.integers(0, 256, (7, 8, 10, 1), np.uint8),
    test_labels=labels[:7],
  )


def load(arrays, **changes):
  section = dict(config_lib.base().data) | {"labels_per_class": 3} | changes
  views = config_lib.base().views
  views.update(eval_size=8, mean=(0.5,), std=(0.25,), eval_resize=0)
  return load_dataset.load(
    config_lib.Data(**section),
    config_lib.build_views(views),
    arrays=arrays,
  )


def pipeline(dataset, batch_size=8):
  support = dict(config_lib.base().support)
  support |= {"classes_per_step": 5, "images_per_class": 3}
  return dataset.make_pipeline(
    support=config_lib.Support(**support),
    batch_size=batch_size,
    seed=0,
    mesh=mesh.make_mesh(jax.devices()[:1]),
    with_unlabelled=True,
  )


def test_the_labelled_part_is_the_split(arrays):
  dataset = load(arrays)
  assert np.bincount(dataset.labelled.labels).tolist() == [3] * 5
  ids = dataset.split.labelled_ids
  images = dataset.labelled.images
  np.testing.assert_array_equal(images, arrays.train_images[ids])
  np.testing.assert_array_equal(
    dataset.labelled.labels, arrays.train_labels[ids]
  )
  assert len(dataset.labelled) == 15
  assert dataset.num_classes == 5


@pytest.mark.parametrize("on_disk", [False, True])
def test_copies_among_the_labelled_images_are_found(arrays, tmp_path, on_disk):
  pixels = np.repeat(arrays.train_images, 3, axis=-1)
  # Rows 10 and 30 are of class 0, as row 0 is.
  pixels[[10, 30]] = pixels[0]
  if on_disk:
    for row, image in enumerate(pixels):
      path = tmp_path / arrays.class_names[row % 5] / f"{row:02}.png"
      path.parent.mkdir(exist_ok=True)
      Image.fromarray(image).save(path)
    views = config_lib.base().views
    views.update(eval_size=8, eval_resize=8)
    source = {"source": "folder", "pipeline": "host", "dir": str(tmp_path)}
    section = config_lib.Data(labels_per_class=0, **source)
    dataset = load_dataset.load(section, config_lib.build_views(views))
  else:
    changed = dataclasses.replace(arrays, train_images=pixels[..., :1])
    dataset = load(changed, labels_per_class=0)
  labelled = dataset.labelled
  names = [labelled.name(i) for i in range(NUM_TRAIN)]
  found = {names[i]: names[first] for i, first in enumerate(labelled.copies)}
  ant = "ant/{:02}.png".format if on_disk else "train {}".format
  assert {a: b for a, b in found.items() if a != b} == {
    ant(10): ant(0),
    ant(30): ant(0),
  }
  ids = dataset.split.labelled_ids
  np.testing.assert_array_equal(dataset.find_copies(ids), labelled.copies)


def test_the_split_seed_chooses_it(arrays):
  ids = load(arrays).split.labelled_ids
  np.testing.assert_array_equal(load(arrays).split.labelled_ids, ids)
  assert set(load(arrays, split_seed=5).split.labelled_ids) != set(ids)


def test_images_are_resized_once_where_the_recipe_says_so(arrays):
  images = pipeline(load(arrays, image_size=12)).inputs(0, 5).images
  assert images.shape == (NUM_TRAIN, 12, 12, 1)
  assert images.dtype == np.uint8
  images = pipeline(load(arrays)).inputs(0, 5).images
  np.testing.assert_array_equal(images, arrays.train_images)


@pytest.mark.parametrize("include", [True, False])
def test_labelled_images_can_be_left_out_of_the_unlabelled_ones(
  arrays, include
):
  dataset = load(arrays, include_labelled=include)
  served = pipeline(dataset)
  num_images = NUM_TRAIN if include else NUM_TRAIN - 15
  assert served.steps_per_epoch == num_images // 8
  order = np.asarray(served.inputs(0, 1).orders[0])
  labelled = set(dataset.split.labelled_ids.tolist())
  expected = set(range(NUM_TRAIN)) - (set() if include else labelled)
  assert sorted(order.tolist()) == sorted(expected)
  # The images of these rows, and no others.
  batch = served.batch(served.inputs(0, 1), np.int32(0))
  np.testing.assert_array_equal(batch.unlabelled.id, order[:8])
  np.testing.assert_array_equal(
    batch.unlabelled.image, arrays.train_images[order[:8]]
  )


def test_too_few_images_without_the_labelled_ones(arrays):
  dataset = load(arrays, include_labelled=False)
  with pytest.raises(ValueError, match=r"is 32 but there are 29 images"):
    pipeline(dataset, batch_size=32)


def test_the_home_directory_may_be_written_as_a_tilde(tmp_path, monkeypatch):
  monkeypatch.setenv("HOME", str(tmp_path))
  names = ("dir", "manifest", "labels_file", "unlabelled_dir", "test_dir")
  section = dict(config_lib.base().data) | dict.fromkeys(names, "~/x")
  config = config_lib.Data(**section)
  # As it is stored, it is the same on another machine.
  assert config.dir == "~/x"
  expanded = config.with_home()
  for name in names:
    assert getattr(expanded, name) == str(tmp_path / "x")
  # Only at the start, and of a user who exists.
  other = dataclasses.replace(config, dir="x/~", manifest="~nobody!/x")
  other = other.with_home()
  assert (other.dir, other.manifest) == ("x/~", "~nobody!/x")


def test_images_in_other_formats_are_reported(tmp_path, monkeypatch):
  monkeypatch.setenv("HOME", str(tmp_path))
  for name in ("a/1.png", "b/2.png", "a/3.heic", "a/4.txt"):
    path = tmp_path / "photos" / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch()
  changes = {"source": "folder", "pipeline": "host", "labels_per_class": 1}
  section = dict(config_lib.base().data) | changes | {"dir": "~/photos"}
  dataset = load_dataset.load(
    config_lib.Data(**section),
    config_lib.build_views(config_lib.base().views),
  )
  assert len(dataset.labelled) == 2
  (notice,) = dataset.notices
  assert notice.startswith("1 .heic file is ignored")


def test_every_part_has_the_white_level(arrays, tmp_path):
  pixels = arrays.train_images[..., 0]
  parts = {8: pixels, 12: np.round(pixels * (4095 / 255)).astype(np.uint16)}
  got = {}
  for bits, images in parts.items():
    for i, image in enumerate(images):
      name = arrays.class_names[arrays.train_labels[i]]
      for part in ("labelled", "test"):
        folder = tmp_path / f"{bits}/{part}/{name}"
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(folder / f"{i}.png")
    config = config_lib.Data(
      source="folder",
      pipeline="host",
      dir=str(tmp_path / f"{bits}/labelled"),
      test_dir=str(tmp_path / f"{bits}/test"),
      labels_per_class=3,
      canvas_size=16,
      white_level=4095,
    )
    views = config_lib.base().views
    views.update(eval_size=8, eval_resize=8)
    dataset = load_dataset.load(config, config_lib.build_views(views))
    with pipeline(dataset) as batches:
      batch = batches.inputs(0, 1).batches[0]
    got[bits] = [
      dataset.labelled.images[:],
      dataset.test.images[:],
      dataset.train_images[:],
      *jax.tree.leaves(batch),
    ]
  assert got[8][0].max() > 200
  for eight, twelve in zip(got[8], got[12], strict=True):
    np.testing.assert_array_equal(eight, twelve)


def test_data_in_memory_have_no_notices(arrays):
  assert load(arrays).notices == ()


def test_there_may_be_no_test_images(arrays):
  none = dataclasses.replace(
    arrays,
    test_images=arrays.test_images[:0],
    test_labels=arrays.test_labels[:0],
  )
  dataset = load(none)
  assert dataset.test is None
  assert dataset.monitored_part == "labelled"
