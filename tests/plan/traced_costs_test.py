"""Costs counted in a traced program."""

import jax
import jax.numpy as jnp
import pytest

from paws_jax.parallel import mesh as mesh_lib
from paws_jax.plan import traced_costs


def _flops(function, *shapes):
  arrays = [jax.ShapeDtypeStruct(shape, jnp.float32) for shape in shapes]
  return traced_costs.flops(jax.make_jaxpr(function)(*arrays).jaxpr)


def _convolve(x, w, stride=1):
  return jax.lax.conv_general_dilated(
    x, w, (stride, stride), "VALID", dimension_numbers=("NHWC", "HWIO", "NHWC")
  )


def test_matrix_products():
  assert _flops(jnp.matmul, (5, 7), (7, 3)) == 2 * 5 * 7 * 3
  assert _flops(lambda x: x + 1, (5, 7)) == 0
  batched = "bij,bjk->bik"
  flops = _flops(lambda x, y: jnp.einsum(batched, x, y), (2, 5, 7), (2, 7, 3))
  assert flops == 2 * 2 * 5 * 7 * 3


def test_convolutions():
  # 6 x 6 places of a filter of 3 x 3 x 4.
  assert _flops(_convolve, (2, 8, 8, 4), (3, 3, 4, 5)) == (
    2 * (2 * 6 * 6 * 5) * (3 * 3 * 4)
  )


@pytest.mark.parametrize("stride", [1, 2])
def test_the_backward_pass_costs_twice_the_forward_pass(stride):
  def forward(x, w):
    return jnp.sum(_convolve(x, w, stride))

  shapes = (2, 16, 16, 4), (1, 1, 4, 5)
  once = _flops(forward, *shapes)
  both = _flops(jax.grad(forward, argnums=(0, 1)), *shapes)
  # The forward result itself is not needed for the gradients of its sum.
  assert both - once == pytest.approx(2 * once, rel=0.01) or both == 2 * once


def test_loops_and_calls_are_counted_as_often_as_they_run():
  def twice(x, y):
    return jax.lax.scan(lambda c, _: (c @ y, None), x, length=3)[0]

  assert _flops(jax.jit(twice), (5, 7), (7, 7)) == 3 * 2 * 5 * 7 * 7


def test_inside_shard_map_one_device_counts():
  mesh = mesh_lib.make_mesh(jax.devices()[:4])

  def local(x, w):
    whole = jax.lax.all_gather(x, mesh_lib.AXES, tiled=True)
    return jax.lax.psum(jnp.sum(whole @ w), mesh_lib.AXES)

  mapped = mesh_lib.shard_map(
    local,
    mesh,
    in_specs=(mesh_lib.BATCH, mesh_lib.REPLICATED),
    out_specs=mesh_lib.REPLICATED,
  )
  shapes = (8, 7), (7, 3)
  arrays = [jax.ShapeDtypeStruct(shape, jnp.float32) for shape in shapes]
  jaxpr = jax.make_jaxpr(mapped)(*arrays).jaxpr
  assert traced_costs.flops(jaxpr) == 2 * 8 * 7 * 3
  found = list(traced_costs.collectives(jaxpr, 4))
  assert [(c.kind, c.num_bytes) for c in found] == [
    # What it gives, as in a compiled program.
    ("all-gather", 8 * 7 * 4),
    ("all-reduce", 4),
  ]
  assert found[0].bytes_by_dtype == {"float32": 8 * 7 * 4}
  assert found[0].group_size == 4
