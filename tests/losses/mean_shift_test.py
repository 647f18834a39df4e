"""Mean shift: golden numbers of the public code, devices, ties, refusals."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import PartitionSpec as P

from paws_jax import losses
from paws_jax.losses import mean_shift
from paws_jax.parallel import mesh as mesh_lib
from tests import golden_reference
from tests import golden_ssl

pytestmark = pytest.mark.unoptimized

X64 = pytest.mark.parametrize("x64", [True, False], ids=["x64", "float32"])
FILES = [
  f"cmsf/{name}"
  for kind in ("msf", "twoq", "km", "sup", "semi")
  for name in golden_reference.names(f"cmsf/{kind}_*")
  if name not in ("semi_cache", "sup_all")
]


def _constraint(arrays):
  """Rows that a query may choose: bool [B, M], or None without a constraint."""
  bank_index = arrays["bank_index_after"]
  if "near_previous" in arrays:
    allowed = np.zeros((len(arrays["query"]), len(bank_index)), bool)
    for row, near in zip(allowed, arrays["near_previous"], strict=True):
      row[near[near >= 0]] = True
    without = ~arrays["known"][arrays["index"]]
    return allowed | without[:, None]
  if "cluster" in arrays:
    of_bank = np.where(bank_index >= 0, arrays["cluster"][bank_index], -1)
    of_query = arrays["cluster"][arrays["index"]]
  elif "assigned" in arrays:
    of_bank, of_query = arrays["bank_label_after"], arrays["assigned"]
  elif "chosen_constrained" in arrays:
    of_bank, of_query = arrays["bank_label_after"], arrays["label"]
  else:
    return None
  return (of_query[:, None] == of_bank) | (of_query[:, None] < 0)


def _searches(arrays):
  """Pairs (expected slots, allowed or None) of a file."""
  constraint = _constraint(arrays)
  return [
    (arrays[key], allowed)
    for key, allowed in (
      ("chosen_constrained", constraint),
      ("chosen_unconstrained", None),
    )
    if key in arrays
  ]


def _inputs(arrays, x64):
  """Query, unit targets and the bank after this step's rows."""
  dtype = jnp.float64 if x64 else jnp.float32
  query = jnp.asarray(arrays["query"], dtype)
  target = golden_ssl.unit(arrays["target"]).astype(dtype)
  return query, target, jnp.asarray(arrays["bank_after_f64"], dtype)


def _valid(arrays):
  """MSF's and sup's files without indices have labels of filled rows only."""
  return jnp.asarray(arrays["bank_index_after"] >= 0)


@functools.partial(jax.jit, static_argnums=4)
def _nearest(target, bank, valid, allowed, k):
  return losses.nearest_members(target, bank, valid=valid, k=k, allowed=allowed)


_loss_and_gradients = jax.jit(
  jax.value_and_grad(losses.mean_shift_loss, argnums=(0, 1))
)


@X64
@pytest.mark.parametrize("name", FILES)
def test_slots_loss_and_gradient_equal_the_reference(name, x64):
  arrays, _ = golden_ssl.load(name)
  with jax.enable_x64(x64):
    query, target, bank = _inputs(arrays, x64)
    sets = []
    for expected, allowed in _searches(arrays):
      slots = _nearest(target, bank, _valid(arrays), allowed, expected.shape[1])
      np.testing.assert_array_equal(slots, expected)
      assert slots.dtype == jnp.int32
      sets.append(slots)
    value, grads = _loss_and_gradients(query, bank, sets)
  golden_ssl.assert_near({"loss": value, "grad_query": grads[0]}, arrays, x64)
  assert not np.any(grads[1])


def _to_devices(rows, num_devices, batch):
  """Reorders [M, ...] rows so that contiguous parts are those of devices."""
  by_device = rows.reshape(
    -1, num_devices, batch // num_devices, *rows.shape[1:]
  )
  return by_device.swapaxes(0, 1).reshape(rows.shape)


@pytest.mark.parametrize("form", ["columns", "rows"])
@pytest.mark.parametrize("num_devices", [2, 4])
@pytest.mark.parametrize(
  "name", ["msf_w4", "twoq_w4", "km_w4", "sup_w4", "semi_w4"]
)
def test_any_number_of_devices_gives_the_same(name, num_devices, form):
  arrays, _ = golden_ssl.load(f"cmsf/{name}")
  axes, batch = mesh_lib.AXES, arrays["query"].shape[0]
  mesh = mesh_lib.make_mesh(jax.devices()[:num_devices])

  def local(query, target, bank, valid, *allowed):
    sets = [
      losses.nearest_members(
        target,
        bank,
        valid=valid,
        k=expected.shape[1],
        allowed=allowed[i] if constraint is not None else None,
        axis_name=axes,
      )
      for i, (expected, constraint) in enumerate(_searches(arrays))
    ]
    loss = losses.mean_shift_loss(query, bank, sets, axis_name=axes)
    return loss, tuple(sets)

  with jax.enable_x64(True):
    query, target, bank = _inputs(arrays, True)
    allowed = [
      jnp.asarray(constraint)
      for _, constraint in _searches(arrays)
      if constraint is not None
    ]
    columns = P(None, axes)
    if form == "columns":
      allowed = [
        _to_devices(array.T, num_devices, batch).T for array in allowed
      ]
    else:
      columns = P(axes)
    over_devices = jax.jit(
      mesh_lib.shard_map(
        local,
        mesh,
        in_specs=(*[P(axes)] * 4, *[columns] * len(allowed)),
        out_specs=(P(), P(axes)),
      )
    )
    bank = _to_devices(bank, num_devices, batch)
    valid = _to_devices(_valid(arrays), num_devices, batch)

    def loss(query):
      return over_devices(query, target, bank, valid, *allowed)

    (value, sets), grad = jax.value_and_grad(loss, has_aux=True)(query)
  for slots, (expected, _) in zip(sets, _searches(arrays), strict=True):
    np.testing.assert_array_equal(slots, expected)
  golden_ssl.assert_near({"loss": value, "grad_query": grad}, arrays, True)


@pytest.mark.parametrize("num_devices", [2, 3])
def test_equal_rows_of_several_devices_are_taken_in_order(num_devices):
  # Three batches of six rows, all equal: the lowest places.
  batch, axes = 6, mesh_lib.AXES
  mesh = mesh_lib.make_mesh(jax.devices()[:num_devices])
  rows = jnp.tile(jnp.array([[1.0, 0.0]]), (18, 1))
  valid = jnp.arange(18) % 5 != 0
  slots = jax.jit(
    mesh_lib.shard_map(
      lambda t, b, v: losses.nearest_members(
        t, b, valid=v, k=20, axis_name=axes
      ),
      mesh,
      in_specs=P(axes),
      out_specs=P(axes),
    )
  )(rows[:batch], rows, _to_devices(valid, num_devices, batch))
  expected = [i for i in range(18) if i % 5]
  expected += [-1] * (20 - len(expected))
  np.testing.assert_array_equal(slots, np.tile(expected, (batch, 1)))


def test_class_means_are_those_of_a_search_for_all_members():
  arrays, _ = golden_ssl.load("cmsf/sup_all")
  tags = np.where(
    arrays["bank_index_after"] >= 0, arrays["bank_label_after"], -1
  )
  with jax.enable_x64(True):
    query, _, bank = _inputs(arrays, True)
    means = mean_shift.class_means(
      bank,
      jnp.asarray(tags),
      jnp.asarray(arrays["label"]),
      num_classes=int(tags.max()) + 1,
    )
    expected = mean_shift.member_means(
      bank, jnp.asarray(arrays["chosen_constrained"])
    )
    value = jnp.mean(mean_shift.shift_rows(query, means))
  np.testing.assert_allclose(means, expected, rtol=1e-12, atol=1e-14)
  golden_ssl.assert_near({"loss": value}, arrays, True)


def test_a_search_in_blocks_is_that_of_all_rows(monkeypatch):
  monkeypatch.setattr(mean_shift, "_BLOCK", 8)
  # Many equal values, in several blocks.
  values = np.random.default_rng(0).integers(0, 4, (5, 43)).astype(np.float32)
  values[0, 3:] = -np.inf
  for k in (1, 9, 30, 60):
    best, places = mean_shift._top(jnp.asarray(values), k)
    order = np.argsort(-values, axis=1, kind="stable")[:, :k]
    expected = np.take_along_axis(values, order, axis=1)
    np.testing.assert_array_equal(best, expected)
    np.testing.assert_array_equal(
      np.asarray(places)[expected > -np.inf], order[expected > -np.inf]
    )


@pytest.mark.parametrize(
  ("options", "message"),
  [
    ({"k": 0}, "k is 0"),
    ({"bank": jnp.ones((4, 2))}, "targets and bank"),
    ({"allowed": jnp.ones((4, 2), bool)}, r"it must be \(2, 4\)"),
  ],
)
def test_wrong_arguments_are_refused(options, message):
  arguments = {
    "targets": jnp.ones((2, 3)),
    "bank": jnp.ones((4, 3)),
    "valid": jnp.ones(4, bool),
    "k": 2,
  } | options
  with pytest.raises(ValueError, match=message):
    losses.nearest_members(**arguments)
