"""What `--task=doctor` says of files: those it cannot read, and repeats."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from paws_jax import text as text_lib
from paws_jax.data.sources import catalog
from paws_jax.data.sources import folders
from paws_jax.doctor import findings
from paws_jax.doctor import inspect

_MOST_PAIRS_LISTED = 20


def other_files(report: findings.Report, found: catalog.Catalog) -> None:
  """Files among the images that are not read, by their suffix."""
  if not found.other_files:
    return
  kinds = sorted(found.other_files.items(), key=lambda one: (-one[1], one[0]))
  total = findings.count(sum(found.other_files.values()), "file")
  report.say(
    f"{total} of other kinds among the images: "
    + text_lib.first_few(
      f"{number:,} {suffix or 'without a suffix'}" for suffix, number in kinds
    )
  )
  for notice in folders.notices(found.other_files):
    report.warning(notice)


def image_files(
  report: findings.Report,
  groups: Sequence[inspect.Group],
  seen: dict[str, list[inspect.ImageCheck]],
  config: Any,
  class_names: Sequence[str],
) -> None:
  """Images that cannot be read, that are small, or that are reduced."""
  for group in groups:
    looked = seen[group.name]
    some = len(looked) < group.num_images
    report.say(
      f"{group.name}: {len(looked):,} images read"
      + (f" of {group.num_images:,}, evenly spread" if some else "")
      + _sizes(looked)
    )
    _unreadable(report, group, looked, config.data.on_bad_image, class_names)
  if config.data.pipeline != "host":
    return
  everything = [one for group in groups for one in seen[group.name]]
  sizes = np.array([one[1:3] for one in everything if one.height])
  sizes = sizes.reshape(-1, 2)
  crop, canvas = config.views.large_size, config.data.canvas_size
  num_small = int((sizes.min(axis=1) < crop).sum())
  num_large = int((sizes.max(axis=1) > canvas).sum())
  if num_small:
    report.say(
      f"{num_small:,} of them have a side shorter than views.large_size = "
      f"{crop}: their crops are enlarged"
    )
  if num_large:
    text = (
      f"{num_large:,} of them have a side longer than data.canvas_size = "
      f"{canvas}: they are reduced once before crops are cut"
    )
    if canvas < crop:
      report.warning(
        f"{text}, and crops enlarged again to views.large_size = {crop}: raise "
        f"canvas_size, best to {2 * crop}"
      )
    else:
      report.say(text)


def _sizes(looked: Sequence[inspect.ImageCheck]) -> str:
  """E.g. ", 500 x 375 pixels in the middle" (the medians)."""
  sizes = [(one.width, one.height) for one in looked if one.height]
  if not sizes:
    return ""
  width, height = np.median(np.array(sizes), axis=0)
  return f", median size {width:.0f} x {height:.0f} pixels"


def _unreadable(
  report: findings.Report,
  group: inspect.Group,
  looked: Sequence[inspect.ImageCheck],
  on_bad_image: str,
  class_names: Sequence[str],
) -> None:
  bad = [place for place, one in enumerate(looked) if one.reason]
  if not bad:
    return
  named = [
    f"{group.images.name(int(group.rows[k]))} ({looked[k].reason})" for k in bad
  ]
  in_one_line = len(named) <= text_lib.MOST_LISTED
  text = f"{findings.count(len(bad), group.name + ' image')} cannot be read"
  text += f": {', '.join(named)}" if in_one_line else ", as listed below"
  if group.name in ("val", "test"):
    report.problem(f"{text}. Repair or remove what cannot be evaluated")
  elif on_bad_image == "error":
    report.problem(
      f"{text}. Repair or remove them, or train without with "
      "--config.data.on_bad_image=skip"
    )
  else:
    report.warning(f"{text}. data.on_bad_image is 'skip': others stand in")
    if group.name == "labelled":
      _lost_classes(report, group, bad, class_names)
  for name in () if in_one_line else named:
    report.say(f"  {name}")


def _lost_classes(
  report: findings.Report,
  group: inspect.Group,
  bad: Sequence[int],
  class_names: Sequence[str],
) -> None:
  """Classes all of whose labelled images are bad: nothing can stand in."""
  good = np.setdiff1d(np.arange(len(group.rows)), bad)
  lost = np.setdiff1d(group.labels, group.labels[good])
  if len(lost):
    names = text_lib.first_few(repr(class_names[k]) for k in lost)
    classes = findings.count(len(lost), "class", "classes")
    report.problem(
      f"of {classes} no labelled image can be read: {names}. Label others"
    )


def duplicates(
  report: findings.Report, shared: Sequence[inspect.Duplicates]
) -> None:
  """Images that occur where they should not, by the hash of their bytes."""
  for first, second, pairs in shared:
    listed = text_lib.first_few(
      (f"{a!r} = {b!r}" for a, b in pairs), most=_MOST_PAIRS_LISTED
    )
    if first == second:
      report.warning(
        f"{findings.count(len(pairs), 'labelled image')} occur again under "
        f"another label: {listed}. Keep the right one"
      )
    else:
      report.warning(
        f"{findings.count(len(pairs), 'image')} occur both as {first} and as "
        f"{second}: {listed}. An accuracy on images trained on says little: "
        "remove them from one of the two"
      )
  if not shared:
    report.say("no image occurs twice where it must not")
