"""The accuracies of a run, out of results.json, for a report."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from collections.abc import Mapping
from collections.abc import Sequence
from typing import Any

from paws_jax.evaluation import accuracy as accuracy_lib
from paws_jax.evaluation import pixel_baselines
from paws_jax.evaluation import result_rows

# Starts of fields that no encoder has a part in, and the task of their rows.
_PIXELS, _BASELINE = "raw_pixel", result_rows.BASELINE
# Fields of a row: accuracy, on how many images, and what those are called.
_PARTS = (
  ("top1", "num_test", "test"),
  ("validation_top1", "num_validation", "validation"),
  *((f"{p}top1", "num_raw_pixel", "test") for p in pixel_baselines.TITLES),
  ("leave_one_out_top1", "num_labels", "labelled"),
)
_PROTOCOLS = {
  "top1": "",
  "validation_top1": "",
  "leave_one_out_top1": "leave-one-out",
  **{f"{p}top1": title for p, title in pixel_baselines.TITLES.items()},
}
_WORDS = {
  "soft_nn": "soft nearest neighbors",
  "knn": "nearest neighbors",
  "leave_one_out": "leave-one-out",
  "class_head": "class head",
}
# Of protocols that may stand in the headline, the first that there is.
_DECIDING = ("class_head", "soft_nn", "leave_one_out")


@dataclasses.dataclass(frozen=True)
class Accuracy:
  """One measured accuracy.

  Attributes:
    task: that measured it.
    protocol: in words.
    part: "test", "validation" or "labelled" (each judged by the others).
    count: images.
    top1: a fraction.
    interval: its 95 % interval.
    top5: a fraction; None when it was not measured.
    step: of the encoder; None when the row does not say.
  """

  task: str
  protocol: str
  part: str
  count: int
  top1: float
  interval: tuple[float, float]
  top5: float | None
  step: int | None


def accuracies(rows: Sequence[Mapping[str, Any]]) -> list[Accuracy]:
  """The newest of each kind, in the order in which they were measured.

  Args:
    rows: objects of results.json; what has no accuracy is passed over.
  """
  newest: dict[tuple[str, ...], Accuracy] = {}
  for row in rows:
    for accuracy in _accuracies(row):
      key = (accuracy.task, accuracy.protocol, accuracy.part)
      # At the end, where the newest belong.
      newest.pop(key, None)
      newest[key] = accuracy
  return list(newest.values())


def best_known(found: Sequence[Accuracy]) -> Accuracy | None:
  """What to put in the headline: the accuracy on unseen images.

  That of the vote, or of a class head that the run has trained. Of the newest
  task that measured it; without test images on the validation images, and
  without those on the labelled ones.
  """
  for part in ("test", "validation", "labelled"):
    for protocol in _DECIDING:
      measured = [
        accuracy
        for accuracy in found
        if accuracy.part == part and accuracy.protocol == _WORDS[protocol]
      ]
      if measured:
        return measured[-1]
  return None


def _accuracies(row: Mapping[str, Any]) -> Iterator[Accuracy]:
  for name, count_name, part in _PARTS:
    top1 = row.get(name)
    count = row.get(count_name, row.get("num_images", row.get("num_test")))
    if top1 is None or not count:
      continue
    interval = row.get(f"{name}_interval")
    of_pixels = name.startswith(_PIXELS)
    yield Accuracy(
      task=_BASELINE if of_pixels else str(row.get("task", "")),
      protocol=_PROTOCOLS[name] or _protocol(row),
      part=_part(row, name, part),
      count=int(count),
      top1=float(top1),
      interval=tuple(interval or accuracy_lib.confidence_interval(top1, count)),
      top5=row.get(name.replace("top1", "top5")),
      step=row.get("step", row.get("steps")),
    )


def _part(row: Mapping[str, Any], name: str, part: str) -> str:
  """Returns the images on which a field of a row was measured."""
  if name.startswith(_PIXELS):
    return row.get("raw_pixel_part", part)
  return row.get("part", part)


def _protocol(row: Mapping[str, Any]) -> str:
  """In words: a row's own title says more than the name of a protocol."""
  name = str(row.get("protocol", ""))
  if name in _DECIDING:
    return _WORDS[name]
  return str(row.get("title") or _WORDS.get(name, name))
