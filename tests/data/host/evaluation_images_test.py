"""Evaluation images: torchvision's Resize and CenterCrop on Pillow's images."""

import numpy as np
import pytest
from PIL import Image
from sklearn import datasets

from paws_jax import errors
from paws_jax.data.host import evaluation_images
from paws_jax.data.sources import catalog

SHAPES = [(427, 640), (640, 427), (30, 30), (20, 51), (37, 24), (16, 16)]


@pytest.fixture
def files(tmp_path):
  photograph = datasets.load_sample_images().images[0]
  for k, (height, width) in enumerate(SHAPES):
    whole = np.tile(photograph, (2, 2, 1))
    Image.fromarray(whole[:height, :width]).save(tmp_path / f"{k}.jpg")
  return catalog.Files(
    root=str(tmp_path), paths=tuple(f"{k}.jpg" for k in range(len(SHAPES)))
  )


def _images(files, **settings):
  settings = {"resize": 32, "size": 28, "max_pixels": 10**6, **settings}
  return evaluation_images.EvaluationImages(files, **settings)


def _reference(path, resize, size):
  """What torchvision 0.29's code for Pillow's images comes to."""
  image = Image.open(path).convert("RGB")
  width, height = image.size
  short, long = (width, height) if width <= height else (height, width)
  new_long = int(resize * long / short)
  new_size = (resize, new_long) if width <= height else (new_long, resize)
  image = image.resize(new_size, Image.Resampling.BILINEAR)
  width, height = image.size
  top = int(round((height - size) / 2.0))  # noqa: RUF046
  left = int(round((width - size) / 2.0))  # noqa: RUF046
  return np.asarray(image)[top : top + size, left : left + size]


@pytest.mark.parametrize(
  ("resize", "size"), [(32, 28), (32, 32), (256, 224), (33, 28), (16, 9)]
)
def test_pixels_are_those_of_resize_and_centre_crop(files, resize, size):
  got = _images(files, resize=resize, size=size)[:]
  assert got.shape == (len(SHAPES), size, size, 3)
  assert got.dtype == np.uint8
  for k in range(len(SHAPES)):
    want = _reference(f"{files.root}/{k}.jpg", resize, size)
    np.testing.assert_array_equal(got[k], want)


def test_looks_like_an_array(files):
  images = _images(files)
  assert len(images) == 6
  assert images.shape == (6, 28, 28, 3)
  assert (images.dtype, images.ndim) == (np.uint8, 4)
  whole = images[:]
  np.testing.assert_array_equal(images[1:3], whole[1:3])
  np.testing.assert_array_equal(images[4:99], whole[4:])
  assert images[6:].shape == (0, 28, 28, 3)
  np.testing.assert_array_equal(images[np.array([5, 0, 5])], whole[[5, 0, 5]])


def test_rows_may_be_chosen(files):
  images = _images(files, rows=np.array([4, 1]))
  assert images.shape == (2, 28, 28, 3)
  np.testing.assert_array_equal(images[:], _images(files)[:][[4, 1]])


def test_one_place_is_refused(files):
  with pytest.raises(TypeError, match=r"images\[2\]: give a slice"):
    _images(files)[2]


def _damage(files, *rows):
  for row in rows:
    with open(f"{files.root}/{row}.jpg", "r+b") as file:
      file.truncate(300)


def test_a_bad_test_image_is_an_error_by_name(files):
  _damage(files, 3)
  images = _images(files)
  assert images[:3].shape[0] == 3
  message = r"^3\.jpg: damaged.* Repair or remove it: an evaluation counts"
  with pytest.raises(errors.BadImageError, match=message):
    images[:]


def test_bad_labelled_images_may_be_left_out(files):
  want = _images(files)[:]
  _damage(files, 3, 4)
  images = _images(files, leave_out_bad=True)
  assert images.readable.all()
  rows = np.array([True, True, True, False, False, True])
  # In parts, as an evaluation takes them.
  found = np.concatenate([images[:4], images[4:]])
  np.testing.assert_array_equal(found, want * rows[:, None, None, None])
  np.testing.assert_array_equal(images.readable, rows)
  assert set(images.unreadable) == {"3.jpg", "4.jpg"}
  assert all("damaged" in reason for reason in images.unreadable.values())


def test_an_image_that_can_be_read_again_counts_again(files):
  with open(f"{files.root}/3.jpg", "rb") as file:
    whole = file.read()
  _damage(files, 3)
  images = _images(files, leave_out_bad=True)
  images[2:5]
  assert images.readable.tolist() == [True] * 3 + [False] + [True] * 2
  with open(f"{files.root}/3.jpg", "wb") as file:
    file.write(whole)
  images[:3]
  assert not images.readable[3]
  images[3:]
  assert images.readable.all()
  assert images.unreadable == {}


def test_too_many_pixels_are_refused(files):
  with pytest.raises(errors.BadImageError, match="more than data"):
    _images(files, max_pixels=1000)[:1]


def test_a_line_is_not_blown_up_to_fill_the_memory(tmp_path):
  Image.new("RGB", (9000, 1)).save(tmp_path / "line.png")
  files = catalog.Files(root=str(tmp_path), paths=("line.png",))
  with pytest.raises(errors.BadImageError, match=r"line\.png: its 1 x 9000"):
    _images(files)[:]


@pytest.mark.parametrize(("resize", "size"), [(27, 28), (0, 28), (28, 0)])
def test_a_crop_larger_than_the_image_is_refused(files, resize, size):
  with pytest.raises(
    ValueError, match=rf"eval_resize is {resize} but the crop has {size} "
  ):
    _images(files, resize=resize, size=size)
