"""Reads tests/golden: numbers produced by the public PyTorch code.

`tests/golden/README.md` says how they were made. Arrays are in PyTorch's
layouts under PyTorch's names; `*_f64` is the truth, `*_f32` only shows how
far float32 drifts by itself.
"""

import json
import pathlib
import zlib

import jax.numpy as jnp
import numpy as np

DIRECTORY = pathlib.Path(__file__).parent / "golden"
NORMALISATIONS = {
  "cifar": ((0.4914, 0.4822, 0.4465), (0.2023, 0.1994, 0.2010)),
  "imagenet": ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
}


def load(name):
  """Returns (arrays by key, config) of golden/<name>.npz."""
  with np.load(DIRECTORY / f"{name}.npz") as file:
    arrays = dict(file)
  return arrays, json.loads(str(arrays.pop("config")))


def names(pattern):
  """Names of the files golden/<pattern>.npz, of which there must be one."""
  files = sorted(DIRECTORY.glob(pattern + ".npz"))
  assert files, pattern
  return [file.stem for file in files]


def cast(arrays, keys, x64):
  """Arrays by key, in float64 or float32."""
  dtype = jnp.float64 if x64 else jnp.float32
  return [jnp.asarray(arrays[key], dtype) for key in keys]


def assert_near(actual, arrays, *, x64):
  """Compares to `*_f64` where finite; elsewhere asks for finite numbers."""
  for key, value in actual.items():
    value = np.asarray(value)
    assert value.dtype == (np.float64 if x64 else np.float32), key
    assert np.isfinite(value).all(), key
    expected = arrays[f"{key}_f64"]
    if not np.isfinite(expected).all():
      continue
    largest = np.abs(expected).max()
    atol = 1e-8 * largest if x64 else 5e-5 * largest + 1e-6
    np.testing.assert_allclose(
      value, expected, rtol=0, atol=atol, err_msg=key, strict=False
    )


def hash_u(name, n):
  """Returns n float64 in [0, 1), a function of the name: CRC32, then mixed."""
  low = np.uint64(2**32 - 1)
  seed = np.uint64(zlib.crc32(name.encode()))
  x = (np.arange(n, dtype=np.uint64) * np.uint64(2654435761) + seed) & low
  for shift, factor in ((16, 0x85EBCA6B), (13, 0xC2B2AE35)):
    x = ((x ^ (x >> np.uint64(shift))) * np.uint64(factor)) & low
  return (x ^ (x >> np.uint64(16))) / 2.0**32


def fill(name, shape):
  """Returns the float32 weights that formula files have under this name."""
  unit = hash_u(name, int(np.prod(shape, dtype=np.int64)))
  signed = 2 * unit - 1
  leaf = name.split(".")[-1]
  if leaf == "num_batches_tracked":
    return np.zeros(shape, np.int64)
  if leaf in ("running_mean", "bias"):
    values = 0.1 * signed
  elif leaf == "running_var":
    values = 1 + 0.5 * unit
  elif len(shape) == 1:  # Scale of a BatchNorm.
    values = 1 + 0.25 * signed
  else:
    values = signed * np.sqrt(6.0 / np.prod(shape[1:]))
  return values.reshape(shape).astype(np.float32)


def checksum(name, array):
  """Returns [sum, sum of squares, dot with a probe] of an array, float64."""
  flat = np.asarray(array, np.float64).ravel()
  probe = 2 * hash_u("probe:" + name, flat.size) - 1
  return np.array([flat.sum(), flat @ flat, flat @ probe])


def normalise(images, kind):
  """uint8 [..., 3, h, w] to normalised float32 [..., h, w, 3]."""
  mean, std = NORMALISATIONS[kind]
  images = np.moveaxis(images, -3, -1) / 255.0
  return ((images - np.array(mean)) / np.array(std)).astype(np.float32)


def groups(arrays, kind):
  """Returns the crops `crop{i}_u8`, consecutive ones of a size concatenated.

  Each group goes through the encoder as one batch, in order.
  """
  result = []
  for i in range(sum(key.startswith("crop") for key in arrays)):
    crop = normalise(arrays[f"crop{i}_u8"], kind)
    if result and result[-1].shape[1:] == crop.shape[1:]:
      result[-1] = np.concatenate([result[-1], crop])
    else:
      result.append(crop)
  return result
