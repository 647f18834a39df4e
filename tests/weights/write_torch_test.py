"""Weights written for PyTorch."""

import json
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import safetensors
import safetensors.numpy

from paws_jax import models
from paws_jax.weights import write_torch
from tests import golden_reference
from tests.models import golden_test as models_golden_test

SECTION = models_golden_test.SECTION
HEAD = {
  "kernel": np.arange(640, dtype=np.float32).reshape(128, 5),
  "bias": np.arange(5, dtype=np.float32),
}


def _state():
  """(variables, state dict) that the reference's network was run with."""
  _, variables, _, arrays = models_golden_test._load(
    "resnet_tiny_pred", jnp.float32
  )
  state = {
    key.removeprefix("state."): value
    for key, value in arrays.items()
    if key.startswith("state.") and not key.endswith("num_batches_tracked")
  }
  return variables, state


def test_a_file_holds_the_references_weights(tmp_path):
  variables, state = _state()
  path = tmp_path / "a.safetensors"
  names = write_torch.write_torch(jax.tree.map(jnp.asarray, variables), path)
  found = safetensors.numpy.load_file(path)
  assert set(names) == set(found) == set(state)
  for name, array in state.items():
    np.testing.assert_array_equal(found[name], array, err_msg=name)
    assert found[name].dtype == np.float32
  with safetensors.safe_open(path, framework="np") as file:
    assert file.metadata() == {"format": "pt", "layout": "paws"}
  assert [p.name for p in tmp_path.iterdir()] == ["a.safetensors"]
  # Another one takes its place.
  write_torch.write_torch(variables, path, head=HEAD)
  assert "fc.fc2.bias" in safetensors.numpy.load_file(path)


@pytest.mark.parametrize(
  ("key", "layout", "fields"),
  [
    ("resnet50_imgnt", "timm", {"name": "resnet50", "output_dim": 8}),
    (
      "wide_resnet28w2_cifar",
      "paws",
      {
        "name": "wide_resnet28",
        "width": 2,
        "output_dim": 128,
        "prediction_head": False,
      },
    ),
  ],
)
def test_names_and_shapes_are_those_of_the_reference(key, layout, fields):
  lists = json.loads(
    (golden_reference.DIRECTORY / "param_lists.json").read_text()
  )
  left_out = ("fc.", "pred.") if layout == "timm" else ()
  expected = {
    name: tuple(shape)
    for name, shape, _ in lists[key]["tensors"]
    if not name.endswith("num_batches_tracked")
    and not name.startswith(left_out)
  }
  encoder = models.create(SECTION | fields)
  shapes = jax.eval_shape(
    lambda key: encoder.init(key, jnp.zeros((1, 32, 32, 3)), train=False),
    jax.random.key(0),
  )
  # A byte each, and no head: ResNet-50 has 23 million.
  variables = {
    collection: {
      part: jax.tree.map(lambda leaf: np.zeros(leaf.shape, np.int8), tree)
      for part, tree in parts.items()
      if layout == "paws" or part == "trunk"
    }
    for collection, parts in shapes.items()
  }
  state = write_torch.torch_state(variables, layout=layout)
  assert {name: array.shape for name, array in state.items()} == expected


def test_a_classifier_takes_the_place_of_the_last_layers():
  variables, state = _state()
  found = write_torch.torch_state(variables, layout="paws", head=HEAD)
  np.testing.assert_array_equal(found.pop("fc.fc2.weight"), HEAD["kernel"].T)
  np.testing.assert_array_equal(found.pop("fc.fc2.bias"), HEAD["bias"])
  heads = {name for name in found if name.startswith(("fc.", "pred."))}
  leaves = ("weight", "bias", "running_mean", "running_var")
  assert heads == {
    "fc.fc1.weight",
    "fc.fc1.bias",
    *(f"fc.bn1.{leaf}" for leaf in leaves),
  }
  for name, array in found.items():
    np.testing.assert_array_equal(array, state[name])


def _stem(width):
  kernel = np.zeros((7, 7, 3, width), np.int8)
  return {"conv1": {"kernel": kernel}, "layer1_0": {"conv3": {}}}


def test_what_a_layout_has_no_place_for_is_refused():
  variables, _ = _state()
  with pytest.raises(ValueError, match="'onnx': it must be one of paws, timm"):
    write_torch.torch_state(variables, layout="onnx")
  # Of a ResNet that is twice as wide as timm's.
  wide = {"params": {"trunk": _stem(128)}}
  with pytest.raises(ValueError, match=r"64 channels.*starts with 128: use"):
    write_torch.torch_state(wide, layout="timm")
  narrow = {"params": {"trunk": _stem(64), "projection": {}}}
  with pytest.raises(ValueError, match="is on a layer of the projection"):
    write_torch.torch_state(narrow, layout="timm", head=HEAD)
  other = {"params": {"trunk": {"layer1_0": {"conv2": {}}}}}
  with pytest.raises(ValueError, match=r"'timm'.*bottleneck.*use 'paws'"):
    write_torch.torch_state(other, layout="timm")


def test_where_nothing_can_be_written(tmp_path, monkeypatch):
  variables, _ = _state()
  with pytest.raises(OSError, match="absent"):
    write_torch.write_torch(variables, tmp_path / "absent" / "a.safetensors")
  monkeypatch.setitem(sys.modules, "safetensors.numpy", None)
  with pytest.raises(ValueError, match="pip install safetensors"):
    write_torch.write_torch(variables, tmp_path / "a.safetensors")
