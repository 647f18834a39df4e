"""Strict settings for all tests, eight CPU devices, one compilation cache."""

import os
import shutil
import tempfile

import jax

from paws_jax.parallel import cpu_devices

jax.config.update("jax_num_cpu_devices", 8)
jax.config.update("jax_numpy_rank_promotion", "raise")
jax.config.update("jax_debug_key_reuse", True)
cpu_devices.limit_blas_threads()

# What one test has compiled another need not, nor the processes they start. The
# controller of several workers comes first, and they inherit its variable.
_VARIABLE = "JAX_COMPILATION_CACHE_DIR"
_OWN = None
if _VARIABLE not in os.environ:
  _OWN = os.environ[_VARIABLE] = tempfile.mkdtemp(prefix="compiled-")
jax.config.update("jax_compilation_cache_dir", os.environ[_VARIABLE])
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.5)


def pytest_unconfigure():
  if _OWN is not None:
    shutil.rmtree(_OWN, ignore_errors=True)
