"""Figures of accelerators, and names of machines.

Sources, read in November 2026. TPUs: the page of each generation in Google's
"Cloud TPU documentation" (docs.cloud.google.com/tpu/docs/v3 and so on): peak
bf16 FLOP/s, HBM and its bandwidth per chip. Interconnect: a pod's all-reduce
bandwidth over its chips, which is what all links of a chip carry in one
direction (v3: 340 TB/s over 1,024; v4: 1.1 PB/s over 4,096; v5e: 51.2 TB/s over
256; v6e: 102.4 TB/s over 256); v5p: its 4,800 Gbit/s. Usable memory: what
libtpu 0.0.42.1 calls available when a program needs more. GPUs: NVIDIA's data
sheets of the SXM modules, the L4 and the GeForce RTX 4090, dense bf16, half of
NVLink's (L4 and RTX 4090: PCIe's) two-way bandwidth; of their memory, 1/16 is
left to the driver and to the libraries, an assumption.
"""

from __future__ import annotations

import dataclasses
import math
import re
from collections.abc import Mapping
from typing import Any

from paws_jax import errors

_GIB = 2**30

_SHAPES_3D = (
  *("2x2x1", "2x2x2", "2x2x4", "2x4x4", "4x4x4"),
  *("4x4x8", "4x8x8", "8x8x8", "8x8x16"),
)
_SHAPES_256 = ("1x1", "2x2", "2x4", "4x4", "4x8", "8x8", "8x16", "16x16")
_SHAPES_V3 = ("2x2", "4x4", "4x8", "8x8", "8x16", "16x16", "16x32", "32x32")


@dataclasses.dataclass(frozen=True)
class Chip:
  """One device as JAX sees it: a chip, but for v3 half of one (a core).

  Attributes:
    kind: "tpu" or "gpu".
    flops_per_second: peak of bf16 matrix products.
    memory_bytes: HBM.
    usable_bytes: of them, what a program can have.
    memory_bandwidth: bytes/s.
    interconnect_bandwidth: bytes/s that it sends to the others.
    devices_per_chip: 2 where JAX sees each core of a chip.
    shapes: known topologies; empty for GPUs, which are only counted.
    options: arguments of `get_topology_desc`.
  """

  kind: str
  flops_per_second: float
  memory_bytes: int
  usable_bytes: int
  memory_bandwidth: float
  interconnect_bandwidth: float
  devices_per_chip: int = 1
  shapes: tuple[str, ...] = ()
  options: Mapping[str, str] = dataclasses.field(default_factory=dict)


def _tpu(
  *, teraflops: float, gib: float, usable_gib: float, **rest: Any
) -> Chip:
  return Chip(
    kind="tpu",
    flops_per_second=teraflops * 1e12,
    memory_bytes=int(gib * _GIB),
    usable_bytes=int(usable_gib * _GIB),
    **rest,
  )


def _gpu(*, teraflops: float, gigabytes: float, **rest: Any) -> Chip:
  memory = int(gigabytes * 1e9)
  return Chip(
    kind="gpu",
    flops_per_second=teraflops * 1e12,
    memory_bytes=memory,
    usable_bytes=memory * 15 // 16,
    **rest,
  )


CHIPS: Mapping[str, Chip] = {
  # A chip of two cores: 123 TFLOP/s, 32 GiB, 900 GB/s, 332 GB/s.
  "v3": _tpu(
    teraflops=61.5,
    gib=16,
    usable_gib=15.48,
    memory_bandwidth=450e9,
    interconnect_bandwidth=166e9,
    devices_per_chip=2,
    shapes=_SHAPES_V3,
  ),
  "v4": _tpu(
    teraflops=275,
    gib=32,
    usable_gib=30.75,
    memory_bandwidth=1200e9,
    interconnect_bandwidth=268e9,
    shapes=_SHAPES_3D,
    # Both cores as one device, as on the machines that are rented.
    options={"chip_config_name": "megacore"},
  ),
  "v5e": _tpu(
    teraflops=197,
    gib=16,
    usable_gib=15.75,
    memory_bandwidth=819e9,
    interconnect_bandwidth=200e9,
    shapes=_SHAPES_256,
  ),
  "v5p": _tpu(
    teraflops=459,
    # The data sheet's "95 GB" is the usable part, in GiB.
    gib=96,
    usable_gib=95.74,
    memory_bandwidth=2765e9,
    interconnect_bandwidth=600e9,
    shapes=_SHAPES_3D,
  ),
  "v6e": _tpu(
    teraflops=918,
    gib=32,
    usable_gib=31.25,
    memory_bandwidth=1638e9,
    interconnect_bandwidth=400e9,
    shapes=_SHAPES_256,
  ),
  "l4": _gpu(
    teraflops=121,
    gigabytes=24,
    memory_bandwidth=300e9,
    interconnect_bandwidth=32e9,
  ),
  "a100": _gpu(
    teraflops=312,
    gigabytes=80,
    memory_bandwidth=2039e9,
    interconnect_bandwidth=300e9,
  ),
  "h100": _gpu(
    teraflops=989,
    gigabytes=80,
    memory_bandwidth=3350e9,
    interconnect_bandwidth=450e9,
  ),
  "h200": _gpu(
    teraflops=989,
    gigabytes=141,
    memory_bandwidth=4800e9,
    interconnect_bandwidth=450e9,
  ),
  "rtx4090": _gpu(
    teraflops=165,
    gigabytes=24,
    memory_bandwidth=1008e9,
    interconnect_bandwidth=32e9,
  ),
}


@dataclasses.dataclass(frozen=True)
class Machine:
  """Several chips of a kind.

  Attributes:
    name: as given, "v5e:2x4" or "h100:8".
    chip: of the table.
    num_chips: of the machine.
  """

  name: str
  chip: Chip
  num_chips: int

  @property
  def num_devices(self) -> int:
    """Devices as JAX counts them."""
    return self.num_chips * self.chip.devices_per_chip

  @property
  def unit(self) -> str:
    """What one device is called."""
    return "core (half a chip)" if self.chip.devices_per_chip > 1 else "chip"

  def larger(self, num_devices: int, *, dividing: int) -> str | None:
    """Name of the smallest of its kind that holds so much.

    Args:
      num_devices: it has at least so many.
      dividing: its number of devices divides this.

    Returns:
      None where there is none.
    """
    kind = self.name.partition(":")[0]
    if self.chip.kind == "gpu":
      sizes = {str(n): n for n in range(num_devices, dividing + 1)}
    else:
      per_chip = self.chip.devices_per_chip
      sizes = {shape: _count(shape) * per_chip for shape in self.chip.shapes}
    for shape, size in sizes.items():
      if size >= num_devices and dividing % size == 0:
        return f"{kind}:{shape}"
    return None


def parse(name: str) -> Machine:
  """Reads "v5e:2x4", a TPU's shape, or "h100:8", a number of GPUs.

  Raises:
    ValueError: an unknown chip, shape or number; lists the known.
  """
  kind, _, shape = name.partition(":")
  if kind not in CHIPS:
    raise errors.InputError(
      f"--machine={name}: unknown chip {kind!r}. {known()}"
    )
  chip = CHIPS[kind]
  if chip.kind == "gpu":
    if not re.fullmatch("[1-9][0-9]{0,4}", shape):
      raise errors.InputError(
        f"--machine={name}: give the number of GPUs, e.g. {kind}:8."
      )
    return Machine(name, chip, int(shape))
  if shape not in chip.shapes:
    raise errors.InputError(
      f"--machine={name}: unknown shape {shape!r}. {kind} has "
      f"{', '.join(f'{kind}:{s}' for s in chip.shapes)}."
    )
  return Machine(name, chip, _count(shape))


def known() -> str:
  """A sentence that lists all machines."""
  shapes = [
    f"{kind}:{'|'.join(chip.shapes)}"
    for kind, chip in CHIPS.items()
    if chip.kind == "tpu"
  ]
  gpus = [
    f"{kind}:N ({chip.memory_bytes / 1e9:.0f} GB)"
    for kind, chip in CHIPS.items()
    if chip.kind == "gpu"
  ]
  return f"Known are {', '.join(shapes)}, and for N GPUs {', '.join(gpus)}."


def _count(shape: str) -> int:
  return math.prod(int(side) for side in shape.split("x"))
