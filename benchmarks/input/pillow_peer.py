"""What Pillow does to images, to compare with."""

from __future__ import annotations

import io
from collections.abc import Callable

import numpy as np
from PIL import Image
from PIL import ImageEnhance
from PIL import ImageFilter
from PIL import ImageOps

from paws_jax.data.sources import catalog

_MEAN, _STD = (
  np.float32([0.485, 0.456, 0.406]),
  np.float32([0.229, 0.224, 0.225]),
)


def operations(
  views: np.ndarray,
  canvas: np.ndarray,
  boxes: np.ndarray,
  rng: np.random.Generator,
) -> dict[str, Callable[[], object]]:
  """Each operation on all images, one image after another.

  Args:
    views: uint8 [n, s, s, 3], for all but crops.
    canvas: uint8 [n, H, W, 3], to cut crops of s x s pixels from.
    boxes: int [n, 4] top, left, height, width of the crops.
    rng: for how strong the operations are.
  """
  side = views.shape[1]
  whole = [Image.fromarray(pixels) for pixels in canvas]
  images = [Image.fromarray(pixels) for pixels in views]
  factor = float(rng.uniform(0.2, 1.8))

  def crop():
    for image, (top, left, height, width) in zip(whole, boxes, strict=True):
      image.resize(
        (side, side),
        Image.Resampling.BILINEAR,
        box=(left, top, left + width, top + height),
      )

  def each(operation):
    return lambda: [operation(image) for image in images]

  blur = ImageFilter.GaussianBlur(float(rng.uniform(0.1, 2.0)))
  return {
    "crop": crop,
    "brightness": each(lambda i: ImageEnhance.Brightness(i).enhance(factor)),
    "contrast": each(lambda i: ImageEnhance.Contrast(i).enhance(factor)),
    "saturation": each(lambda i: ImageEnhance.Color(i).enhance(factor)),
    "hue": each(lambda i: _shift_hue(i, 30)),
    "greyscale": each(lambda i: i.convert("L").convert("RGB")),
    "blur": each(lambda i: i.filter(blur)),
    "solarize": each(lambda i: ImageOps.solarize(i, 128)),
    "equalize": each(ImageOps.equalize),
  }


def _shift_hue(image: Image.Image, levels: int) -> Image.Image:
  """Turns hues by so many of Pillow's 256 levels of a circle."""
  hue, saturation, value = image.convert("HSV").split()
  # Wraps around, as a circle does.
  shifted = Image.fromarray(np.asarray(hue) + np.uint8(levels % 256))
  return Image.merge("HSV", (shifted, saturation, value)).convert("RGB")


class Loader:
  """Crops and colours of an image, one after another, on one core."""

  def __init__(self, files: catalog.Files):
    self._files = files
    self._rng = np.random.default_rng(0)
    self._row = 0

  def run(self, num_images: int) -> int:
    """Loads images; how many."""
    for _ in range(num_images):
      content = self._files.read(self._row % len(self._files))
      self._row += 1
      image = Image.open(io.BytesIO(content)).convert("RGB")
      for _ in range(2):
        self._view(image, 224, (0.14, 1.0))
      for _ in range(6):
        self._view(image, 96, (0.05, 0.14))
    return num_images

  def _view(
    self, image: Image.Image, side: int, scale: tuple[float, float]
  ) -> np.ndarray:
    rng = self._rng
    box = self._box(image.size, scale)
    view = image.crop(box).resize((side, side), Image.Resampling.BILINEAR)
    if rng.random() < 0.5:
      view = ImageOps.mirror(view)
    if rng.random() < 0.8:
      view = self._jitter(view)
    if rng.random() < 0.2:
      view = view.convert("L").convert("RGB")
    if rng.random() < 0.5:
      radius = rng.uniform(0.1, 2.0)
      view = view.filter(ImageFilter.GaussianBlur(radius))
    pixels = np.asarray(view, np.float32) / 255
    return ((pixels - _MEAN) / _STD).transpose(2, 0, 1).copy()

  def _box(
    self, size: tuple[int, int], scale: tuple[float, float]
  ) -> tuple[int, int, int, int]:
    rng, (width, height) = self._rng, size
    for _ in range(10):
      area = rng.uniform(*scale) * width * height
      ratio = np.exp(rng.uniform(np.log(3 / 4), np.log(4 / 3)))
      w, h = round((area * ratio) ** 0.5), round((area / ratio) ** 0.5)
      if 0 < w <= width and 0 < h <= height:
        left = int(rng.integers(0, width - w + 1))
        top = int(rng.integers(0, height - h + 1))
        return left, top, left + w, top + h
    return 0, 0, width, height

  def _jitter(self, view: Image.Image) -> Image.Image:
    rng = self._rng
    enhancers = (
      ImageEnhance.Brightness,
      ImageEnhance.Contrast,
      ImageEnhance.Color,
    )
    for k in rng.permutation(4):
      if k < 3:
        view = enhancers[k](view).enhance(rng.uniform(0.2, 1.8))
        continue
      view = _shift_hue(view, int(rng.uniform(-0.2, 0.2) * 255))
    return view
