"""BatchNorm: against numpy, masked, grouped, and on eight devices."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import PartitionSpec as P

from paws_jax.models import batch_norm

pytestmark = pytest.mark.unoptimized

CHANNELS = 5
EPSILON = 1e-5


def _data(num_rows, *, dtype=np.float64, positions=(3, 2), seed=0):
  rng = np.random.default_rng(seed)
  x = rng.normal(0.7, 2.0, (num_rows, *positions, CHANNELS)).astype(dtype)
  variables = {
    "params": {
      "scale": rng.uniform(0.5, 1.5, CHANNELS).astype(dtype),
      "bias": rng.normal(size=CHANNELS).astype(dtype),
    },
    "batch_stats": {
      "mean": rng.normal(size=CHANNELS).astype(dtype),
      "var": rng.uniform(0.5, 2, CHANNELS).astype(dtype),
    },
  }
  return x, variables


def _expected(x, variables, *, momentum=0.9, rows=slice(None)):
  """Normalised x and the new running statistics, straight from numpy."""
  flat = x[rows].reshape(-1, CHANNELS)
  params, stats = variables["params"], variables["batch_stats"]
  y = (x - flat.mean(0)) / np.sqrt(flat.var(0) + EPSILON)
  return y * params["scale"] + params["bias"], {
    "mean": momentum * stats["mean"] + (1 - momentum) * flat.mean(0),
    "var": momentum * stats["var"] + (1 - momentum) * flat.var(0, ddof=1),
  }


def _assert_close(actual, expected, rtol=1e-12):
  jax.tree.map(
    lambda a, b: np.testing.assert_allclose(
      a, b, rtol=rtol, atol=rtol * np.abs(b).max()
    ),
    actual,
    expected,
  )


def _mesh(**axes):
  return jax.make_mesh(
    tuple(axes.values()),
    tuple(axes),
    axis_types=(jax.sharding.AxisType.Auto,) * len(axes),
  )


def _sharded(layer, mesh, *, masked):
  """Training forward of `layer`, rows spread over all axes of `mesh`."""
  rows = P(mesh.axis_names)

  def local(variables, x, mask):
    y, updates = layer.apply(
      variables,
      x,
      train=True,
      mask=mask if masked else None,
      mutable=["batch_stats"],
    )
    return y, updates["batch_stats"]

  return jax.shard_map(
    local, mesh=mesh, in_specs=(P(), rows, rows), out_specs=(rows, P())
  )


def test_training_normalises_and_stores_the_unbiased_variance():
  x, variables = _data(4)
  with jax.enable_x64(True):
    y, updates = batch_norm.BatchNorm(
      momentum=0.8, param_dtype=jnp.float64
    ).apply(variables, x, train=True, mutable=["batch_stats"])
  expected_y, expected_stats = _expected(x, variables, momentum=0.8)
  _assert_close(y, expected_y)
  _assert_close(updates["batch_stats"], expected_stats)


def test_evaluation_uses_running_statistics_and_leaves_them():
  x, variables = _data(4)
  with jax.enable_x64(True):
    y, updates = batch_norm.BatchNorm(axis_name="unbound").apply(
      variables, x, train=False, mutable=["batch_stats"]
    )
  stats, params = variables["batch_stats"], variables["params"]
  expected = (x - stats["mean"]) / np.sqrt(stats["var"] + EPSILON)
  _assert_close(y, expected * params["scale"] + params["bias"])
  _assert_close(updates["batch_stats"], stats, rtol=0)


def test_training_with_immutable_statistics_only_normalises():
  x, variables = _data(4)
  with jax.enable_x64(True):
    y = batch_norm.BatchNorm().apply(variables, x, train=True)
  _assert_close(y, _expected(x, variables)[0])


@pytest.mark.parametrize("train", [False, True])
def test_initialisation_binds_no_axis_and_updates_nothing(train):
  x, _ = _data(4, dtype=np.float32)
  layer = batch_norm.BatchNorm(axis_name="data", group_axis_name="group")
  variables = layer.init(jax.random.key(0), x, train=train)
  ones, zeros = np.ones(CHANNELS), np.zeros(CHANNELS)
  _assert_close(
    variables,
    {
      "params": {"scale": ones, "bias": zeros},
      "batch_stats": {"mean": zeros, "var": ones},
    },
    rtol=0,
  )


@pytest.mark.parametrize("filler", [1e6, np.nan])
def test_masked_rows_do_not_count_whatever_they_hold(filler):
  x, variables = _data(6)
  mask = np.array([True, False, True, True, False, True])
  expected_y, expected_stats = _expected(x, variables, rows=mask)
  x[~mask] = filler
  with jax.enable_x64(True):
    layer = batch_norm.BatchNorm(param_dtype=jnp.float64)

    def loss(x):
      y, updates = layer.apply(
        variables, x, train=True, mask=mask, mutable=["batch_stats"]
      )
      return jnp.sum(jnp.sin(y[mask])), (y, updates["batch_stats"])

    grad, (y, stats) = jax.grad(loss, has_aux=True)(jnp.asarray(x))
  _assert_close(y[mask], expected_y[mask])
  _assert_close(stats, expected_stats)
  if np.isfinite(filler):  # 0 * NaN reaches any gradient.
    assert np.isfinite(grad).all()
    assert not np.any(grad[~mask])


def test_no_valid_row_at_all_is_finite_and_changes_nothing():
  x, variables = _data(4, dtype=np.float32)
  y, updates = batch_norm.BatchNorm().apply(
    variables, x, train=True, mask=np.zeros(4, bool), mutable=["batch_stats"]
  )
  assert np.isfinite(y).all()
  _assert_close(updates["batch_stats"], variables["batch_stats"], rtol=0)


@pytest.mark.parametrize("masked", [False, True])
def test_eight_devices_equal_one(masked):
  x, variables = _data(16)
  # Devices hold 2 rows each: the second none that counts, others 1 or 2.
  mask = np.arange(16) % 5 != 3
  mask[2:4] = False
  weights = np.random.default_rng(1).normal(size=x.shape)
  weights *= (mask | (not masked))[:, None, None, None]

  def value_and_grad(forward):
    def loss(params, x):
      y, stats = forward(variables | {"params": params}, x, jnp.asarray(mask))
      return jnp.sum(jnp.sin(y) * weights), (y, stats)

    return jax.jit(jax.value_and_grad(loss, (0, 1), has_aux=True))(
      variables["params"], x
    )

  def one_device(variables, x, mask):
    y, updates = batch_norm.BatchNorm(param_dtype=jnp.float64).apply(
      variables,
      x,
      train=True,
      mask=mask if masked else None,
      mutable=["batch_stats"],
    )
    return y, updates["batch_stats"]

  with jax.enable_x64(True):
    expected = value_and_grad(one_device)
    layer = batch_norm.BatchNorm(axis_name="data", param_dtype=jnp.float64)
    actual = value_and_grad(_sharded(layer, _mesh(data=8), masked=masked))
  _assert_close(actual, expected)
  rows = mask if masked else slice(None)
  _assert_close(actual[0][1][0], _expected(x, variables, rows=rows)[0])
  _assert_close(actual[0][1][1], _expected(x, variables, rows=rows)[1])


@pytest.mark.parametrize("masked", [False, True])
def test_groups_normalise_by_themselves_and_average_running(masked):
  x, variables = _data(16)
  mask = np.arange(16) % 3 != 1
  expected = [
    _expected(part, variables, rows=mask[i : i + 8] if masked else slice(None))
    for i, part in ((0, x[:8]), (8, x[8:]))
  ]
  with jax.enable_x64(True):
    layer = batch_norm.BatchNorm(
      axis_name="data", group_axis_name="group", param_dtype=jnp.float64
    )
    mesh = _mesh(group=2, data=4)
    y, stats = jax.jit(_sharded(layer, mesh, masked=masked))(variables, x, mask)
  _assert_close(y, np.concatenate([expected[0][0], expected[1][0]]))
  _assert_close(
    stats, jax.tree.map(lambda a, b: (a + b) / 2, *[e[1] for e in expected])
  )


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("num_devices", [1, 2, 8])
def test_groups_do_not_depend_on_the_number_of_devices(num_devices, masked):
  x, variables = _data(16)
  mask = np.arange(16) % 3 != 1

  def value_and_grad(layer, mesh):
    def loss(variables, x):
      y, stats = _sharded(layer, mesh, masked=masked)(variables, x, mask)
      return jnp.sum(jnp.sin(y)), (y, stats)

    return jax.jit(
      jax.value_and_grad(loss, argnums=(0, 1), has_aux=True, allow_int=True)
    )(variables, x)

  axes = {"axis_name": "data", "group_axis_name": "group"}
  with jax.enable_x64(True):
    expected = value_and_grad(
      batch_norm.BatchNorm(**axes, param_dtype=jnp.float64),
      _mesh(group=4, data=1),
    )
    devices = {"group": num_devices, "data": 1}
    if num_devices == 8:
      devices = {"group": 4, "data": 2}
    actual = value_and_grad(
      batch_norm.BatchNorm(
        **axes, num_groups=4 // devices["group"], param_dtype=jnp.float64
      ),
      _mesh(**devices),
    )
  _assert_close(actual, expected)


def test_rows_that_do_not_divide_into_groups_are_refused():
  x, variables = _data(6)
  with pytest.raises(ValueError, match=r"6 rows of a device .* 4 BatchNorm"):
    batch_norm.BatchNorm(num_groups=4).apply(
      variables, x, train=True, mutable=["batch_stats"]
    )


def test_a_group_without_a_valid_row_has_no_say_in_running_statistics():
  x, variables = _data(16)
  mask = np.arange(16) < 8
  with jax.enable_x64(True):
    layer = batch_norm.BatchNorm(
      axis_name="data", group_axis_name="group", param_dtype=jnp.float64
    )
    mesh = _mesh(group=2, data=4)
    y, stats = jax.jit(_sharded(layer, mesh, masked=True))(variables, x, mask)
  assert np.isfinite(y).all()
  _assert_close(stats, _expected(x[:8], variables)[1])


def test_statistics_may_span_two_mesh_axes():
  x, variables = _data(16)
  with jax.enable_x64(True):
    layer = batch_norm.BatchNorm(axis_name=("a", "b"), param_dtype=jnp.float64)
    forward = _sharded(layer, _mesh(a=2, b=4), masked=False)
    y, stats = jax.jit(forward)(variables, x, np.ones(16, bool))
  expected_y, expected_stats = _expected(x, variables)
  _assert_close(y, expected_y)
  _assert_close(stats, expected_stats)


def test_one_all_reduce_forward_and_one_backward():
  x, variables = _data(16, dtype=np.float32)
  forward = _sharded(
    batch_norm.BatchNorm(axis_name="data"), _mesh(data=8), masked=True
  )

  def loss(x, mask):
    y, stats = forward(variables, x, mask)
    return jnp.sum(jnp.sin(y)), stats

  mask = jnp.ones(16, bool)
  for function, expected in (
    (lambda x, mask: forward(variables, x, mask), 1),
    (jax.grad(loss, has_aux=True), 2),
  ):
    compiled = jax.jit(function).lower(x, mask).compile().as_text()
    lines = [
      line
      for line in compiled.splitlines()
      if " all-reduce(" in line or " all-reduce-start(" in line
    ]
    assert len(lines) == expected, lines


def test_float32_variance_survives_a_large_mean():
  # The naive E[x²] - E[x]² has nothing left at a mean of 3,000 deviations.
  rng = np.random.default_rng(0)
  x = rng.normal(3000, 1, (4096, 3)).astype(np.float32)
  layer = batch_norm.BatchNorm(momentum=0.0)
  variables = {
    "params": {"scale": np.ones(3, np.float32), "bias": np.zeros(3)},
    "batch_stats": {
      "mean": np.full(3, 2999, np.float32),
      "var": np.ones(3, np.float32),
    },
  }
  _, updates = layer.apply(variables, x, train=True, mutable=["batch_stats"])
  exact = np.var(x.astype(np.float64), 0, ddof=1)
  np.testing.assert_allclose(updates["batch_stats"]["var"], exact, rtol=1e-5)


@pytest.mark.parametrize(("dtype", "expected"), [
  (None, jnp.bfloat16),
  (jnp.float32, jnp.float32),
])  # fmt: skip
def test_bfloat16_activations_have_float32_statistics(dtype, expected):
  x, variables = _data(64, dtype=np.float32, positions=(16, 16))
  x = jnp.asarray(x, jnp.bfloat16)
  y, updates = batch_norm.BatchNorm(dtype=dtype).apply(
    variables, x, train=True, mutable=["batch_stats"]
  )
  assert y.dtype == expected
  stats = updates["batch_stats"]
  assert stats["mean"].dtype == stats["var"].dtype == jnp.float32
  exact = np.asarray(x, np.float64)
  # bfloat16 has 4e-3; how sums of thousands are rounded varies.
  _assert_close(stats, _expected(exact, variables)[1], rtol=1e-4)


def test_wrong_shapes_are_refused():
  x, variables = _data(4, dtype=np.float32)
  layer = batch_norm.BatchNorm()
  with pytest.raises(ValueError, match=r"mask \(3,\), x \(4, 3, 2, 5\)"):
    layer.apply(variables, x, train=True, mask=np.ones(3, bool))
  with pytest.raises(ValueError, match=r"\(5,\)"):
    layer.apply(variables, x[0, 0, 0], train=True)
