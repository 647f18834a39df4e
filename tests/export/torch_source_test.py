"""The PyTorch class beside exported weights: its names, and its outputs."""

import dataclasses
import importlib.util
import re
import types

import jax
import numpy as np
import pytest
import safetensors.numpy

from paws_jax import models
from paws_jax.classifier import predictions
from paws_jax.classifier import support_bank
from paws_jax.export import program as program_lib
from paws_jax.export import torch
from paws_jax.export import torch_source
from tests import random_classifier

# (model.name, fields of the model); images are 8 x 8 and grey.
# Heads as in MoCo, BYOL, SimSiam, and MSF.
HEADS = {
  "moco": {"projection_layers": 2, "projection_norm": False},
  "byol": {
    "projection_layers": 2,
    "projection_bias": "hidden",
    "prediction_head": True,
    "prediction_hidden_dim": 5,
    "prediction_bias": "hidden",
  },
  "simsiam": {
    "projection_bias": "none",
    "projection_final_norm": True,
    "prediction_head": True,
    "prediction_hidden_dim": 5,
    "prediction_bias": "last",
  },
  "msf": {
    "projection_layers": 2,
    "prediction_head": True,
    "prediction_hidden_dim": 5,
  },
}
NETWORKS = [
  ("small_resnet", {}),
  ("small_resnet", {"prediction_head": True, "output_dim": 8}),
  ("small_resnet", {"width": 2, "projection_hidden_dim": 5}),
  ("small_resnet3", {}),
  ("resnet18_cifar", {}),
  ("resnet_tiny", {"prediction_head": True, "output_dim": 8}),
  ("wide_resnet10", {}),
  ("wide_resnet10", {"width": 2}),
  ("wide_resnet16", {}),
  ("efficientnet_lite0", {}),
  ("vit_tiny", {}),
  ("vit_tiny", {"width": 2}),
  *(("small_resnet", fields) for fields in HEADS.values()),
]
_IDS = [f"{name}-{'-'.join(fields)}" for name, fields in NETWORKS]


def make(name, head=False, **fields):
  """A classifier of a network with random weights."""
  made = random_classifier.make(head=head)
  section = made.model | {"name": name} | fields
  encoder = models.create(section)
  # At least a patch.
  side = 16 if name.endswith("16_dinov3") else 8
  shapes = jax.eval_shape(
    lambda images: encoder.init(jax.random.key(0), images, train=False),
    np.zeros((1, side, side, 1), np.float32),
  )
  random = np.random.default_rng(0)
  variables = jax.tree.map(
    lambda leaf: random_classifier._weights(random, leaf), dict(shapes)
  )
  hidden = variables["params"]["projection"]["fc1"]["kernel"].shape[1]
  dim = hidden if head else section["output_dim"]
  labels = made.support_bank.labels
  bank = support_bank.SupportBank(
    embeddings=random.normal(size=(len(labels), dim)).astype(np.float32),
    labels=labels,
    names=made.support_bank.names,
    thumbnails=made.support_bank.thumbnails,
  )
  linear = predictions.Head(
    kernel=random.normal(size=(dim, 3)).astype(np.float32),
    bias=random.normal(size=3).astype(np.float32),
  )
  return dataclasses.replace(
    made,
    model=section,
    variables=variables,
    support_bank=bank,
    head=linear if head else None,
  )


def imported(path):
  spec = importlib.util.spec_from_file_location("exported_encoder", path)
  module = importlib.util.module_from_spec(spec)
  spec.loader.exec_module(module)
  return module


@pytest.mark.parametrize(("name", "fields"), NETWORKS, ids=_IDS)
@pytest.mark.parametrize("head", [False, True])
def test_outputs_are_ours(tmp_path, name, fields, head):
  pytorch = pytest.importorskip("torch")
  classifier = make(name, head, **fields)
  program = program_lib.create(classifier)
  torch.write(program, tmp_path)
  model = imported(tmp_path / torch.MODULE).load()
  images = np.random.default_rng(1).integers(0, 256, (4, 9, 12, 1), np.uint8)
  expected = program.apply(program.weights, images)
  views = program_lib.evaluation_view(classifier.preprocessing, images)
  views = pytorch.tensor(np.asarray(views)).permute(0, 3, 1, 2)
  with pytorch.no_grad():
    np.testing.assert_allclose(
      np.asarray(model.classify(views).tolist()),
      expected["probabilities"],
      atol=1e-5,
    )
    if not head:
      np.testing.assert_allclose(
        np.asarray(model(views).tolist()),
        expected["embeddings"],
        rtol=1e-3,
        atol=1e-4,
      )


@pytest.mark.parametrize(
  ("name", "fields", "head"),
  [
    ("small_resnet", {"prediction_head": True, "output_dim": 8}, False),
    ("small_resnet3", {"width": 2}, True),
    ("resnet_tiny", {}, False),
    ("resnet18_cifar", {}, False),
    ("wide_resnet16", {}, False),
    ("efficientnet_lite0", {}, False),
    ("vit_tiny", {}, False),
    *(("small_resnet", fields, False) for fields in HEADS.values()),
    ("small_resnet", HEADS["moco"], True),
    ("small_resnet", HEADS["simsiam"], True),
  ],
)
def test_every_network_has_a_class(name, fields, head):
  """Without PyTorch: it is Python, of one trunk, with sizes of the weights."""
  classifier = make(name, head, **fields)
  text = torch_source.text(classifier)
  values = {}
  code = compile(text, "encoder.py", "exec")
  assert text.count("class Trunk(") == text.count("class Block(") == 1
  assert {"load", "Encoder"} <= set(code.co_names)
  exec(text[text.index("SETTINGS =") : text.index("def load(")], values)
  settings = types.SimpleNamespace(**values["SETTINGS"])
  assert (settings.model, settings.head) == (name, head)
  assert settings.channels == 1
  assert settings.classes == 3
  has_prediction = fields.get("prediction_head", False)
  assert bool(settings.prediction) == (has_prediction and not head)
  # Every array of the heads has a layer, of the same sizes.
  for part in ("projection", "prediction"):
    layers = {n: s for n, *s in getattr(settings, part) if n != "relu"}
    arrays = classifier.variables["params"].get(part, {})
    if head:
      continue
    assert {n for n in layers if n in arrays or n.startswith("fc")} == set(
      arrays
    )
    for layer, leaves in arrays.items():
      if "kernel" in leaves:
        sizes = [*leaves["kernel"].shape, "bias" in leaves]
        assert layers[layer] == sizes
  trunk = classifier.variables["params"]["trunk"]
  blocks = [key for key in trunk if re.match(r"layer\d|blocks?_", key)]
  sizes = getattr(settings, "stages", []), len(getattr(settings, "blocks", []))
  depth = getattr(settings, "depth", 0)
  assert sum(sizes[0]) + sizes[1] + depth == len(blocks)


def test_every_encoder_has_a_section():
  for name in models.ENCODERS:
    kind = torch_source._kind(name)
    assert f"# -- {kind}\n" in torch_source._TEMPLATE.read_text()


def test_the_class_lies_beside_the_weights(tmp_path):
  program = program_lib.create(make("small_resnet"))
  entries = torch.write(program, tmp_path)
  assert entries["files"]["module"] == "encoder.py"
  assert "class Encoder" in (tmp_path / "encoder.py").read_text()
  state = safetensors.numpy.load_file(tmp_path / torch.ENCODER)
  assert "layer1.0.downsample.0.weight" in state
