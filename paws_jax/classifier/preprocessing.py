"""What happens to an image before the encoder, as in a run's own evaluation.

On the host an image becomes uint8 pixels of one shape, `Preprocessing.shape`:

- Of a run on images on disk: resized and cut as `data.evaluation_images` does.
- Of a run on images in memory: an image of the training images' size stays as
  it is. Any other is resized until it covers that size, and its middle is cut.

The rest happens on the device, in the embedder of `evaluate`.
"""

from __future__ import annotations

import dataclasses
import math
import os
from collections.abc import Mapping
from typing import TYPE_CHECKING
from typing import Any

import numpy as np

from paws_jax import config as config_lib
from paws_jax import errors
from paws_jax.config import fields
from paws_jax.data.host import decode
from paws_jax.data.host import evaluation_images
from paws_jax.data.host import open_image
from paws_jax.runs import files as files_lib

if TYPE_CHECKING:
  import PIL.Image

_SHAPE = (
  "height, width (at most 16384) and 1 or 3 channels",
  lambda x: len(x) == 3 and all(map(fields.SIDE[1], x)) and x[2] in (1, 3),
)
_MEAN = ("numbers from -1e6 to 1e6", lambda x: all(abs(v) <= 1e6 for v in x))
_STD = ("numbers from 1e-6 to 1e6", lambda x: all(1e-6 <= v <= 1e6 for v in x))
_REMEDY = "Repair it, or leave it out"


@dataclasses.dataclass(frozen=True)
class Preprocessing(fields.Section):
  """Settings of a run that decide what its encoder sees.

  Attributes:
    on_disk: whether the run's images are files, resized on the host.
    shape: (height, width, channels) of an image on its way to the device.
    image_size: `data.image_size`, for images in memory.
    eval_resize: `views.eval_resize`.
    large_size: side of the crop that is embedded; a name of version 0.1.0.
    mean: `views.mean`.
    std: `views.std`.
    max_pixels: `data.max_pixels`; an image of more is a bad one.
    white_level: `data.white_level`, of files and of Pillow images.
  """

  on_disk: bool
  shape: tuple[int, int, int] = fields.required(_SHAPE)
  image_size: int = fields.required(fields.SIDE_OR_0)
  eval_resize: int = fields.required(fields.SIDE_OR_0)
  large_size: int = fields.required(fields.SIDE)
  mean: tuple[float, ...] = fields.required(_MEAN)
  std: tuple[float, ...] = fields.required(_STD)
  max_pixels: int = fields.required(fields.AT_LEAST_ONE)
  white_level: int = fields.field(0, fields.between(0, 65535))

  def check(self) -> None:
    """Refuses fields that do not belong together."""
    if not len(self.mean) == len(self.std) == self.channels:
      raise errors.InputError(
        f"preprocessing has {len(self.mean)} numbers in mean and "
        f"{len(self.std)} in std: an image has {self.channels} channels."
      )
    side = self.large_size
    if self.on_disk and self.shape != (side, side, 3):
      raise errors.InputError(
        f"preprocessing.shape is {list(self.shape)} and on_disk is True: it "
        f"must be [{side}, {side}, 3], as large_size says."
      )
    short = self.eval_resize
    if not self.on_disk:
      short = short or self.image_size or min(self.shape[:2])
    if short < side:
      raise errors.InputError(
        f"preprocessing.large_size is {side}, but shape, image_size and "
        f"eval_resize leave a short side of {short} pixels."
      )

  @property
  def channels(self) -> int:
    """Of an image: 1 or 3."""
    return self.shape[2]

  @property
  def on_device(self) -> config_lib.EvalView:
    """What is left to be done there."""
    return config_lib.EvalView(
      eval_resize=0 if self.on_disk else self.eval_resize,
      eval_size=self.large_size,
      mean=self.mean,
      std=self.std,
    )

  def as_json(self) -> dict[str, Any]:
    """JSON-serializable; `Preprocessing(**...)` undoes it."""
    stored = dataclasses.asdict(self)
    if not self.white_level:
      # Other classifiers keep their digest, and earlier versions read them.
      del stored["white_level"]
    return stored

  def pixels(self, item: Any, name: str) -> np.ndarray:
    """Brings an image to `shape`.

    Args:
      item: a path; a Pillow image; or uint8 [h, w] or [h, w, Ch].
      name: of the image, for messages.

    Returns:
      uint8 `shape`.

    Raises:
      errors.BadImageError: when it cannot be read, or is too narrow.
      ValueError: for channels other than 1 or 3.
    """
    rgb_or_grey = self._with_channels(self._read(item, name), name)
    if not self.on_disk and rgb_or_grey.shape == self.shape:
      return rgb_or_grey
    short = self.eval_resize if self.on_disk else max(self.shape[:2])
    reason = evaluation_images.too_narrow(*rgb_or_grey.shape[:2], resize=short)
    if reason:
      raise errors.BadImageError(name, reason, remedy=_REMEDY)
    if self.on_disk:
      return evaluation_images.resize_and_crop(
        rgb_or_grey, resize=self.eval_resize, size=self.large_size
      )
    return cover(rgb_or_grey, *self.shape[:2])

  def _read(self, item: Any, name: str) -> np.ndarray:
    """uint8 [h, w, Ch] or [h, w]."""
    if isinstance(item, np.ndarray):
      return item
    if not isinstance(item, (str, os.PathLike)):
      return _from_pillow(item, name, self.white_level)
    try:
      content = files_lib.read_bytes(os.fspath(item))
    except (OSError, ValueError) as error:
      # A path with a NUL is a ValueError.
      reason = f"it cannot be read ({getattr(error, 'strerror', 0) or error})"
      raise errors.BadImageError(name, reason, remedy=_REMEDY) from error
    return decode.image(
      content,
      name=name,
      max_pixels=self.max_pixels,
      white_level=self.white_level,
    )

  def _with_channels(self, pixels: np.ndarray, name: str) -> np.ndarray:
    """[h, w, channels] of [h, w], [h, w, 1] or [h, w, 3]."""
    if pixels.ndim == 2:
      pixels = pixels[..., None]
    check_shape(pixels.shape, name)
    if pixels.shape[2] == self.channels:
      return pixels
    if self.channels == 1:
      return np.asarray(_image(pixels).convert("L"))[..., None]
    return np.repeat(pixels, self.channels, axis=2)


def from_json(values: Mapping[str, Any]) -> Preprocessing:
  """What `Preprocessing.as_json` has made.

  Raises:
    InputError: naming a field that is missing, unknown or out of its range.
  """
  names = {field.name for field in dataclasses.fields(Preprocessing)}
  needed = {
    field.name
    for field in dataclasses.fields(Preprocessing)
    if field.default is dataclasses.MISSING
  }
  missing, unknown = sorted(needed - {*values}), sorted({*values} - names)
  if missing or unknown:
    kind, name = ("no", missing[0]) if missing else ("an unknown", unknown[0])
    raise errors.InputError(f"preprocessing has {kind} field {name[:40]}.")
  made = Preprocessing(**values)
  fields.check(made, "preprocessing")
  return made


def from_run(recipe: config_lib.Recipe, dataset: Any) -> Preprocessing:
  """The preprocessing of a run's evaluation.

  Args:
    recipe: its recipe.
    dataset: its `dataset.Dataset`.
  """
  view = recipe.views.evaluation
  height, width, channels = dataset.labelled.images.shape[1:]
  return Preprocessing(
    on_disk=not dataset.in_memory,
    shape=(int(height), int(width), int(channels)),
    image_size=recipe.data.image_size if dataset.in_memory else 0,
    eval_resize=view.eval_resize,
    large_size=view.eval_size,
    mean=view.mean,
    std=view.std,
    max_pixels=recipe.data.max_pixels,
    white_level=recipe.data.white_level,
  )


def check_shape(shape: tuple[int, ...], name: str) -> None:
  """Refuses what is not [h, w, 1] or [h, w, 3], or has no pixel."""
  if len(shape) != 3 or shape[2] not in (1, 3):
    raise errors.InputError(
      f"{name} has the shape {list(shape)}: an image is [height, width, "
      "channels] with 1 (grey) or 3 (RGB) channels; of RGBA, give the first "
      "three."
    )
  if not all(shape):
    raise errors.InputError(
      f"{name} has the shape {list(shape)}: it has no pixel."
    )


def cover(pixels: np.ndarray, height: int, width: int) -> np.ndarray:
  """Resizes until both sides are covered, and cuts out the middle.

  Args:
    pixels: uint8 [h, w, 1 or 3].
    height: of the result.
    width: of the result.

  Returns:
    uint8 [height, width, 1 or 3].
  """
  from PIL import Image

  tall, wide = pixels.shape[:2]
  scale = max(height / tall, width / wide)
  # At least as large, whatever rounding does.
  target = (
    max(width, math.floor(wide * scale)),
    max(height, math.floor(tall * scale)),
  )
  image = _image(pixels)
  if image.size != target:
    image = image.resize(target, Image.Resampling.BILINEAR)
  left, top = (target[0] - width) // 2, (target[1] - height) // 2
  cut = np.asarray(image.crop((left, top, left + width, top + height)))
  return cut.reshape(height, width, pixels.shape[2])


def _image(pixels: np.ndarray) -> PIL.Image.Image:
  """Pillow's image of uint8 [h, w, 1 or 3]."""
  from PIL import Image

  grey = pixels.shape[2] == 1
  return Image.fromarray(
    np.ascontiguousarray(pixels[..., 0] if grey else pixels)
  )


def _from_pillow(
  image: PIL.Image.Image, name: str, white_level: int
) -> np.ndarray:
  """uint8 [h, w, 3], as if the image had been read from its file."""
  try:
    return np.asarray(decode.upright_rgb(image, 0, white_level=white_level))
  except Exception as error:
    # Pillow reads a file that has been opened only now.
    reason = open_image.reason(error, image.size)
    raise errors.BadImageError(name, reason, remedy=_REMEDY) from error
