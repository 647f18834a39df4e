"""What the convolutions of a step cost, each by itself, and in PyTorch.

  python -m benchmarks.step.convolutions --config=configs/quickstart.py
  python -m benchmarks.step.convolutions --slice=wrn28-2-cpu

Takes every convolution out of the traced step, forward, by its input and by its
kernel, with the shapes, dtypes and dimension numbers that it has there on one
device, and compiles and runs it alone, with random numbers. On a CPU a device
is a core and has one thread. Prints milliseconds and GFLOP/s of each distinct
one, then the sums over all of a step. With PyTorch installed, its convolutions
(channels last) take turns with ours, and the last line is

  ratio: PyTorch's milliseconds of all convolutions of a step / ours

so above 1 ours are faster. benchmarks/step/step.py times an entire step; this
shows how much of a difference is that of the convolutions.
"""

from __future__ import annotations

import collections
import os
import statistics
from collections.abc import Callable
from collections.abc import Mapping

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np
from absl import flags

from benchmarks import recipe_command
from benchmarks import timing
from benchmarks.step import command as step_command
from benchmarks.step import traced_convolutions as step_convolutions
from paws_jax import config as config_lib
from paws_jax.parallel import cpu_devices
from paws_jax.plan import abstract_step
from paws_jax.plan import traced_costs

# So that --help shows them.
flags.adopt_module_key_flags(step_command)
_WINDOWS = flags.DEFINE_integer(
  "windows", 5, "Times that each convolution is measured.", lower_bound=1
)
_STEPS = flags.DEFINE_integer(
  "steps", 5, "Calls of a convolution in a window.", lower_bound=1
)
_WARMUP = flags.DEFINE_integer(
  "warmup", 2, "Calls of a convolution before the first window.", lower_bound=0
)

_OURS, _PEERS = "XLA", "PyTorch"


def _run(config: ml_collections.ConfigDict) -> int:
  config_lib.resolve(config)
  with_peer = step_command.peer_wanted()
  cpu_devices.use_cpu_cores(config.train.batch_size)
  _hold_to_one_thread()
  if with_peer:
    import torch

    torch.set_num_threads(1)
  step_command.print_setting(with_peer)
  found = _convolutions(config)
  print(
    f"step: {sum(found.values())} convolutions, {len(found)} distinct ones, "
    f"of 1 device of {jax.device_count()}; one thread each on a CPU"
  )
  totals = {kind: collections.Counter() for kind in step_convolutions.KINDS}
  for convolution, count in found.items():
    flops, seconds = _measure(convolution, with_peer)
    print(f"{count} x {convolution}: {_describe(flops, seconds)}", flush=True)
    total = totals[convolution.kind]
    total["flops"] += count * flops
    for name, value in seconds.items():
      total[name] += count * value
  _print_sums(totals)
  return 0


def _hold_to_one_thread() -> None:
  """Lets a convolution have one thread, whatever the number of devices."""
  options = os.getenv("XLA_FLAGS", "")
  if "xla_cpu_multi_thread_eigen" not in options:
    options = f"{options} --xla_cpu_multi_thread_eigen=false"
    os.environ["XLA_FLAGS"] = options
  # Else JAX would take most of a GPU's memory before PyTorch starts.
  os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")


def _convolutions(
  config: ml_collections.ConfigDict,
) -> Mapping[step_convolutions.Convolution, int]:
  """Those of a recipe's step on these devices, as `step_convolutions.find`."""
  if config.model.dtype == "auto" and jax.default_backend() == "cpu":
    # What "auto" is for a plan is what accelerators take.
    config.model.dtype = "float32"
  step = abstract_step.create(config_lib.resolve(config), jax.devices())
  return step_convolutions.find(step.trace().jaxpr.jaxpr)


def _measure(
  convolution: step_convolutions.Convolution, with_peer: bool
) -> tuple[int, dict[str, float]]:
  """FLOP of one convolution, and median seconds of each side."""
  rng = np.random.default_rng(0)
  # Not zeros: chips run faster on those.
  arrays = [rng.standard_normal(s, np.float32) for s in convolution.operands]
  operands = [jnp.asarray(array, convolution.dtype) for array in arrays]
  call = jax.jit(convolution.call)
  traced = call.trace(*operands)
  program = traced.lower().compile()
  sides = {_OURS: _repeated(lambda: program(*operands), jax.block_until_ready)}
  if with_peer:
    from benchmarks.torch_side import convolutions as torch_convolutions

    on_gpu = jax.default_backend() == "gpu"
    sides[_PEERS] = _repeated(
      torch_convolutions.make(convolution, *arrays, on_gpu=on_gpu),
      lambda _: torch_convolutions.wait(on_gpu),
    )
  windows = timing.in_turns(
    sides, windows=_WINDOWS.value, steps=_STEPS.value, warmup=_WARMUP.value
  )
  seconds = {name: statistics.median(w) for name, w in windows.items()}
  return traced_costs.flops(traced.jaxpr.jaxpr), seconds


def _repeated(
  call: Callable[[], object], wait: Callable[[object], object]
) -> Callable[[int], int]:
  """A side of `timing.in_turns`."""

  def run(times: int) -> int:
    for _ in range(times):
      result = call()
    wait(result)
    return times

  return run


def _describe(flops: int, seconds: Mapping[str, float]) -> str:
  return "; ".join(
    f"{name} {1e3 * value:.4g} ms, {flops / value / 1e9:.4g} GFLOP/s"
    for name, value in seconds.items()
  )


def _print_sums(totals: Mapping[str, Mapping[str, float]]) -> None:
  """Of each kind and of all convolutions of a step; the ratio at the end."""
  everything = collections.Counter()
  for kind, total in totals.items():
    everything.update(total)
    sides = {name: v for name, v in total.items() if name != "flops"}
    print(f"{kind}, all: {_describe(total['flops'], sides)}")
  flops = everything.pop("flops")
  print(f"the step's convolutions: {_describe(flops, everything)}")
  if _PEERS in everything:
    print(f"ratio: {everything[_PEERS] / everything[_OURS]:.2f}")


if __name__ == "__main__":
  recipe_command.start(_run)
