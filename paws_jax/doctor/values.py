"""Findings about the values of pixels: parts of their range, single values."""

from __future__ import annotations

from collections.abc import Iterator
from collections.abc import Sequence
from typing import NamedTuple

from paws_jax import config as config_lib
from paws_jax import text as text_lib
from paws_jax.data.host import pixel_values
from paws_jax.doctor import findings
from paws_jax.doctor import inspect

# Images that use less than this part of the values are nearly of one tone.
_SLIVER = 1 / 16
# Files that use no more than this part need a white level.
_DARK = 1 / 4
# As long as fewer are concerned, it is no warning.
_FEW = 0.05


class _Image(NamedTuple):
  name: str
  values: pixel_values.ValueRange


def value_ranges(
  report: findings.Report,
  groups: Sequence[inspect.Group],
  checks: dict[str, list[inspect.ImageCheck]],
  section: config_lib.Data,
) -> None:
  """Reports images of one value, and files that use a part of their range.

  Args:
    report: receives the findings.
    groups: the images by purpose.
    checks: results of reading them, by name of the group.
    section: section `data` of the recipe.
  """
  by_largest: dict[int, list[_Image]] = {}
  constant = []
  for image in _readable(groups, checks):
    by_largest.setdefault(image.values.largest, []).append(image)
    if image.values.low == image.values.high:
      constant.append(image)
  for largest, images in sorted(by_largest.items()):
    _one_depth(report, largest, images, section)
  if constant:
    listed = text_lib.first_few(
      f"{image.name} ({image.values.low:,})" for image in constant
    )
    report.warning(
      f"{text_lib.count(len(constant), 'image')} of a single value: {listed}. "
      "Remove them if they are blank by mistake"
    )


def _readable(
  groups: Sequence[inspect.Group],
  checks: dict[str, list[inspect.ImageCheck]],
) -> Iterator[_Image]:
  for group in groups:
    for row, check in zip(group.rows, checks[group.name], strict=True):
      if check.values is not None:
        yield _Image(group.images.name(int(row)), check.values)


def _one_depth(
  report: findings.Report,
  largest: int,
  images: Sequence[_Image],
  section: config_lib.Data,
) -> None:
  """Reports the files whose samples can hold values up to `largest`."""
  low = min(image.values.low for image in images)
  high = max(image.values.high for image in images)
  files = text_lib.count(len(images), "image")
  report.say(f"values of {files} of up to {largest:,}: {low:,} to {high:,}")
  level = section.white_level
  white = level if 0 < level <= largest else largest
  beyond = [image for image in images if image.values.high > white]
  if beyond:
    _report(
      report,
      f"{text_lib.count(len(beyond), 'image')} with values above "
      f"data.white_level = {white:,}, up to {high:,}: they become white",
      is_common=len(beyond) > _FEW * len(images),
    )
  if 0 < high <= _DARK * white:
    white = _propose(report, files, high, white, section)
  slivers = [
    image
    for image in images
    if 0 < image.values.high - image.values.low < _SLIVER * white
  ]
  if slivers:
    listed = text_lib.first_few(
      f"{image.name} ({image.values.low:,} to {image.values.high:,})"
      for image in slivers
    )
    _report(
      report,
      f"{text_lib.count(len(slivers), 'image')} with less than a sixteenth of "
      f"the values from 0 to {white:,}, nearly of one tone: {listed}. If they "
      "show more than that, save them with the range spread over all values",
      is_common=len(slivers) > _FEW * len(images),
    )


def _propose(
  report: findings.Report,
  files: str,
  high: int,
  white: int,
  section: config_lib.Data,
) -> int:
  """Warns of files that are nearly black; returns the level of white for them.

  Of deep files it is the largest value of as many bits as are used.
  """
  bits = high.bit_length()
  level = high if white <= 255 else 2 ** max(bits, 8) - 1
  remedy = f"set --config.data.white_level={level}"
  if section.pipeline != "host":
    remedy = f"multiply the images by {white / level:.3g}"
  used = f"({bits} bits)" if white > 255 else ""
  report.warning(
    f"{files} without a value above {high:,} {used}".rstrip()
    + f", where {white:,} is white: the network sees them nearly black, with "
    f"at most {high * 255 // white + 1} of 256 levels. If {level:,} is white, "
    f"{remedy}"
  )
  return level


def _report(report: findings.Report, text: str, *, is_common: bool) -> None:
  """Reports what is no fault of the data as long as it is rare."""
  if is_common:
    report.warning(text)
  else:
    report.say(text)
