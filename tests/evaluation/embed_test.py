"""Embeddings of images in batches, on any number of devices."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from paws_jax import config as config_lib
from paws_jax.evaluation import embed as embed_lib
from paws_jax.parallel import mesh

VIEW = config_lib.EvalView(eval_resize=0, eval_size=4, mean=(0.5,), std=(0.25,))
PARAMS = {"scale": np.float32([[3]])}
STATS = {"mean": np.float32([[1]])}


class Pixels(nn.Module):
  """A stand-in for an encoder: h is the crop's pixels, z twice that."""

  @nn.compact
  def __call__(self, images, *, train, mask=None):
    assert not train
    assert mask is None
    scale = self.param("scale", nn.initializers.ones, (1, 1))
    shift = self.variable("batch_stats", "mean", jnp.zeros, (1, 1))
    h = images.reshape(images.shape[0], -1)
    return h, 2 * scale * h + shift.value


@functools.cache
def _embedder(num_devices, batch_size):
  return embed_lib.make_embedder(
    Pixels(),
    view=VIEW,
    batch_size=batch_size,
    mesh=mesh.make_mesh(jax.devices()[:num_devices]),
  )


@pytest.mark.parametrize(
  ("num_devices", "batch_size"), [(1, 7), (1, 64), (4, 6), (8, 8), (8, 3)]
)
def test_every_image_is_embedded_once_whatever_batch_and_devices(
  num_devices, batch_size
):
  rng = np.random.default_rng(1)
  images = rng.integers(0, 256, (19, 6, 6, 1), np.uint8)

  z = _embedder(num_devices, batch_size)(PARAMS, STATS, images)
  assert isinstance(z, np.ndarray)
  assert z.dtype == np.float32
  # The centre 4 x 4, normalised; z and not h, with the running statistics.
  crops = (images[:, 1:5, 1:5] / 255 - 0.5) / 0.25
  expected = 6 * crops.reshape(19, 16) + 1
  np.testing.assert_allclose(z, expected, rtol=1e-5, atol=1e-5)


def test_no_more_than_two_results_are_on_the_device_at_once():
  waiting = []

  def resize(images):
    # Asked for before each batch.
    results = [a for a in jax.live_arrays() if a.shape == (3, 16)]
    waiting.append(len(results))
    return images

  embed = embed_lib.make_embedder(
    Pixels(),
    view=VIEW,
    batch_size=3,
    mesh=mesh.make_mesh(jax.devices()[:1]),
    resize=resize,
  )
  assert len(embed(PARAMS, STATS, np.zeros((19, 6, 6, 1), np.uint8))) == 19
  assert waiting == [0, 1, 1, 1, 1, 1, 1]


def test_other_layers_can_be_asked_for():
  rng = np.random.default_rng(1)
  images = rng.integers(0, 256, (5, 4, 4, 1), np.uint8)
  embed = embed_lib.make_embedder(
    Pixels(),
    view=VIEW,
    batch_size=4,
    mesh=mesh.make_mesh(jax.devices()[:1]),
    layers=lambda encoder, crops: jnp.concatenate(
      encoder(crops, train=False), axis=1
    ),
  )
  h = (images.reshape(5, 16) / 255 - 0.5) / 0.25
  expected = np.concatenate([h, 6 * h + 1], axis=1)
  np.testing.assert_allclose(
    embed(PARAMS, STATS, images), expected, rtol=1e-5, atol=1e-5
  )
