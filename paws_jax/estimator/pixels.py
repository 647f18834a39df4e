"""Arrays of pixels: which are images, and what to do with others."""

from __future__ import annotations

import numpy as np

from paws_jax import errors


def batch(images: np.ndarray, name: str) -> np.ndarray:
  """Returns uint8 [n, H, W, Ch] of [n, H, W] or [n, H, W, Ch].

  Raises:
    InputError: another shape or dtype; says how to convert it.
  """
  shape = images.shape
  if images.ndim == 2:
    raise errors.InputError(
      f"{name} is an array [{shape[0]}, {shape[1]}], a table of features and "
      "no images: give [n, height, width] or [n, height, width, channels]; "
      f"{name}.reshape(-1, height, width) of flattened images, and "
      f"{name}[None] of one grey image."
    )
  if images.ndim not in (3, 4):
    raise errors.InputError(
      f"{name} is an array with the shape {list(shape)}: give [n, height, "
      "width] or [n, height, width, channels]."
    )
  if images.ndim == 3 and shape[2] in (1, 3, 4) and shape[1] > 4:
    raise errors.InputError(
      f"{name} is an array with the shape {list(shape)}, which looks like one "
      f"image: give several, [n, height, width, channels]; {name}[None] is a "
      "batch of one."
    )
  if not len(images):
    raise errors.InputError(f"{name} is empty: give at least one image.")
  if images.ndim == 3:
    images = images[..., None]
  _check(images, name, "n, ")
  return images


def single(image: np.ndarray, name: str) -> np.ndarray:
  """Returns uint8 [H, W, Ch] of [H, W] or [H, W, Ch]; errors of `batch`."""
  if image.ndim == 2:
    image = image[..., None]
  if image.ndim != 3:
    raise errors.InputError(
      f"{name} is an array with the shape {list(image.shape)}: an image is "
      "[height, width] or [height, width, channels]."
    )
  _check(image, name, "")
  return image


def _check(images: np.ndarray, name: str, leading: str) -> None:
  """Refuses channels, sizes and values that no image has."""
  channels = images.shape[-1]
  shape = f"{name} has the shape {list(images.shape)}"
  if channels not in (1, 3):
    remedy = f"an image has 1 (grey) or 3 (RGB) channels, [{leading}height, "
    remedy += "width, channels]"
    if channels == 4:
      remedy += f"; of RGBA, give {name}[..., :3]"
    elif images.shape[-3] in (1, 3):
      remedy += f"; put channels last: np.moveaxis({name}, -3, -1)"
    raise errors.InputError(f"{shape}: {remedy}.")
  if 0 in images.shape:
    raise errors.InputError(f"{shape}: it has no pixel.")
  if images.dtype != np.uint8:
    raise errors.InputError(
      f"{name} has the dtype {images.dtype}{_values(images, name)}"
    )


def _values(images: np.ndarray, name: str) -> str:
  """The rest of a sentence about values that are not of uint8."""
  levels = "give levels from 0 (black) to 255 (white) as uint8"
  if images.dtype == bool:
    return f": {levels}, np.uint8(255) * {name}."
  if images.dtype.kind not in "iuf":
    return f", which is no number of a pixel: {levels}."
  low, high = images.min(), images.max()
  if not (np.isfinite(low) and np.isfinite(high)):
    return f" and values that are not finite: {levels}."
  shown = f" and values from {low:g} to {high:g}: {levels}"
  if images.dtype.kind != "f" and low >= 0 and high <= 255:
    return f"{shown}, {name}.astype(np.uint8)."
  if images.dtype.kind == "f" and low >= 0 and high <= 1:
    return f"{shown}, (255 * {name}).round().astype(np.uint8)."
  if low >= 0 and high <= 255:
    return (
      f"{shown}, {name}.round().astype(np.uint8) if that is their range, or "
      f"scale them first: (255 / white * {name}).round().astype(np.uint8)."
    )
  return (
    f"{shown}, not normalized: (255 * ({name} - black) / (white - black))"
    ".round().astype(np.uint8) with the values of black and white."
  )
