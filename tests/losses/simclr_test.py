"""NT-Xent: golden numbers of the public code, properties, refusals."""

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


@functools.partial(jax.jit, static_argnames=("temperature", "detached_keys"))
def _loss_and_gradient(z, *, temperature, detached_keys=True):
  def loss(z):
    return losses.nt_xent_loss(
      *jnp.split(z, 2), temperature=temperature, detached_keys=detached_keys
    )

  return jax.value_and_grad(loss)(z)


def _assert_golden(actual, expected, x64):
  assert actual.dtype == (np.float64 if x64 else np.float32)
  largest = np.abs(expected).max()
  atol = 1e-8 * largest if x64 else 5e-5 * largest + 1e-6
  np.testing.assert_allclose(actual, expected, rtol=0, atol=atol)


@X64
@pytest.mark.parametrize("name", ["b1", "b5_t05", "b8"])
def test_loss_and_gradient_equal_the_reference(name, x64):
  arrays, config = golden_reference.load(f"simclr_loss_{name}")
  with jax.enable_x64(x64):
    z = jnp.asarray(arrays["z"], float)
    value, grad = _loss_and_gradient(z, temperature=config["temperature"])
  _assert_golden(value, arrays["loss_f64"], x64)
  _assert_golden(grad, arrays["grad_z_f64"], x64)


def _sharded(temperature, detached_keys):
  def local(z):
    return losses.nt_xent_loss(
      *jnp.split(z, 2),
      temperature=temperature,
      detached_keys=detached_keys,
      axis_name=mesh_lib.AXES,
    )

  mesh = mesh_lib.make_mesh(jax.devices()[:4], bn_group_size=2)
  return mesh_lib.shard_map(
    local, mesh, in_specs=(mesh_lib.BATCH,), out_specs=P()
  )


@X64
def test_four_devices_are_the_mean_of_the_references_ranks(x64):
  arrays, config = golden_reference.load("dist_simclr_w4")
  with jax.enable_x64(x64):
    z = jnp.asarray(arrays["z"], float)
    loss = _sharded(config["tau"], True)
    value, grad = jax.jit(jax.value_and_grad(loss))(z.reshape(-1, z.shape[-1]))
  _assert_golden(value, arrays["world_mean_loss_f64"], x64)
  _assert_golden(grad.reshape(z.shape), arrays["world_mean_grad_z_f64"], x64)


def _normal(seed, *shape):
  return jnp.asarray(np.random.default_rng(seed).normal(size=shape))


def test_four_devices_equal_one_with_gradient_through_both_sides():
  with jax.enable_x64(True):
    z = _normal(0, 2, 8, 5)
    # By devices: each has the two views of its two images.
    by_device = z.reshape(2, 4, 2, 5).swapaxes(0, 1).reshape(16, 5)
    value, grad = _loss_and_gradient(
      z.reshape(16, 5), temperature=0.3, detached_keys=False
    )
    sharded = jax.jit(jax.value_and_grad(_sharded(0.3, False)))(by_device)
  np.testing.assert_allclose(sharded[0], value, rtol=1e-12)
  back = sharded[1].reshape(4, 2, 2, 5).swapaxes(0, 1).reshape(16, 5)
  np.testing.assert_allclose(back, grad, atol=1e-14)


def test_the_loss_is_that_of_its_definition():
  with jax.enable_x64(True):
    z = _normal(0, 6, 4)
    value, both = _loss_and_gradient(z, temperature=0.3, detached_keys=False)
    same, half = _loss_and_gradient(z, temperature=0.3)
  unit = np.asarray(z) / np.linalg.norm(z, axis=-1, keepdims=True)
  kernel = np.exp(unit @ unit.T / 0.3)
  positive = kernel[np.arange(6), (np.arange(6) + 3) % 6]
  expected = -np.log(positive / (kernel.sum(-1) - np.diag(kernel))).mean()
  np.testing.assert_allclose(value, expected, rtol=1e-12)
  # Detaching the keys leaves the value, and takes a part of the gradient.
  assert same == value
  assert np.abs(both - half).max() > 1e-3


def test_the_order_of_images_does_not_matter():
  with jax.enable_x64(True):
    a, b = _normal(0, 2, 5, 4)
    order = np.array([3, 0, 4, 1, 2])
    loss = functools.partial(losses.nt_xent_loss, temperature=0.2)
    np.testing.assert_allclose(loss(a[order], b[order]), loss(a, b), rtol=1e-13)
    # Pairs must stay pairs.
    assert abs(loss(a[order], b) - loss(a, b)) > 1e-2


@pytest.mark.parametrize("rows", [np.zeros((6, 4)), np.ones((6, 4))])
def test_collapsed_embeddings_have_a_finite_gradient(rows):
  value, grad = _loss_and_gradient(
    jnp.asarray(rows), temperature=0.1, detached_keys=False
  )
  np.testing.assert_allclose(value, np.log(5), rtol=1e-6)
  assert np.isfinite(grad).all()


def test_bfloat16_embeddings_are_compared_in_float32():
  z = _normal(0, 6, 4).astype(jnp.bfloat16)
  value = losses.nt_xent_loss(z[:3], z[3:], temperature=0.1)
  wide = z.astype(jnp.float32)
  assert value.dtype == jnp.float32
  np.testing.assert_array_equal(
    value, losses.nt_xent_loss(wide[:3], wide[3:], temperature=0.1)
  )


def test_views_of_different_shapes_are_refused():
  with pytest.raises(ValueError, match=r"\(3, 4\) and view_b \(2, 4\)"):
    losses.nt_xent_loss(jnp.ones((3, 4)), jnp.ones((2, 4)), temperature=0.1)
