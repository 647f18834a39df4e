"""Encoders of the PyTorch peer against ours."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from paws_jax import config as config_lib
from paws_jax import models
from paws_jax.weights import torch_names

torch = pytest.importorskip("torch", reason="compares with PyTorch")
# Imports PyTorch itself.
torch_models = pytest.importorskip("benchmarks.torch_side.models")


def _section(name):
  section = config_lib.base().model
  section.update({"name": name, "output_dim": 8, "projection_hidden_dim": 16})
  return section


def _encoder(section):
  encoder = models.create(section, dtype=jnp.float32)
  images = jnp.zeros((1, 8, 8, 3))
  return encoder, lambda key: encoder.init(key, images, train=False)


@pytest.mark.parametrize(
  "name",
  [n for n in models.ENCODERS if not n.startswith(("efficientnet", "vit"))],
)
def test_every_encoder_has_tensors_of_the_same_names_and_shapes(name):
  section = _section(name)
  _, init = _encoder(section)
  shapes = jax.eval_shape(init, jax.random.key(0))
  # Without memory for the large ones.
  ours = jax.tree.map(
    lambda leaf: np.broadcast_to(np.float32(0), leaf.shape), shapes
  )
  expected = {k: v.shape for k, v in torch_names.to_torch(ours).items()}
  with torch.device("meta"):
    state = torch_models.Encoder(section, 3).state_dict()
  assert expected == {
    name.removeprefix("trunk."): tuple(tensor.shape)
    for name, tensor in state.items()
    if not name.endswith(torch_names.COUNTER)
  }


@pytest.mark.slow
def test_a_bottleneck_encoder_gives_the_same_embeddings():
  section = _section("resnet_tiny")
  encoder, init = _encoder(section)
  variables = jax.jit(init)(jax.random.key(0))
  # An odd and an even side: padding of the two differs.
  images = np.random.default_rng(0).standard_normal((8, 33, 64, 3), np.float32)
  peer = torch_models.Encoder(section, 3)
  peer.load(torch_names.to_torch(variables))
  with torch.no_grad():
    found = peer(torch.from_numpy(images.transpose(0, 3, 1, 2)))
  expected, _ = jax.jit(
    lambda images: encoder.apply(
      variables, images, train=True, mutable=["batch_stats"]
    )
  )(images)
  for ours, theirs in zip(expected, found, strict=True):
    np.testing.assert_allclose(theirs.numpy(), ours, atol=2e-4)


def test_an_encoder_without_a_counterpart_is_refused():
  section = {**_section("resnet50"), "name": "resnet18"}
  with pytest.raises(
    ValueError,
    match=r"model\.name is 'resnet18', .* lacks; it has resnet50, .*peer=none",
  ):
    torch_models.Encoder(section, 3)
