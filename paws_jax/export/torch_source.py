"""The PyTorch class of an encoder, as the text of a Python file."""

from __future__ import annotations

import dataclasses
import pathlib
import pprint
import re
from collections.abc import Mapping
from collections.abc import Sequence
from typing import Any

from paws_jax.classifier import classifier as classifier_lib
from paws_jax.models import efficientnet_lite
from paws_jax.models import vit

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
  kinds = {"resnet_tiny": "resnet", "resnet18_cifar": "small_resnet"}
  if name in vit.SHAPES:
    return "vit"
  return kinds.get(name, name.rstrip("0123456789"))


def _settings(classifier: classifier_lib.Classifier) -> dict[str, Any]:
  """Sizes of the layers, as the weights have them."""
  params, model = classifier.variables["params"], classifier.model
  projection = params.get("projection", {})
  prediction = params.get("prediction", {})
  head, classes = classifier.head is not None, len(classifier.class_names)
  layers: list[tuple[Any, ...]] = []
  if not projection:
    # Embeddings and the rows under a head are the features.
    hidden = features = classifier.support_bank.embeddings.shape[-1]
  else:
    features, hidden = projection["fc1"]["kernel"].shape
  if head:
    # The first layer, and a classifier in place of the others.
    names = ["fc1", *(["bn1"] if "bn1" in projection else []), "relu"]
    layers = _layers(projection, names) if projection else []
    layers.append(("fc2", hidden, classes, True))
  elif projection:
    layers = _layers(projection, _order(model, "projection"))
  return {
    "model": model["name"],
    **_trunk(params["trunk"], model),
    "width": model["width"],
    "features": features,
    # Linear: inputs, outputs, bias. BatchNorm: width, scale and bias.
    "projection": layers,
    "prediction": []
    if head or not prediction
    else _layers(prediction, _order(model, "prediction")),
    "head": head,
    "classes": classes,
    "temperature": float(classifier.temperature),
  }


def _order(model: Mapping[str, Any], part: str) -> list[str]:
  """Names of a head's layers in their order, as `models.heads` applies them."""
  if part == "prediction" and not model.get("prediction_hidden_dim", 0):
    return ["bn1", "fc1", "bn2", "relu", "fc2"]
  names, last, norm, final_norm = [], 2, True, False
  if part == "projection":
    last = model.get("projection_layers", 3)
    norm = model.get("projection_norm", True)
    final_norm = model.get("projection_final_norm", False)
  for number in range(1, last):
    names += [f"fc{number}", *([f"bn{number}"] if norm else []), "relu"]
  return [*names, f"fc{last}", *([f"bn{last}"] if final_norm else [])]


def _layers(
  params: Mapping[str, Any], names: Sequence[str]
) -> list[tuple[Any, ...]]:
  """Returns each layer with its sizes."""
  layers: list[tuple[Any, ...]] = []
  width = 0
  for name in names:
    if name.startswith("fc"):
      inputs, width = params[name]["kernel"].shape
      layers.append((name, inputs, width, "bias" in params[name]))
    elif name.startswith("bn"):
      leaves = params.get(name, {})
      # That of PAWS's prediction head stands before the first layer.
      size = leaves["scale"].size if leaves else width
      layers.append((name, size, bool(leaves)))
    else:
      layers.append((name,))
  return layers


def _trunk(
  trunk: Mapping[str, Any], model: Mapping[str, Any]
) -> dict[str, Any]:
  """Sizes of the trunk's layers."""
  name = model["name"]
  if name in vit.SHAPES:
    shape = vit.SHAPES[name].widened(model["width"])
    channels = trunk["patch_embed"]["kernel"].shape[2]
    hidden = {"channels": channels, "hidden": shape.hidden_dim}
    return hidden | dataclasses.asdict(shape)
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
