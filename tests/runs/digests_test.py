"""Digests see every change, and no sharding."""

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec

from paws_jax.runs import digests

DTYPES = (
  "float32",
  "bfloat16",
  "float16",
  "int32",
  "uint32",
  "int8",
  "uint16",
  "bool",
)
WIDE_DTYPES = ("float64", "int64")


def array(dtype, shape=(4, 5), seed=0):
  rng = np.random.default_rng(seed)
  if dtype == "bool":
    return rng.integers(0, 2, shape).astype(bool)
  if "int" in dtype:
    return rng.integers(0, 100, shape).astype(dtype)
  return rng.standard_normal(shape).astype(
    ml_dtypes.bfloat16 if dtype == "bfloat16" else dtype
  )


def digest(value):
  return int(digests.compute(jnp.asarray(value)))


def flip(value, bit):
  """A copy of an array with one bit of its memory flipped."""
  data = bytearray(value.tobytes())
  data[bit // 8] ^= 1 << bit % 8
  return np.frombuffer(bytes(data), value.dtype).reshape(value.shape)


@pytest.mark.parametrize("dtype", DTYPES + WIDE_DTYPES)
def test_digest_sees_every_flipped_bit(dtype):
  with jax.enable_x64(dtype in WIDE_DTYPES):
    value = array(dtype, (3, 2))
    # In memory a boolean is a byte, of which only the lowest bit may be set.
    step = 8 if dtype == "bool" else 1
    flipped = [
      digest(flip(value, bit)) for bit in range(0, value.nbytes * 8, step)
    ]
    assert jnp.asarray(value).dtype == dtype
  assert digest(value) not in flipped
  assert len(set(flipped)) == len(flipped)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "int32", "bool"])
def test_digest_sees_swapped_words(dtype):
  value = array(dtype, (64,))
  swaps = 0
  for i in range(0, 64, 7):
    for j in range(i):
      if value[i] == value[j]:
        continue
      swapped = value.copy()
      swapped[[i, j]] = swapped[[j, i]]
      assert digest(swapped) != digest(value), (i, j)
      swaps += 1
  assert swaps > 100


def test_digest_sees_opposite_and_round_numbers_swapped():
  # They differ in their highest bits only, which a weighted sum loses.
  for pair in ([1.5, -1.5], [0.0, 1.0], [0.0, -0.0], [1.0, 2.0]):
    for place in range(1, 64, 3):
      value = np.zeros(64, np.float32)
      value[[0, place]] = pair
      swapped = value.copy()
      swapped[[0, place]] = pair[::-1]
      assert digest(value) != digest(swapped), (pair, place)


def test_digest_sees_a_transposed_array():
  value = array("float32", (4, 4))
  assert digest(value) != digest(value.T)


def test_digest_of_empty_and_scalar_arrays():
  assert digest(np.zeros((0, 3), np.float32)) == 0
  assert digest(np.float32(1)) != digest(np.float32(2))


def test_digest_of_wide_integers():
  with jax.enable_x64(True):
    low, high = np.int64([1]), np.int64([1 << 32])
    assert digest(low) != digest(high)


@pytest.mark.parametrize("dtype", DTYPES + WIDE_DTYPES)
@pytest.mark.parametrize("shape", [(), (7,), (0, 3), (300, 301)])
def test_host_and_devices_give_the_same(dtype, shape):
  """Digests of files that were written on accelerators are compared on CPUs."""
  with jax.enable_x64(dtype in WIDE_DTYPES):
    value = jnp.asarray(array(dtype, shape))
    on_host, on_devices = digests.compute(value), digests._on_devices(value)
  assert isinstance(on_host, np.uint32)
  assert int(on_host) == int(on_devices)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "bool"])
def test_digest_does_not_depend_on_the_sharding(dtype):
  value = array(dtype, (16, 8))
  expected = digest(value)
  mesh = jax.make_mesh(
    (4, 2), ("x", "y"), axis_types=(jax.sharding.AxisType.Auto,) * 2
  )
  for spec in (("x",), (None, "y"), ("y", "x"), (("x", "y"),), ()):
    spread = jax.device_put(value, NamedSharding(mesh, PartitionSpec(*spec)))
    assert int(digests._on_devices(spread)) == expected, spec
    assert int(digests.compute(spread)) == expected, spec
