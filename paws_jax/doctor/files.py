"""Findings about files: unreadable images, their sizes and duplicates."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from paws_jax import config as config_lib
from paws_jax import text as text_lib
from paws_jax.data.sources import catalog
from paws_jax.data.sources import folders
from paws_jax.doctor import findings
from paws_jax.doctor import inspect

_MAX_PAIRS = 20
# Names of groups that are not used in messages.
_TITLES = {"val": "validation"}


def other_files(report: findings.Report, listing: catalog.Catalog) -> None:
  """Reports what lies among the images and is not read."""
  for notice in listing.notices:
    report.say(notice)
  if not listing.other_files:
    return
  kinds = sorted(listing.other_files.items(), key=lambda one: (-one[1], one[0]))
  total = text_lib.count(sum(listing.other_files.values()), "file")
  report.say(
    f"{total} in other formats among the images: "
    + text_lib.first_few(
      f"{number:,} {suffix or 'without a suffix'}" for suffix, number in kinds
    )
  )
  for notice in folders.notices(listing.other_files):
    report.warning(notice)


def image_files(
  report: findings.Report,
  groups: Sequence[inspect.Group],
  checks: dict[str, list[inspect.ImageCheck]],
  recipe: config_lib.Recipe,
  class_names: Sequence[str],
) -> None:
  """Reports images that cannot be read, are enlarged, or are reduced."""
  for group in groups:
    found = checks[group.name]
    is_sample = len(found) < group.num_images
    report.say(
      f"{_title(group.name)} images: {len(found):,}"
      + (f" of {group.num_images:,}, evenly spaced," if is_sample else "")
      + " read"
      + _median_size(found)
    )
    _unreadable(report, group, found, recipe.data.on_bad_image, class_names)
  if recipe.data.pipeline != "host":
    return
  everything = [check for group in groups for check in checks[group.name]]
  sizes = np.array(
    [(one.height, one.width) for one in everything if one.height]
  )
  sizes = sizes.reshape(-1, 2)
  name, crop = recipe.views.evaluation_size
  canvas = recipe.data.canvas_size
  num_small = int((sizes.min(axis=1) < crop).sum())
  num_large = int((sizes.max(axis=1) > canvas).sum())
  if num_small:
    report.say(
      f"{text_lib.count(num_small, 'image')} with a side shorter than "
      f"{name} = {crop}: crops are enlarged"
    )
  if num_large:
    text = (
      f"{text_lib.count(num_large, 'image')} with a side longer than "
      f"data.canvas_size = {canvas}: reduced to it before crops are cut"
    )
    if canvas < crop:
      report.warning(
        f"{text}, and the crops enlarged again to {name} = {crop}. Raise "
        f"data.canvas_size, best to {2 * crop}"
      )
    else:
      report.say(text)


def _title(group_name: str) -> str:
  return _TITLES.get(group_name, group_name)


def _median_size(checks: Sequence[inspect.ImageCheck]) -> str:
  """Returns e.g. ", median size 500 x 375 pixels"; "" without an image."""
  sizes = [(one.width, one.height) for one in checks if one.height]
  if not sizes:
    return ""
  width, height = np.median(np.array(sizes), axis=0)
  return f", median size {width:.0f} x {height:.0f} pixels"


def _unreadable(
  report: findings.Report,
  group: inspect.Group,
  checks: Sequence[inspect.ImageCheck],
  on_bad_image: str,
  class_names: Sequence[str],
) -> None:
  """Reports the images of a group that cannot be read, each with a reason."""
  bad = [place for place, check in enumerate(checks) if check.reason]
  if not bad:
    return
  names = [
    f"{group.images.name(int(group.rows[k]))} ({checks[k].reason})" for k in bad
  ]
  in_one_line = len(names) <= text_lib.MOST_LISTED
  images = text_lib.count(len(bad), f"{_title(group.name)} image")
  text = f"{images} cannot be read"
  text += f": {', '.join(names)}" if in_one_line else ", listed below"
  if group.name in ("val", "test"):
    report.problem(f"{text}. Repair or remove them")
  elif on_bad_image == "error":
    report.problem(
      f"{text}. Repair or remove them, or train without them: "
      "--config.data.on_bad_image=skip"
    )
  else:
    report.warning(f"{text}. data.on_bad_image is 'skip': others replace them")
    if group.name == "labelled":
      _lost_classes(report, group, bad, class_names)
  for name in () if in_one_line else names:
    report.say(f"  {name}")


def _lost_classes(
  report: findings.Report,
  group: inspect.Group,
  bad: Sequence[int],
  class_names: Sequence[str],
) -> None:
  """Reports classes without a readable labelled image to replace others."""
  good = np.setdiff1d(np.arange(len(group.rows)), bad)
  lost = np.setdiff1d(group.labels, group.labels[good])
  if len(lost):
    names = text_lib.first_few(repr(class_names[k]) for k in lost)
    classes = text_lib.count(len(lost), "class", "classes")
    report.problem(
      f"{classes} without a readable labelled image: {names}. Label other "
      "images of them"
    )


def duplicates(
  report: findings.Report, found: Sequence[inspect.Duplicates]
) -> None:
  """Reports images with equal bytes where they do harm."""
  for first, second, pairs, one_class in found:
    listed = text_lib.first_few(
      (f"{a!r} = {b!r}" for a, b in pairs), most=_MAX_PAIRS
    )
    if one_class:
      report.warning(
        f"{text_lib.count(len(pairs), 'labelled image')} with the contents of "
        f"another one of the same class: {listed}. A copy adds nothing to "
        "learn from: remove it, and count labels without copies. "
        "Where labelled images judge each other (leave-one-out, hold-outs, "
        "probes), copies are kept together"
      )
    elif first == second:
      report.warning(
        f"{text_lib.count(len(pairs), 'labelled image')} with equal contents "
        f"and another label: {listed}. Keep the one with the right label"
      )
    else:
      report.warning(
        f"{text_lib.count(len(pairs), 'image')} among both the "
        f"{_title(first)} and the {_title(second)} images: {listed}. Accuracy "
        "on images that were also trained on is too high: remove them from one "
        "of the two"
      )
  if not found:
    report.say("no duplicates between training, validation and test images")
