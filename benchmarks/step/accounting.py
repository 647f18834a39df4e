"""What a compiled step does, against what its device can do at most."""

from __future__ import annotations

import dataclasses
from typing import Any

import jax

from paws_jax.plan import chips
from paws_jax.plan import hlo
from paws_jax.plan import traced_costs

# Names in `chips.CHIPS` of devices as JAX calls them. Written out, since a
# relative has other peaks: an A100 of 40 GB, an H100 PCIe, a part of a GPU.
_CHIPS = {
  "TPU v3": "v3",
  "TPU v4": "v4",
  "TPU v5 lite": "v5e",
  "TPU v5e": "v5e",
  "TPU v5": "v5p",
  "TPU v5p": "v5p",
  "TPU v6 lite": "v6e",
  "TPU v6e": "v6e",
  "NVIDIA L4": "l4",
  "NVIDIA A100-SXM4-80GB": "a100",
  "NVIDIA H100 80GB HBM3": "h100",
  "NVIDIA H200": "h200",
}


@dataclasses.dataclass(frozen=True)
class StepCosts:
  """Of one step on one device.

  Attributes:
    flops: two for each multiplication of a convolution or a matrix product,
      those with padding included (the compiler's own count leaves these out
      and reads 3 to 7 % lower), and what `train.remat` computes again.
    traffic: bytes to and from memory as the compiler estimates; 0: unknown.
    peak_memory: bytes at the fullest moment, arguments included.
  """

  flops: float
  traffic: float
  peak_memory: int


def costs(
  call: Any, arguments: tuple[Any, ...], program: Any, *, num_steps: int = 1
) -> StepCosts:
  """Counts what a program does.

  Args:
    call: the jitted function.
    arguments: it was compiled for.
    program: what came out.
    num_steps: in one call.
  """
  flops = traced_costs.flops(call.trace(*arguments).jaxpr.jaxpr)
  traffic = (program.cost_analysis() or {}).get("bytes accessed", 0.0)
  return StepCosts(
    flops=flops / num_steps,
    # Of a loop the compiler counts one turn.
    traffic=traffic,
    peak_memory=hlo.memory(program).peak,
  )


def describe(found: StepCosts, seconds: float, *, model_flops: float) -> str:
  """One line: costs, rates, and shares of the device's peaks if known.

  Args:
    found: of a step.
    seconds: that it takes.
    model_flops: of its model part, which alone counts for MFU. With
      `train.remat` they hold what is computed again, and MFU is then what
      others call hardware utilisation.
  """
  rate, bandwidth = found.flops / seconds, found.traffic / seconds
  told = (
    f"{found.flops / 1e9:.4g} GFLOP, {found.traffic / 1e9:.3g} GB to and from "
    f"memory, peak memory {found.peak_memory / 2**20:.0f} MiB; "
    f"{rate / 1e9:.4g} GFLOP/s, {bandwidth / 1e9:.4g} GB/s"
  )
  name = _CHIPS.get(jax.devices()[0].device_kind)
  if name is None:
    return told
  chip = chips.CHIPS[name]
  bound = max(
    found.flops / chip.flops_per_second, found.traffic / chip.memory_bandwidth
  )
  return (
    f"{told}; of the peaks of {name}: "
    f"MFU {model_flops / seconds / chip.flops_per_second:.1%} in bf16, "
    f"{bandwidth / chip.memory_bandwidth:.1%} of the memory's bandwidth, "
    f"{bound / seconds:.1%} of the roofline"
  )
