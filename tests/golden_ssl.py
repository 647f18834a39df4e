"""Reads tests/golden/ssl and tests/golden/cmsf, and compares with them."""

import jax.numpy as jnp
import numpy as np

from tests import golden_reference


def load(name):
  """Returns (arrays by key, config) of golden/<directory>/<name>.npz."""
  return golden_reference.load(name)


def floats(arrays, keys, x64):
  """Arrays by key, in float64 or float32."""
  return golden_reference.cast(arrays, keys, x64)


def assert_array(actual, expected, x64, *, rtol=1e-9, err_msg=""):
  """Compares with float64 numbers, to the READMEs' tolerances."""
  actual = np.asarray(actual)
  assert actual.dtype == (np.float64 if x64 else np.float32), err_msg
  assert np.isfinite(actual).all(), err_msg
  largest = np.abs(expected).max()
  atol = rtol * largest + 1e-12 if x64 else 5e-5 * largest + 1e-6
  np.testing.assert_allclose(
    actual, expected, rtol=0, atol=atol, err_msg=err_msg
  )


def assert_near(actual, arrays, x64):
  """Compares arrays by key with `<key>_f64`."""
  for key, value in actual.items():
    assert_array(value, arrays[f"{key}_f64"], x64, err_msg=key)


def unit(rows):
  """Rows of unit length, in float64."""
  norms = np.linalg.norm(np.asarray(rows, np.float64), axis=-1, keepdims=True)
  return jnp.asarray(rows / np.maximum(norms, 1e-12))
