"""Chunks of one device are what as many devices compute, to the last digits.

The laws of entire steps take as many programs as there are numbers of devices:
each method has one of the two forms of a step in chunks, one program or several
calls.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from paws_jax import config as config_lib
from paws_jax import data
from paws_jax.methods import chunks
from paws_jax.methods import encoding
from paws_jax.models import encoder as encoder_lib
from paws_jax.parallel import mesh as mesh_lib
from tests import toy_method
from tests import toy_training
from tests.methods import laws_test

pytestmark = pytest.mark.unoptimized(exact=True)
# Rows of two kinds, supports and images; of the supports two are padding.
_SIZES = (6, 8)
_MASK = np.arange(sum(_SIZES)) % 6 < 4
_MASK[_SIZES[0] :] = True


def _encoder(**settings):
  encoder = toy_method.create(name="paws").encoder
  return encoder_lib.with_settings(encoder, **settings) if settings else encoder


@functools.cache
def _weights():
  encoder = toy_method.create(name="paws")
  with jax.enable_x64(True):
    return toy_method.init(encoder, toy_method.make_views())


def _rows(seed=0):
  rng = np.random.default_rng(seed)
  return tuple(rng.normal(size=(size, 4, 4, 3)) for size in _SIZES)


def _of_all(encoder, params, stats, parts, mask):
  """(a number that depends on every embedding, the statistics)."""
  h, z, stats = encoding.encode(encoder, params, stats, parts, mask=mask)
  weights = jnp.cos(jnp.arange(h.size, dtype=float)).reshape(h.shape)
  return jnp.sum(weights * (h + 2 * z**2)), stats


@functools.partial(jax.jit, static_argnums=0)
def _encode(encoder, params, stats, parts, mask):
  return encoding.encode(encoder, params, stats, parts, mask=mask)


@functools.partial(jax.jit, static_argnums=0)
def _gradient(encoder, params, stats, parts, mask):
  return jax.value_and_grad(
    functools.partial(_of_all, encoder), argnums=(0, 2), has_aux=True
  )(params, stats, parts, mask)


def _of_runs(encoder, count, params, stats, parts, *, mask):
  """Chunk by chunk as it is written down, and statistics as devices do."""
  embeddings, masks = [], np.split(mask, [_SIZES[0]])
  updated = []
  for c in range(count):
    runs = [jnp.split(part, count)[c] for part in parts]
    valid = np.concatenate([np.split(part, count)[c] for part in masks])
    h, z, new = encoding.encode(
      encoder, params, stats, tuple(runs), mask=jnp.asarray(valid)
    )
    embeddings.append((h, z))
    if valid.any():
      updated.append(new)
  number = _SIZES[0] // count
  in_order = [
    jnp.concatenate(
      [rows[i][:number] for rows in embeddings]
      + [rows[i][number:] for rows in embeddings]
    )
    for i in range(2)
  ]
  mean = jax.tree.map(lambda *x: sum(x) / len(x), *updated)
  return *in_order, mean


def test_chunks_are_encoded_in_order_and_as_groups_of_their_own():
  encoder, mask = _encoder(), _MASK
  with jax.enable_x64(True):
    params, stats = _weights()
    explicit = functools.partial(_of_runs, encoder, 2, mask=mask)
    expected = jax.jit(explicit)(params, stats, _rows())
    chunked = encoder.clone(chunking=chunks.InScan(2))
    actual = _encode(chunked, params, stats, _rows(), mask)
  toy_method.assert_same(actual, expected, atol=1e-10)


def test_a_chunk_without_a_valid_row_leaves_statistics_alone():
  """Of supports alone, where the last chunk is padding."""
  mask = np.arange(6) < 3
  with jax.enable_x64(True):
    params, stats = _weights()
    rows = _rows()[0]
    chunked = _encoder().clone(chunking=chunks.InScan(2))
    *_, actual = _encode(chunked, params, stats, rows, mask)
    *_, expected = _encode(_encoder(), params, stats, rows[:3], None)
  toy_method.assert_same(actual, expected, atol=1e-10)


def test_gradients_are_those_of_all_rows_at_once():
  """Where BatchNorm is frozen, chunks change nothing."""
  encoder = _encoder().clone(freeze_bn=True)
  with jax.enable_x64(True):
    results = [
      _gradient(each, *_weights(), _rows(), jnp.asarray(_MASK))
      for each in (encoder.clone(chunking=chunks.InScan(2)), encoder)
    ]
  toy_method.assert_same(*results, atol=1e-10)


def test_groups_that_were_there_before_are_divided_among_chunks():
  """Groups are runs of one kind of rows."""
  chunked = _encoder(num_groups=2).clone(chunking=chunks.InScan(2))
  with jax.enable_x64(True):
    results = [
      _encode(each, *_weights(), _rows()[1], None)
      for each in (chunked, _encoder(num_groups=4))
    ]
  toy_method.assert_same(*results, atol=1e-10)


@pytest.mark.parametrize("padding", [(2, 3), (2, 3, 6, 7)])
def test_devices_share_the_statistics_of_their_chunks(padding):
  """Chunk c of all devices is a group, with padding on one of them or both."""
  mesh = mesh_lib.make_mesh(jax.devices()[:2])
  shared = _encoder(axis_name=mesh_lib.AXES)
  shared = shared.clone(chunking=chunks.InScan(2))
  images, mask = _rows()[1], np.isin(np.arange(8), padding, invert=True)
  everywhere, spread = mesh_lib.REPLICATED, mesh_lib.BATCH
  with jax.enable_x64(True):
    params, stats = _weights()
    *actual, changed = jax.jit(
      mesh_lib.shard_map(
        lambda *args: _encode(shared, *args),
        mesh,
        in_specs=(everywhere, everywhere, spread, spread),
        out_specs=(spread, spread, everywhere),
      )
    )(params, stats, images, jnp.asarray(mask))
    expected, updated = [], []
    for rows in ([0, 1, 4, 5], [2, 3, 6, 7]):
      *outputs, new = _encode(
        _encoder(), params, stats, images[rows], jnp.asarray(mask[rows])
      )
      expected.append(outputs)
      updated += [jax.device_get(new)] if mask[rows].any() else []
    actual = jax.device_get(actual)
  mean = jax.tree.map(lambda *x: sum(x) / len(x), *updated)
  toy_method.assert_same(changed, mean, atol=1e-10)
  for i, rows in enumerate(zip(*expected, strict=True)):
    wanted = np.concatenate(rows)[[0, 1, 4, 5, 2, 3, 6, 7]]
    toy_method.assert_same(actual[i][mask], wanted[mask], atol=1e-10)


@pytest.mark.parametrize("where", ["device", "host"])
def test_views_that_are_cut_later_are_the_views(where):
  """Also one of several, and all of them in a row."""
  spec = config_lib.ViewSpec(size=4, jitter_probability=0, blur_probability=0)
  # Crops that the host has cut have an axis of their own for the views.
  shape = (3, 6, 6, 3) if where == "device" else (3, 2, 4, 4, 3)
  images = jax.random.bits(jax.random.key(1), shape, jnp.uint8)
  keys = jax.random.key_data(jax.random.split(jax.random.key(0), (3, 2)))
  sizes = jnp.full((3, 2), 6) if where == "device" else None
  uncut = data.Uncut(images, sizes, keys, spec, (0.5,) * 3, (0.25,) * 3)
  some = uncut[:, 1], uncut[:, -1], encoding.fold_views(uncut)
  views, *cut = jax.jit(lambda *x: [each.cut() for each in x])(uncut, *some)
  assert uncut.shape == views.shape == (3, 2, 4, 4, 3)
  expected = views[:, 1], views[:, -1], encoding.fold_views(views)
  for each, actual, wanted in zip(some, cut, expected, strict=True):
    assert each.shape == wanted.shape
    np.testing.assert_allclose(actual, wanted, atol=1e-5)
  with pytest.raises(IndexError, match="views"):
    uncut[0, 1]


# --- Entire steps ------------------------------------------------------------


def _run(name, num_devices, count, *, one_program=False):
  def make(axis_name):
    method = toy_method.create(
      name=name,
      axis_name=axis_name,
      health_metrics=False,
      **laws_test.FIELDS.get(name, {}),
    )
    return toy_method.in_chunks(method, count, own_statistics=True)

  with jax.enable_x64(True):
    setup = toy_training.make(
      make,
      num_devices,
      chunks=count,
      bn_group_size=1,
      one_program=one_program,
    )
    state, rows = setup.run(setup.initial_state(), 0, 2)
    return jax.device_get(state), rows


@pytest.mark.slow
@pytest.mark.parametrize(
  ("name", "num_devices", "count", "one_program"),
  [
    ("paws", 2, 2, False),
    ("simclr", 1, 3, True),
    ("swav", 1, 2, False),
    ("byol", 1, 2, True),
    ("moco", 1, 2, False),
  ],
)
def test_chunks_are_what_as_many_devices_compute(
  name, num_devices, count, one_program
):
  """Two steps, and all that they leave behind, metrics included."""
  state, rows = _run(name, num_devices, count, one_program=one_program)
  expected, expected_rows = _run(name, num_devices * count, 1)
  toy_method.assert_same(rows, expected_rows, atol=1e-10)
  for part in ("params", "batch_stats", "opt_state"):
    actual = getattr(state, part)
    toy_method.assert_same(actual, getattr(expected, part), atol=1e-10)
