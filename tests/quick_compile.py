"""Compilation in a third of the time, to programs of nearly the same values.

Where programs are many or large and their batches small, most of the time of a
test is the compiler's.
"""

import contextlib

import jaxlib
from jax._src import compiler

# What jax_disable_most_optimizations sets.
_EXACT = {
  "xla_backend_optimization_level": 0,
  "xla_llvm_disable_expensive_passes": True,
}
# And fusions by XLA's former emitter, which newer versions of JAX lack: float64
# functions are then right to seven digits only.
_OPTIONS: dict[str, int | bool] = dict(_EXACT)
if jaxlib.version.__version_info__ < (0, 11):
  _OPTIONS["xla_cpu_use_fusion_emitters"] = False
# The same in a process that a test starts.
ENVIRON = {
  "XLA_FLAGS": " ".join(
    f"--{name}={str(value).lower()}" for name, value in _OPTIONS.items()
  )
}


@contextlib.contextmanager
def quick_compile(*, exact=False):
  """Leaves XLA's expensive passes out of what is compiled meanwhile.

  Args:
    exact: in half of the time only, to the last digits of float64.
  """
  chosen = _EXACT if exact else _OPTIONS
  get_compile_options = compiler.get_compile_options

  def get_quick_options(*args, **kwargs):
    options = get_compile_options(*args, **kwargs)
    options.env_option_overrides = [
      *chosen.items(),
      *options.env_option_overrides,
    ]
    return options

  compiler.get_compile_options = get_quick_options
  try:
    yield
  finally:
    compiler.get_compile_options = get_compile_options
