"""PyTorch's names and layouts to ours and back."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from paws_jax import models
from paws_jax.weights import torch_names
from tests import golden_reference

SECTION = {
  "name": "resnet_tiny",
  "width": 1,
  "projection_hidden_dim": 0,
  "output_dim": 16,
  "prediction_head": True,
  "zero_init_residual": False,
  "bn_momentum": 0.9,
  "final_bn_momentum": 0.9,
  "freeze_bn": False,
  "init_from": "",
  "dtype": "float32",
}


def _template(**fields):
  encoder = models.create(SECTION | fields)
  return jax.eval_shape(
    lambda key: encoder.init(key, jnp.zeros((1, 32, 32, 3)), train=False),
    jax.random.key(0),
  )


def _state():
  arrays, _ = golden_reference.load("resnet_tiny_pred")
  return {
    key.removeprefix("state."): value
    for key, value in arrays.items()
    if key.startswith("state.")
  }


@pytest.mark.parametrize(
  ("key", "fields"),
  [
    ("resnet50_imgnt", {"name": "resnet50", "output_dim": 2048}),
    (
      "wide_resnet28w2_cifar",
      {
        "name": "wide_resnet28",
        "width": 2,
        "output_dim": 128,
        "prediction_head": False,
      },
    ),
  ],
)
def test_names_and_shapes_are_those_of_the_reference(key, fields):
  lists = json.loads(
    (golden_reference.DIRECTORY / "param_lists.json").read_text()
  )
  expected = {
    name: tuple(shape)
    for name, shape, _ in lists[key]["tensors"]
    if not name.endswith("num_batches_tracked")
  }
  # Broadcast from one number: nothing of this size is allocated.
  variables = jax.tree.map(
    lambda leaf: np.broadcast_to(np.float32(0), leaf.shape),
    _template(**fields),
  )
  state = torch_names.to_torch(variables)
  assert {name: value.shape for name, value in state.items()} == expected


def test_there_and_back():
  state, template = _state(), _template()
  variables = torch_names.from_torch(state, template)
  assert jax.tree.structure(variables) == jax.tree.structure(template)
  assert jax.tree.map(np.shape, variables) == jax.tree.map(
    lambda leaf: leaf.shape, template
  )
  back = torch_names.to_torch(variables)
  for name in back:
    np.testing.assert_array_equal(back[name], state[name], err_msg=name)
  assert {n for n in state if "num_batches" not in n} == set(back)


def test_kernels_change_layout_and_dtype_follows_the_template():
  state = _state()
  template = jax.tree.map(
    lambda leaf: np.empty(leaf.shape, np.float64), _template()
  )
  variables = torch_names.from_torch(state, template)
  params = variables["params"]
  conv = params["trunk"]["layer1_0"]["conv2"]["kernel"]
  assert conv.dtype == np.float64
  weight = state["layer1.0.conv2.weight"]
  assert conv[0, 2, 1, 3] == weight[3, 1, 0, 2]
  dense = params["prediction"]["fc1"]["kernel"]
  assert dense[5, 2] == state["pred.fc1.weight"][2, 5]


def test_gradients_alone_have_names_too():
  params = torch_names.from_torch(_state(), _template())["params"]
  names = set(torch_names.to_torch({"params": params}))
  assert "layer1.0.downsample.1.weight" in names
  assert not any("running" in name for name in names)


def test_all_problems_are_listed_by_name():
  state = _state()
  del state["fc.fc2.bias"], state["bn1.running_var"]
  state["encoder.weight"] = np.zeros(3)
  state["conv1.weight"] = state["conv1.weight"][:, :1]
  with pytest.raises(ValueError, match="do not fit") as error:
    torch_names.from_torch(state, _template())
  lines = str(error.value).splitlines()[1:]
  assert sorted(line.strip() for line in lines) == [
    "missing: bn1.running_var",
    "missing: fc.fc2.bias",
    "shape of conv1.weight: given (4, 1, 7, 7), the encoder has (4, 3, 7, 7)",
    "unknown: encoder.weight",
  ]


@pytest.mark.parametrize("path", [("queue", "kernel"), ("trunk", "codebook")])
def test_variables_of_something_else_are_refused(path):
  top, leaf = path
  with pytest.raises(ValueError, match=f"{top}/{leaf}"):
    torch_names.to_torch({"params": {top: {leaf: np.zeros(2)}}})
