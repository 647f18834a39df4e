"""Reads what the compiler is given, and what it makes of it.

A lowered program is StableHLO, `jax.stages.Lowered.as_text()`. A compiled one
is HLO for one of the devices, `jax.stages.Compiled.as_text()`: one instruction
a line, `%name = shape operation(operands), attributes`.
"""

from __future__ import annotations

import dataclasses
import math
import re
from collections.abc import Mapping
from collections.abc import Sequence
from typing import Any

import jax

COLLECTIVES = (
  "all-reduce",
  "all-gather",
  "reduce-scatter",
  "all-to-all",
  "collective-permute",
)

# Bits of an element, by XLA's name of its type.
_BITS = {
  **{"pred": 8, "s4": 4, "u4": 4, "s8": 8, "u8": 8, "s16": 16, "u16": 16},
  **{"s32": 32, "u32": 32, "s64": 64, "u64": 64, "f16": 16, "bf16": 16},
  **{"f32": 32, "f64": 64, "c64": 64, "c128": 128, "f8e4m3fn": 8, "f8e5m2": 8},
  # Of what is no array.
  **{"token": 0, "opaque": 0},
}
_ARRAY = re.compile(r"\b([a-z]+[0-9]*[a-z0-9]*)\[([0-9,]*)\]")
_INSTRUCTION = re.compile(r"^\s*(?:ROOT )?%?(\S+) = (.*?) ([a-z][a-z0-9-]*)\(")
_OP_NAME = re.compile(r'op_name="([^"]*)"')
_GROUP = re.compile(r"replica_groups=\{\{([0-9,]*)\}")
_IOTA_GROUP = re.compile(r"replica_groups=\[([0-9]+),([0-9]+)\]")
_ALIAS = re.compile(r"\{[0-9, ]*\}: \(([0-9]+), ")
_TENSOR = re.compile(r"tensor<(?:[0-9]+x)*([a-z][A-Za-z0-9]*)")
# How JAX lowers calls of Python: custom calls on CPUs and GPUs, sends to the
# host and receives from it on TPUs.
_HOST_CALL = re.compile(
  r"custom_call @(\w*callback\w*)|stablehlo\.(send|recv|infeed|outfeed)\b"
)
# What gives no array of its own.
_NAMES_ONLY = ("parameter", "constant", "tuple", "get-tuple-element", "bitcast")


@dataclasses.dataclass(frozen=True)
class Collective:
  """One instruction by which devices talk to each other.

  Attributes:
    kind: one of COLLECTIVES.
    num_bytes: of the entire array: what an all-reduce sums, what an all-gather
      gives, what a reduce-scatter takes. Several arrays may share one.
    bytes_by_dtype: the same, by dtype.
    group_size: devices that take part.
    source: the operation it was made for, as JAX names it.
  """

  kind: str
  num_bytes: int
  bytes_by_dtype: Mapping[str, int]
  group_size: int
  source: str

  @property
  def sent_bytes(self) -> float:
    """What each device sends when devices pass parts around a ring.

    n devices: (n − 1)/n of the array, twice that for an all-reduce, which is a
    reduce-scatter and an all-gather; all of it for a permutation.
    """
    if self.kind == "collective-permute":
      return self.num_bytes
    share = (self.group_size - 1) / self.group_size
    return self.num_bytes * share * (2 if self.kind == "all-reduce" else 1)


def collectives(text: str, *, num_devices: int) -> list[Collective]:
  """All collectives of a program; one inside a loop counts once.

  Args:
    text: of the compiled program.
    num_devices: that take part where the text does not say.

  Raises:
    ValueError: one carries an array of unknown dtype.
  """
  found = []
  for line in text.splitlines():
    match = _INSTRUCTION.match(line)
    kind = match and match[3].removesuffix("-start")
    if match and kind in COLLECTIVES:
      found.append(_collective(kind, match, line, num_devices))
  return found


def _collective(
  kind: str, match: re.Match[str], line: str, num_devices: int
) -> Collective:
  arrays = _ARRAY.findall(match[2])
  if match[3].endswith("-start") and kind != "all-reduce":
    # These give (operands, results, and sometimes numbers of the hardware).
    arrays = [a for a in arrays if a[1]]
    half = len(arrays) // 2
    arrays = max(arrays[:half], arrays[half:], key=_total)
  group = _group_size(line) or num_devices
  # Only of this one is the result smaller than the input.
  factor = group if match[3] == "reduce-scatter" else 1
  by_dtype: dict[str, int] = {}
  for dtype, shape in arrays:
    num_bytes = factor * array_bytes(dtype, shape)
    by_dtype[dtype] = by_dtype.get(dtype, 0) + num_bytes
  source = _OP_NAME.search(line)
  return Collective(
    kind=kind,
    num_bytes=sum(by_dtype.values()),
    bytes_by_dtype=by_dtype,
    group_size=group,
    source=source[1] if source else "",
  )


def _group_size(line: str) -> int | None:
  """Devices in a replica group, written out or as [groups, size]<=[n]."""
  iota = _IOTA_GROUP.search(line)
  if iota:
    return int(iota[2])
  group = _GROUP.search(line)
  return len(group[1].split(",")) if group and group[1] else None


def _total(arrays: Sequence[tuple[str, str]]) -> int:
  return sum(array_bytes(*array) for array in arrays)


def array_bytes(dtype: str, shape: str) -> int:
  """Bytes of ("bf16", "64,7,7,512"); 0 for what is no array (token).

  Raises:
    ValueError: a dtype whose size is not known.
  """
  if dtype not in _BITS:
    raise ValueError(
      f"the compiled program has an array {dtype}[{shape}], and how large a "
      f"{dtype!r} is is not known: add it to hlo._BITS."
    )
  return math.prod(int(s) for s in shape.split(",") if s) * _BITS[dtype] // 8


def summary(found: Sequence[Collective]) -> dict[str, dict[str, int]]:
  """Of each kind that occurs, {"count", "bytes"}."""
  result = {}
  for kind in COLLECTIVES:
    of_kind = [c for c in found if c.kind == kind]
    if of_kind:
      result[kind] = {
        "count": len(of_kind),
        "bytes": sum(c.num_bytes for c in of_kind),
      }
  return result


def operation_dtypes(text: str, operation: str) -> dict[tuple[str, ...], int]:
  """How often a lowered program has an operation, by its dtypes.

  Args:
    text: StableHLO.
    operation: "convolution", "dot_general": one that is written on a line.

  Returns:
    {(dtypes of operands and, last, of the result): number}.
  """
  found: dict[tuple[str, ...], int] = {}
  for line in text.splitlines():
    if f"= stablehlo.{operation}" in line:
      _, _, types = line.rpartition(" : (")
      dtypes = tuple(_TENSOR.findall(types))
      found[dtypes] = found.get(dtypes, 0) + 1
  return found


def host_calls(text: str) -> list[str]:
  """Places of a lowered program at which it calls or waits for the host."""
  found = (match[1] or match[2] for match in _HOST_CALL.finditer(text))
  return list(found)


def donated(text: str) -> set[int]:
  """Numbers of the arguments whose memory a program uses for its results."""
  head = text.partition("\n")[0]
  _, _, aliases = head.partition("input_output_alias=")
  return {int(number) for number in _ALIAS.findall(aliases)}


@dataclasses.dataclass(frozen=True)
class Buffer:
  """An array that an instruction writes to memory.

  Attributes:
    dtype: by XLA's name, "bf16".
    shape: dimensions.
    source: the operation it was made for, as JAX names it.
  """

  dtype: str
  shape: tuple[int, ...]
  source: str


def buffers(text: str) -> list[Buffer]:
  """All arrays that the main computation of a compiled program writes.

  What stays inside a fusion, and never gets to memory, is not among them.
  """
  _, _, main = text.partition("\nENTRY ")
  main, _, _ = main.partition("\n}")
  found = []
  for line in main.splitlines():
    match = _INSTRUCTION.match(line)
    if not match or match[3] in _NAMES_ONLY:
      continue
    source = _OP_NAME.search(line)
    for dtype, shape in _ARRAY.findall(match[2]):
      dimensions = tuple(int(s) for s in shape.split(",") if s)
      found.append(Buffer(dtype, dimensions, source[1] if source else ""))
  return found


@dataclasses.dataclass(frozen=True)
class Memory:
  """Bytes of one device's memory that a program takes.

  Attributes:
    peak: at the fullest moment, all of the others included.
    arguments: state and inputs.
    temporaries: what the program itself allocates.
  """

  peak: int
  arguments: int
  temporaries: int


def memory(compiled: Any) -> Memory:
  """What the compiler says of a `jax.stages.Compiled`'s memory."""
  stats = compiled.memory_analysis()
  arguments = stats.argument_size_in_bytes
  outputs = stats.output_size_in_bytes - stats.alias_size_in_bytes
  temporaries = stats.temp_size_in_bytes
  reported = getattr(stats, "peak_memory_in_bytes", 0)
  # It counts arguments in the host's memory, which are not the device's.
  reported -= getattr(stats, "host_argument_size_in_bytes", 0)
  # Not every version reports the peak, and that of the CPU backend leaves out
  # temporaries; all together are a bound of it.
  everything = arguments + outputs + temporaries
  shardings = compiled.input_shardings, compiled.output_shardings
  devices = [d for s in jax.tree.leaves(shardings) for d in s.device_set]
  on_cpu = any(device.platform == "cpu" for device in devices)
  return Memory(
    peak=everything if on_cpu or reported <= 0 else reported,
    arguments=arguments,
    temporaries=temporaries,
  )


_UNITS = {"": 1, "K": 2**10, "M": 2**20, "G": 2**30, "T": 2**40}
_NEEDS = re.compile(r"[Uu]sed ([0-9.]+)([KMGT]?) of [0-9.]+[KMGT]? hbm")
_TEMPORARIES = re.compile(
  r"required for HLO temporaries \(([0-9.]+)([KMGT]?)\)"
)


def needed_bytes(message: str, *, argument_bytes: int) -> int | None:
  """Bytes that a program would need, out of XLA's "out of memory" message.

  Args:
    message: of the compiler.
    argument_bytes: of state and inputs, which some messages leave out.

  Returns:
    None where the message does not say.
  """
  match = _NEEDS.search(message)
  if match:
    return _bytes(match)
  match = _TEMPORARIES.search(message)
  return _bytes(match) + argument_bytes if match else None


def _bytes(match: re.Match[str]) -> int:
  return int(float(match[1]) * _UNITS[match[2]])
