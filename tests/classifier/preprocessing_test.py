"""Preprocessing: an image becomes what the run's evaluation makes of it."""

import dataclasses
import io

import numpy as np
import pytest
from PIL import Image

from paws_jax import errors
from paws_jax.classifier import preprocessing
from paws_jax.data.host import decode
from paws_jax.data.host import evaluation_images
from paws_jax.data.sources import catalog
from tests import odd_files
from tests import untrained_run


def settings(*, on_disk, shape):
  return preprocessing.Preprocessing(
    on_disk=on_disk,
    shape=shape,
    image_size=0,
    eval_resize=32,
    large_size=28,
    mean=(0.5,) * shape[2],
    std=(0.25,) * shape[2],
    max_pixels=10_000,
  )


DISK = settings(on_disk=True, shape=(28, 28, 3))
GREY = settings(on_disk=False, shape=(8, 6, 1))


@pytest.mark.parametrize("size", [(50, 40), (28, 28), (33, 90)])
def test_a_file_is_cut_as_the_evaluation_cuts_it(tmp_path, size):
  pixels = untrained_run.photograph(*size)
  Image.fromarray(pixels).save(tmp_path / "a.png")
  files = catalog.Files(root=str(tmp_path), paths=("a.png",))
  want = evaluation_images.EvaluationImages(
    files, resize=32, size=28, max_pixels=10_000
  )[:][0]
  np.testing.assert_array_equal(DISK.pixels(tmp_path / "a.png", "a"), want)
  np.testing.assert_array_equal(DISK.pixels(pixels, "a"), want)
  np.testing.assert_array_equal(DISK.pixels(Image.fromarray(pixels), "a"), want)


def test_the_white_level_is_that_of_the_evaluation(tmp_path):
  values = untrained_run.photograph(50, 40, 1)[..., 0].astype(np.uint16) * 16
  Image.fromarray(values).save(tmp_path / "a.png")
  files = catalog.Files(root=str(tmp_path), paths=("a.png",))
  twelve = dataclasses.replace(DISK, white_level=4095)
  want = evaluation_images.EvaluationImages(
    files, resize=32, size=28, max_pixels=10_000, white_level=4095
  )[:][0]
  assert want.max() > 100
  np.testing.assert_array_equal(twelve.pixels(tmp_path / "a.png", "a"), want)
  image = Image.open(tmp_path / "a.png")
  np.testing.assert_array_equal(twelve.pixels(image, "a"), want)
  assert DISK.pixels(tmp_path / "a.png", "a").max() < 17


def test_a_white_level_is_stored_where_there_is_one():
  assert "white_level" not in DISK.as_json()
  twelve = dataclasses.replace(DISK, white_level=4095)
  assert preprocessing.from_json(twelve.as_json()) == twelve


@pytest.mark.parametrize("level", [-1, 65536, 4095.0, "4095", True, None])
def test_other_white_levels_are_refused(level):
  with pytest.raises(errors.InputError, match=r"white_level is .* must be"):
    preprocessing.from_json(DISK.as_json() | {"white_level": level})


def test_what_is_left_for_the_device():
  assert DISK.on_device.eval_resize == 0
  assert GREY.on_device.eval_resize == 32
  assert GREY.on_device.eval_size == 28
  assert preprocessing.Preprocessing(**GREY.as_json()) == GREY


def test_a_run_in_memory_keeps_images_of_its_size():
  pixels = untrained_run.photograph(8, 6, 1)
  assert GREY.pixels(pixels, "a") is pixels
  np.testing.assert_array_equal(GREY.pixels(pixels[..., 0], "a"), pixels)


def test_other_sizes_are_covered_and_cut_in_the_middle():
  # Bands of 4, 12 and 4 columns: of 16 x 20 to 8 x 6, 8 x 10 is left first.
  pixels = np.zeros((16, 20, 1), np.uint8)
  pixels[:, 4:16] = 200
  got = GREY.pixels(pixels, "a")
  assert got.shape == (8, 6, 1)
  assert got[:, 1:5].min() == 200
  assert got.max() <= 200
  tall = GREY.pixels(np.full((100, 7, 1), 9, np.uint8), "a")
  np.testing.assert_array_equal(tall, np.full((8, 6, 1), 9, np.uint8))


def test_grey_and_colours_are_made_of_each_other():
  grey = untrained_run.photograph(8, 6, 1)
  colours = np.repeat(grey, 3, axis=2)
  np.testing.assert_array_equal(GREY.pixels(colours, "a"), grey)
  red = np.zeros((8, 6, 3), np.uint8)
  red[..., 0] = 255
  assert GREY.pixels(red, "a")[0, 0, 0] == 76
  cut = DISK.pixels(untrained_run.photograph(40, 40, 1), "a")
  np.testing.assert_array_equal(cut[..., 0], cut[..., 2])


def test_pillows_images_are_read_as_their_files():
  # Turned by its metadata, and transparent: as from the file.
  image = Image.fromarray(untrained_run.photograph(40, 50, 3)).convert("RGBA")
  image.putalpha(Image.linear_gradient("L").resize((50, 40)))
  exif = Image.Exif()
  exif[0x0112] = 6
  file = io.BytesIO()
  image.save(file, "PNG", exif=exif)
  content = file.getvalue()
  want = DISK.pixels(decode.image(content, name="", max_pixels=9999), "a")
  got = DISK.pixels(Image.open(io.BytesIO(content)), "a")
  np.testing.assert_array_equal(got, want)


@pytest.mark.parametrize(
  ("shape", "problem"),
  [
    ((9, 9, 4), r"a has the shape \[9, 9, 4\]: .* 1 \(grey\) or 3 .*RGBA"),
    ((9, 9, 2), r"\[9, 9, 2\]"),
    ((9,), r"shape \[9\]"),
    ((0, 9, 3), "it has no pixel"),
  ],
)
def test_other_channels_are_refused(shape, problem):
  with pytest.raises(ValueError, match=problem):
    DISK.pixels(np.zeros(shape, np.uint8), "a")


@pytest.mark.parametrize("kind", odd_files.KINDS)
def test_what_may_have_no_end_is_a_bad_image(tmp_path, kind):
  path = odd_files.make(tmp_path / "a.png", kind)
  with pytest.raises(errors.BadImageError, match=odd_files.KINDS[kind]):
    DISK.pixels(path, "a")


def test_bad_images_are_named(tmp_path):
  with pytest.raises(errors.BadImageError, match=r"cat: it cannot be read"):
    DISK.pixels(tmp_path / "none.png", "cat")
  path = tmp_path / "a.png"
  Image.new("L", (101, 100)).save(path)
  with pytest.raises(errors.BadImageError, match=r"more than data\.max_pixels"):
    DISK.pixels(path, "cat")
  for each in (DISK, GREY):
    with pytest.raises(errors.BadImageError, match=r"cat: .*too narrow"):
      each.pixels(np.zeros((1, 99_999, 3), np.uint8), "cat")
  path.write_bytes(path.read_bytes()[:60])
  with pytest.raises(errors.BadImageError, match=r"cat: damaged"):
    DISK.pixels(Image.open(path), "cat")
