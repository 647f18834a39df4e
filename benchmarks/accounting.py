"""What a compiled step does, against what its device can do at most."""

from __future__ import annotations

import dataclasses
from typing import Any

import jax

from paws_jax import chips
from paws_jax import program_audit
from paws_jax import step_model


@dataclasses.dataclass(frozen=True)
class Costs:
  """Of one step on one device.

  Attributes:
    flops: two for each multiplication of a convolution or a matrix product,
      those with padding included. (The compiler's own count leaves these out
      and reads 3 to 7 % lower.)
    traffic: bytes to and from memory as the compiler estimates; 0: not told.
    memory: bytes that arguments and temporaries take.
  """

  flops: float
  traffic: float
  memory: int


def costs(
  call: Any, arguments: tuple[Any, ...], program: Any, *, num_steps: int = 1
) -> Costs:
  """Counts what a program does.

  Args:
    call: the jitted function.
    arguments: it was compiled for.
    program: what came out.
    num_steps: in one call.
  """
  flops = step_model.flops(call.trace(*arguments).jaxpr.jaxpr)
  traffic = (program.cost_analysis() or {}).get("bytes accessed", 0.0)
  memory = program_audit.memory(program)
  return Costs(
    flops=flops / num_steps,
    # Of a loop the compiler counts one turn.
    traffic=traffic,
    memory=memory.arguments + memory.temporaries,
  )


def describe(found: Costs, seconds: float) -> str:
  """One line: costs, rates, and shares of the device's peaks if known."""
  rate, bandwidth = found.flops / seconds, found.traffic / seconds
  told = (
    f"{found.flops / 1e9:.4g} GFLOP, {found.traffic / 1e9:.3g} GB to and from "
    f"memory, {found.memory / 2**20:.0f} MiB of it; "
    f"{rate / 1e9:.4g} GFLOP/s, {bandwidth / 1e9:.4g} GB/s"
  )
  chip = _chip()
  if chip is None:
    return told
  bound = max(
    found.flops / chip.flops_per_second, found.traffic / chip.memory_bandwidth
  )
  return (
    f"{told}; MFU {rate / chip.flops_per_second:.1%} of the bf16 peak, "
    f"{bandwidth / chip.memory_bandwidth:.1%} of the memory's bandwidth, "
    f"{bound / seconds:.1%} of the roofline"
  )


def _chip() -> chips.Chip | None:
  """What is known of this device; None: nothing."""
  kind = jax.devices()[0].device_kind.lower().replace(" ", "")
  kind = kind.replace("lite", "e")
  for name, chip in chips.CHIPS.items():
    if name in kind:
      return chip
  return None
