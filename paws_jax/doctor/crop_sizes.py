"""Advice on sizes of crops, canvases and evaluation images."""

from __future__ import annotations

from collections.abc import Mapping
from collections.abc import Sequence

import numpy as np

from paws_jax import config as config_lib
from paws_jax import text
from paws_jax.doctor import findings
from paws_jax.doctor import inspect

# A crop of this size shows what networks for photographs are made for.
_PHOTOGRAPH = 224
# Networks halve the side several times.
_LEAST = 16
_MULTIPLE = 8
# Images are small if crops can be this much smaller; large if they have as
# many times the side of a crop; canvases are large beyond as many times.
_SMALLER, _LARGER, _CANVAS = 0.8, 4, 4
# Of the short side after resizing for evaluation, the center that is cut: 224
# of 256. Less than this share is too little.
_CENTER, _LEAST_CENTER = 224 / 256, 2 / 3
# Share of the images that a canvas should hold without reducing them.
_HELD = 0.95


def advise(
  report: findings.Report,
  recipe: config_lib.Recipe,
  checks: Mapping[str, Sequence[inspect.ImageCheck]],
) -> None:
  """Reports the sizes to set where images are much smaller or larger.

  Args:
    report: receives the findings.
    recipe: a valid recipe.
    checks: results of reading the images, by group.
  """
  sizes = np.array(
    [(c.height, c.width) for some in checks.values() for c in some if c.height]
  ).reshape(-1, 2)
  if not len(sizes):
    return
  short = float(np.median(sizes.min(axis=1)))
  long = float(np.quantile(sizes.max(axis=1), _HELD))
  on_disk = recipe.data.pipeline == "host"
  if not on_disk and recipe.data.image_size:
    short = long = recipe.data.image_size
  name, crop = recipe.views.evaluation_size
  better = better_crop(short, crop)
  if better < crop:
    report.say(
      f"small images (short side {short:.0f} pixels): {name} = {crop} only "
      f"enlarges them, at {text.rounded((crop / better) ** 2)} times the work "
      f"of crops of {better}. If the network suits such crops, set"
    )
  elif better > crop:
    report.say(
      f"large images (short side {short:.0f} pixels): {name} = {crop} leaves "
      "out fine details. If classes differ by those, and steps may take about "
      f"{text.rounded((better / crop) ** 2)} times as long, set"
    )
  flags = _sizes(recipe, better, short, long) if better != crop else {}
  if not flags:
    flags = _others(report, recipe, crop, short, long)
  if flags:
    report.say(
      "  " + " ".join(f"--config.{k}={value}" for k, value in flags.items())
    )


def better_crop(short: float, crop: int) -> int:
  """Returns the side of crops that suits images, or `crop` if it is near.

  Args:
    short: median of the short sides of the images, in pixels.
    crop: side of the crops.
  """
  down = max(_LEAST, int(short) // _MULTIPLE * _MULTIPLE)
  if down <= _SMALLER * crop:
    return down
  if short >= _LARGER * crop and crop < _PHOTOGRAPH:
    return min(_PHOTOGRAPH, int(short) // 2 // _MULTIPLE * _MULTIPLE)
  return crop


def _sizes(
  recipe: config_lib.Recipe, better: int, short: float, long: float
) -> dict[str, int]:
  """Returns the fields to set, with their values, for crops of `better`."""
  views = recipe.views
  _, crop = views.evaluation_size
  fields = {}
  for name, spec in views.specs.items():
    if spec.count:
      size = round(spec.size * better / crop / _MULTIPLE) * _MULTIPLE
      fields[f"views.{name}.size"] = max(_MULTIPLE, size)
  if views.eval_size:
    fields["views.eval_size"] = better
  fields["views.eval_resize"] = _resize(better, short)
  if recipe.data.pipeline == "host":
    fields["data.canvas_size"] = _canvas(better, long)
  return fields


def _others(
  report: findings.Report,
  recipe: config_lib.Recipe,
  crop: int,
  short: float,
  long: float,
) -> dict[str, int]:
  """Reports a canvas or an evaluation that does not suit crops that do."""
  fields = {}
  resize, canvas = recipe.views.eval_resize, recipe.data.canvas_size
  if crop < _LEAST_CENTER * (resize or short):
    report.say(
      f"the evaluation sees the center of an image, {crop} of "
      f"{resize or short:.0f} pixels (views.eval_resize). To see more of it, "
      "set"
    )
    fields["views.eval_resize"] = _resize(crop, short)
  if recipe.data.pipeline != "host":
    return fields
  wanted = _canvas(crop, long)
  if canvas > _CANVAS * crop and canvas > wanted:
    report.say(
      f"data.canvas_size = {canvas} takes memory and transport of images "
      f"that crops of {crop} pixels do not need. To save them, set"
    )
    fields["data.canvas_size"] = wanted
  return fields


def _resize(crop: int, short: float) -> int:
  """Returns the short side of an image of which the center is cut."""
  return crop if short <= crop else round(crop / _CENTER)


def _canvas(crop: int, long: float) -> int:
  """Returns the side of a canvas from which crops are not enlarged much."""
  held = -(-int(long) // 32) * 32
  return max(crop, min(2 * crop, held))
