"""Health metrics: each by its definition, and what a collapse looks like."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from paws_jax import losses
from paws_jax.methods import encoding
from paws_jax.methods import health_metrics
from tests import toy_method

pytestmark = pytest.mark.unoptimized


def _normal(seed, *shape):
  return np.random.default_rng(seed).normal(size=shape)


@functools.partial(jax.jit, static_argnames="temperature")
def _of_step(z_large, z_support, probs, batch, *, temperature=0.2):
  local = encoding.Embeddings(
    h_support=z_support,
    z_support=z_support,
    h_large=z_large,
    z_large=z_large,
  )
  means = health_metrics.of_step(
    local,
    probs,
    batch,
    z_support=z_support,
    z_pairs=z_large,
    temperature=temperature,
    axis_name=None,
  )
  return health_metrics.finished(means)


def _probs(classes):
  return jnp.asarray(np.eye(3)[np.asarray(classes)] * 0.7 + 0.1)


# Large views of eight images, first and second, then small ones.
CLASSES = [0, 1, 0, 0, 1, 1, 0, 1] + [0, 1, 1, 1, 1, 1, 0, 0] + [2] * 8


def test_every_metric_is_what_its_name_says():
  batch = toy_method.make_views()
  with jax.enable_x64(True):
    z_large, z_support = _normal(0, 16, 5), _normal(1, 12, 5)
    found = jax.device_get(_of_step(z_large, z_support, _probs(CLASSES), batch))
    nt_xent = losses.nt_xent_loss(z_large[:8], z_large[8:], temperature=0.2)
    rows = losses.label_rows(
      jnp.repeat(batch.support_labels, 2), batch.class_ids
    )
    suncet = losses.suncet_loss(jnp.asarray(z_support), rows, temperature=0.2)
  unit = [
    z / np.linalg.norm(z, axis=-1, keepdims=True) for z in (z_large, z_support)
  ]
  singular = np.linalg.svd(unit[1], compute_uv=False)
  shares = singular / singular.sum()
  expected = {
    "nt_xent": nt_xent,
    "suncet": suncet,
    "view_agreement": 5 / 8,
    "max_similarity": (unit[0] @ unit[1].T).max(-1).mean(),
    # The small views' class counts for nothing.
    "classes_used": 2 / 3,
    "feature_rank": np.exp(-np.sum(shares * np.log(shares))),
  }
  assert set(found) == set(expected)
  for name, value in expected.items():
    np.testing.assert_allclose(found[name], value, rtol=1e-6, err_msg=name)


@pytest.mark.parametrize("value", [0.0, 1.0])
def test_a_collapse_is_seen_and_finite(value):
  batch = toy_method.make_views()
  found = _of_step(
    np.full((16, 5), value, np.float32),
    np.full((12, 5), value, np.float32),
    _probs([1] * 24).astype(jnp.float32),
    batch,
  )
  assert all(np.isfinite(number) for number in found.values())
  assert found["feature_rank"] == pytest.approx(1, abs=1e-3)
  assert found["classes_used"] == pytest.approx(1 / 3)
  assert found["view_agreement"] == 1
  assert found["nt_xent"] == pytest.approx(np.log(15), rel=1e-5)
  assert found["max_similarity"] == pytest.approx(value, abs=1e-6)


def test_rounding_is_no_prediction():
  batch = toy_method.make_views()
  noise = 1e-5 * np.random.default_rng(0).normal(size=(24, 3))
  found = _of_step(
    _normal(0, 16, 5),
    _normal(1, 12, 5),
    (1 / 3 + noise).astype(np.float32),
    batch,
  )
  assert found["view_agreement"] == 1
  assert found["classes_used"] == pytest.approx(1 / 3)


def test_one_support_of_a_class_has_none_to_vote_for_it():
  batch = toy_method.make_views()
  batch = batch._replace(
    support=batch.support[:3, :1], support_labels=batch.support_labels[:3]
  )
  found = _of_step(_normal(0, 16, 5), _normal(1, 3, 5), _probs(CLASSES), batch)
  assert "suncet" not in found
  assert "nt_xent" in found


def test_the_rank_of_many_embeddings_is_that_of_128_of_them():
  rows = jnp.asarray(_normal(0, 300, 40), jnp.float32)
  found = health_metrics.feature_rank(rows)
  places = np.round(np.linspace(0, 299, 128)).astype(int)
  expected = losses.effective_rank(rows[places])
  np.testing.assert_allclose(found, expected, rtol=1e-6)
  assert 30 < found <= 40


def test_the_rank_counts_directions_not_lengths():
  rows = jnp.eye(6)[:4] * jnp.array([[1.0], [2.0], [30.0], [400.0]])
  assert losses.effective_rank(rows) == pytest.approx(4, rel=1e-5)
  # Rounding makes no directions of its own.
  same = jnp.tile(jnp.asarray(_normal(0, 1, 40), jnp.float32), (100, 1))
  assert losses.effective_rank(same) == pytest.approx(1, abs=1e-3)
