"""Strict settings for all tests, eight CPU devices, one compilation cache."""

import collections
import gc
import os
import shutil
import tempfile

import jax
import pytest

from paws_jax.parallel import cpu_devices
from tests import quick_compile

jax.config.update("jax_num_cpu_devices", 8)
jax.config.update("jax_numpy_rank_promotion", "raise")
jax.config.update("jax_debug_key_reuse", True)
cpu_devices.limit_blas_threads()

# What one test has compiled another need not, nor the processes they start. The
# controller of several workers comes first, and they inherit its variable.
_CACHE = "JAX_COMPILATION_CACHE_DIR"
_OWN_CACHE = None
if _CACHE not in os.environ:
  _OWN_CACHE = os.environ[_CACHE] = tempfile.mkdtemp(prefix="compiled-")
jax.config.update("jax_compilation_cache_dir", os.environ[_CACHE])
_SECONDS = "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"
os.environ.setdefault(_SECONDS, "0")
jax.config.update(_SECONDS.lower(), float(os.environ[_SECONDS]))

# Nor does a test write to the user's cache.
_XDG = "XDG_CACHE_HOME"
_OWN_HOME = os.environ[_XDG] = tempfile.mkdtemp(prefix="cache-")

# Their tests start processes that train.
_LONG = ("end_to_end", "benchmarks")


@pytest.fixture(scope="module", autouse=True)
def _devices(request):
  """Shows a module marked `devices(n)` so many of the eight."""
  marker = request.node.get_closest_marker("devices")
  if marker is None:
    yield
    return
  (number,) = marker.args
  devices = jax.devices()[:number]
  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(jax, "devices", lambda *_: list(devices))
    patch.setattr(jax, "device_count", lambda *_: number)
    yield


@pytest.fixture(scope="module", autouse=True)
def _optimizations(request):
  """Leaves XLA's expensive passes out of a module marked `unoptimized`."""
  marker = request.node.get_closest_marker("unoptimized")
  if marker is None:
    yield
    return
  # JAX finds compiled programs by what they compute, not by how.
  jax.clear_caches()
  with quick_compile.quick_compile(**marker.kwargs):
    yield
  jax.clear_caches()


def pytest_collection_modifyitems(items):
  """Puts long files first, so that no worker is left with one at the end."""
  slow = collections.Counter(
    item.path for item in items if item.get_closest_marker("slow")
  )
  items.sort(
    key=lambda item: (
      not set(_LONG).intersection(item.path.parts),
      -slow[item.path],
    )
  )


def pytest_collection_finish():
  """Spares garbage collections what has been imported, which stays."""
  gc.collect()
  gc.freeze()


def pytest_unconfigure():
  if _OWN_CACHE is not None:
    shutil.rmtree(_OWN_CACHE, ignore_errors=True)
  shutil.rmtree(_OWN_HOME, ignore_errors=True)
