"""SuNCEt's loss: golden numbers of the public code, properties, refusals."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import PartitionSpec as P

from paws_jax import losses
from paws_jax.parallel import mesh as mesh_lib
from tests import golden_reference

pytestmark = pytest.mark.unoptimized

X64 = pytest.mark.parametrize("x64", [True, False], ids=["x64", "float32"])


@functools.partial(jax.jit, static_argnames="temperature")
def _suncet(z, labels, *, temperature):
  loss = functools.partial(losses.suncet_loss, temperature=temperature)
  return jax.value_and_grad(loss)(z, labels)


@X64
@pytest.mark.parametrize("name", golden_reference.names("suncet_loss_*"))
def test_suncet_loss_and_gradient_equal_the_reference(name, x64):
  arrays, config = golden_reference.load(name)
  with jax.enable_x64(x64):
    loss, grad = _suncet(
      *golden_reference.cast(arrays, ("z", "labels"), x64),
      temperature=config["temperature"],
    )
  golden_reference.assert_near({"loss": loss, "grad_z": grad}, arrays, x64=x64)


def _sharded_suncet(mesh, temperature):
  return mesh_lib.shard_map(
    functools.partial(
      losses.suncet_loss, temperature=temperature, axis_name=mesh_lib.AXES
    ),
    mesh,
    in_specs=(mesh_lib.BATCH, mesh_lib.BATCH),
    out_specs=P(),
  )


@X64
@pytest.mark.parametrize("name", golden_reference.names("dist_suncet_w4_*"))
def test_suncet_on_four_devices_is_the_mean_of_the_references_ranks(name, x64):
  arrays, config = golden_reference.load(name)
  mesh = mesh_lib.make_mesh(jax.devices()[:4], bn_group_size=2)
  loss = _sharded_suncet(mesh, config["tau"])
  with jax.enable_x64(x64):
    z, labels = golden_reference.cast(arrays, ("z", "labels"), x64)
    value, grad = jax.jit(jax.value_and_grad(loss))(
      z.reshape(-1, z.shape[-1]), labels
    )
  golden_reference.assert_near(
    {"world_mean_loss": value, "world_mean_grad_z": grad.reshape(z.shape)},
    arrays,
    x64=x64,
  )


def test_suncet_of_bfloat16_embeddings_is_the_same_on_four_devices():
  key = jax.random.key(0)
  z = jax.random.normal(key, (8, 6), jnp.bfloat16)
  rows = losses.label_rows(jnp.arange(8) % 4, jnp.arange(4), smoothing=0.1)
  expected = losses.suncet_loss(z, rows, temperature=0.5)
  mesh = mesh_lib.make_mesh(jax.devices()[:4])
  loss = jax.jit(_sharded_suncet(mesh, 0.5))(z, rows)
  assert loss.dtype == expected.dtype == jnp.float32
  np.testing.assert_allclose(loss, expected, rtol=1e-6)


def _normal(seed, *shape):
  """Float64 under x64, else float32."""
  return jnp.asarray(np.random.default_rng(seed).normal(size=shape))


def test_suncet_of_one_hot_rows_is_the_ratio_of_its_definition():
  with jax.enable_x64(True):
    z, classes = _normal(0, 6, 4), np.array([0, 0, 1, 1, 1, 0])
    rows = losses.label_rows(jnp.asarray(classes), jnp.arange(2))
    loss, _ = _suncet(z, rows, temperature=0.3)
    unit = np.asarray(z) / np.linalg.norm(z, axis=-1, keepdims=True)
  votes = np.exp(unit @ unit.T / 0.3) * (1 - np.eye(6))
  same = classes[:, None] == classes[None]
  expected = -np.log((votes * same).sum(-1) / votes.sum(-1)).mean()
  np.testing.assert_allclose(loss, expected, rtol=1e-12)


def test_suncet_of_a_class_with_one_image_stays_finite():
  rows = losses.label_rows(jnp.array([0, 0, 1]), jnp.arange(2))
  value, grad = _suncet(_normal(0, 3, 4), rows, temperature=0.1)
  assert np.isfinite(value)
  assert np.isfinite(grad).all()


def test_suncet_refuses_labels_that_do_not_fit():
  with pytest.raises(ValueError, match="3 supports but 2 label rows"):
    losses.suncet_loss(jnp.ones((3, 4)), jnp.ones((2, 2)), temperature=0.1)
