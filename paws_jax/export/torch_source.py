"""The PyTorch class of an encoder, as the text of a Python file."""

from __future__ import annotations

import pathlib
import pprint
import re
from collections.abc import Mapping
from typing import Any

from paws_jax.classifier import classifier as classifier_lib
from paws_jax.models import efficientnet_lite

# Common parts, and one section for each kind of trunk.
_TEMPLATE = pathlib.Path(__file__).with_name("torch_encoder.py.txt")


def text(classifier: classifier_lib.Classifier) -> str:
  """Returns the source of a module with `Encoder` and `load`."""
  parts = re.split(
    r"^# -- (\w+)\n", _TEMPLATE.read_text(encoding="utf-8"), flags=re.M
  )
  start, sections = parts[0], dict(zip(parts[1::2], parts[2::2], strict=True))
  values = pprint.pformat(_settings(classifier), sort_dicts=False)
  start = start.replace("SETTINGS = {}", f"SETTINGS = {values}")
  return start + sections[_kind(classifier.model["name"])] + sections["end"]


def _kind(name: str) -> str:
  """Returns the section of the trunk of a `model.name`."""
  return "resnet" if name == "resnet_tiny" else name.rstrip("0123456789")


def _settings(classifier: classifier_lib.Classifier) -> dict[str, Any]:
  """Sizes of the layers, as the weights have them."""
  params = classifier.variables["params"]
  trunk, projection = params["trunk"], params["projection"]
  head = classifier.head is not None
  features, hidden = projection["fc1"]["kernel"].shape
  return {
    "model": classifier.model["name"],
    **_trunk(trunk, classifier.model),
    "width": classifier.model["width"],
    "features": features,
    "hidden": hidden,
    "outputs": projection["fc3"]["kernel"].shape[-1],
    "prediction": "prediction" in params and not head,
    "head": head,
    "classes": len(classifier.class_names),
    "temperature": float(classifier.temperature),
  }


def _trunk(
  trunk: Mapping[str, Any], model: Mapping[str, Any]
) -> dict[str, Any]:
  """Sizes of the trunk's layers."""
  name = model["name"]
  first = "conv_stem" if name.startswith("efficientnet") else "conv1"
  *_, channels, stem = trunk[first]["kernel"].shape
  sizes = {"channels": channels, "stem": stem}
  if first == "conv1":
    return sizes | {"stages": _stages(trunk)}
  # (kernel, stride, expansion, output channels) of each block.
  blocks = [
    (
      stage.kernel,
      1 if repeat else stage.stride,
      stage.expansion,
      stage.width * model["width"],
    )
    for stage in efficientnet_lite.STAGES[name]
    for repeat in range(stage.repeats)
  ]
  return sizes | {"blocks": blocks}


def _stages(trunk: Mapping[str, Any]) -> list[int]:
  """Number of blocks in each stage, of layers "layer1_0", "layer1_1" ..."""
  found = [re.fullmatch(r"layer(\d+)_\d+", name) for name in trunk]
  stages = [int(match[1]) for match in found if match]
  return [stages.count(number) for number in range(1, max(stages) + 1)]
