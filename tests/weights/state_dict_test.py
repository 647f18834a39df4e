"""Finding the encoder in what a training script has saved."""

import numpy as np
import pytest

from paws_jax import errors
from paws_jax.weights import state_dict

W = np.ones(1, np.float32)


def _find(tree):
  state = state_dict.find(tree)
  return sorted(state.arrays), state.layout


def test_where_it_is():
  weights = {"conv1.weight": W}
  for tree in (
    weights,
    {"encoder": weights, "epoch": 3, "opt": {"state": {0: {"buffer": W}}}},
    {"state_dict": {"module.conv1.weight": W}, "arch": "resnet50"},
    {"model": {"module._orig_mod.conv1.weight": W}},
  ):
    assert _find(tree) == (["conv1.weight"], state_dict.TRUNK)


@pytest.mark.parametrize(
  ("tree", "message"),
  [
    ([W], "holds a list"),
    ({}, "holds nothing"),
    ({"epoch": 3, "opt": {"lr": 0.1}}, "it holds epoch, opt"),
    ({"encoder": {"conv1.weight": "text"}}, "none of its entries"),
    ({"encoder": {}}, "none of its entries"),
    ({"encoder": {"a": W, "module.a": W}}, "twice"),
  ],
)
def test_where_there_is_none(tree, message):
  with pytest.raises(errors.WeightsError, match=message):
    state_dict.find(tree)


@pytest.mark.parametrize(
  ("names", "layout", "heads", "classifier"),
  [
    (["fc.fc1.weight", "fc.fc3.weight"], "PAWS", {"projection"}, []),
    (
      ["fc.fc1.weight", "fc.fc3.weight", "pred.bn1.weight"],
      "PAWS",
      {"projection", "prediction"},
      [],
    ),
    # A file that lacks its projection head is damaged, not of another layout.
    (["pred.bn1.weight"], "PAWS", {"projection", "prediction"}, []),
    (
      ["fc.fc1.weight", "fc.bn1.bias", "fc.fc2.weight", "fc.bn2.bias"],
      "fine-tuned PAWS",
      {"projection/fc1", "projection/bn1"},
      ["fc.fc2.weight", "fc.bn2.bias"],
    ),
    (["fc.weight", "fc.bias"], "torchvision or timm", set(), None),
    ([], "trunk only", set(), []),
  ],
)
def test_layouts_are_told_by_their_names(names, layout, heads, classifier):
  state = state_dict.from_arrays(
    dict.fromkeys(["conv1.weight", "bn1.num_batches_tracked", *names], W)
  )
  assert state.layout == layout
  assert state.heads == heads
  assert state.classifier_names() == (
    names if classifier is None else classifier
  )
  assert set(state.arrays) == {"conv1.weight", *names}
