"""What a step's costs mean on a chip: whether it fits, and how fast at most.

The roofline of Williams et al. (2009), with a third roof for the interconnect:
no step is faster than its arithmetic at the chip's peak, than its traffic at
the memory's bandwidth, or than its messages at the interconnect's.
"""

from __future__ import annotations

import dataclasses
from typing import Any

from paws_jax.parallel import mesh
from paws_jax.plan import abstract_step
from paws_jax.plan import chips
from paws_jax.plan import hlo
from paws_jax.plan import memory

# Suggested sizes leave a little of the memory free.
_FILLED = 0.95
_GPUS_OF_A_MACHINE = 8
# Share of the memory from which on images are worth advice.
_LARGE = 0.05


@dataclasses.dataclass(frozen=True)
class StepCosts:
  """Of one step on one device.

  Attributes:
    method: "compiled", with the effort, or that it is a model's.
    peak_bytes: at the fullest moment; None: too much, and unknown.
    argument_bytes: state and inputs; None as the following: not known.
    temporary_bytes: what the program itself allocates.
    flops: of the step.
    bytes_accessed: to and from memory.
    collectives: of the program.
    too_large: the compiler could not fit it.
    host_bytes_read: of canvases in the host's memory, as often as a pass sends
      them.
  """

  method: str
  peak_bytes: int | None
  argument_bytes: int | None = None
  temporary_bytes: int | None = None
  flops: float | None = None
  bytes_accessed: float | None = None
  collectives: list[hlo.Collective] | None = None
  too_large: bool = False
  host_bytes_read: int = 0


def waiting_bytes(step: abstract_step.Step) -> int:
  """Bytes on a device of batches that wait for their step."""
  return memory.PREFETCHED * _image_bytes(step)[0]


def _image_bytes(step: abstract_step.Step) -> tuple[int, int]:
  """Bytes of a device's images of a step, on it and in the host's memory."""
  if step.dataset.in_memory:
    return 0, 0
  here = memory.num_bytes(step.batch) - step.host_bytes
  size = step.trainer.mesh.size
  return -(-here // size), step.host_bytes // size


def assess(
  step: abstract_step.Step, target: chips.Machine, costs: StepCosts
) -> dict[str, Any]:
  """The plan: what plan.json holds. All sizes are of one device."""
  chip, config = target.chip, step.train
  waiting = waiting_bytes(step)
  on_device, on_host = _image_bytes(step)
  needed = None if costs.peak_bytes is None else costs.peak_bytes + waiting
  fits = not costs.too_large
  fits &= needed is not None and needed <= chip.usable_bytes
  plan = {
    "topology": target.name,
    "num_devices": target.num_devices,
    "devices_per_chip": chip.devices_per_chip,
    "method": costs.method,
    "batch_size": config.batch_size,
    "num_supports": step.num_supports,
    "remat": config.remat,
    "chunks": config.chunks,
    "fits": fits,
    "peak_memory_bytes": costs.peak_bytes,
    "argument_bytes": costs.argument_bytes,
    "temporary_bytes": costs.temporary_bytes,
    "waiting_batches_bytes": waiting,
    "image_bytes_from_host": on_device + costs.host_bytes_read,
    "host_memory_bytes": on_host * memory.host_batches(config.steps_per_call),
    "usable_memory_bytes": chip.usable_bytes,
    "memory_bytes": chip.memory_bytes,
    "flops": costs.flops,
    "bytes_accessed": costs.bytes_accessed,
    "collectives": hlo.summary(costs.collectives or []),
    "steps_per_epoch": step.pipeline.steps_per_epoch,
    "minutes": config.minutes,
  }
  plan |= _speed(step, chip, costs)
  return plan | {"advice": [] if fits else _advice(step, target, needed)}


def _speed(
  step: abstract_step.Step, chip: chips.Chip, costs: StepCosts
) -> dict[str, Any]:
  """Seconds that a step takes at least, by what limits it, and what follows."""
  if costs.collectives is None or costs.too_large:
    return dict.fromkeys(
      (
        *("step_seconds_by_limit", "limited_by", "collective_sent_bytes"),
        *("step_seconds_bound", "images_per_second_bound", "hours_bound"),
      )
    ) | {"epochs": step.train.epochs}
  # What was compiled has all costs.
  assert costs.flops is not None
  assert costs.bytes_accessed is not None
  sent = sum(c.sent_bytes for c in costs.collectives)
  seconds = {
    "arithmetic": costs.flops / chip.flops_per_second,
    "memory": costs.bytes_accessed / chip.memory_bandwidth,
    "interconnect": sent / chip.interconnect_bandwidth,
  }
  limit = max(seconds, key=seconds.__getitem__)
  per_epoch = step.pipeline.steps_per_epoch
  budget = 60 * step.train.minutes
  epochs = step.train.epochs or int(budget / seconds[limit] / per_epoch)
  return {
    "collective_sent_bytes": sent,
    "step_seconds_by_limit": seconds,
    "limited_by": limit,
    "step_seconds_bound": seconds[limit],
    "images_per_second_bound": step.images_per_step / seconds[limit],
    "epochs": epochs,
    "hours_bound": epochs * per_epoch * seconds[limit] / 3600,
  }


def _advice(
  step: abstract_step.Step, target: chips.Machine, needed: int | None
) -> list[str]:
  """What to change about a step that does not fit."""
  state = memory.num_bytes(step.state)
  fixed = state + 2 * memory.num_bytes(step.state.params)
  room = _FILLED * target.chip.usable_bytes - fixed
  if room <= 0:
    return [
      f"state and gradients alone take {_bytes(fixed)}: lower model.width, or "
      "use chips with more memory"
    ]
  advice = []
  if step.train.remat == "none":
    advice.append(
      "--config.train.remat=dots keeps about half of the activations, for "
      "little more arithmetic; 'all' keeps the least, for a third more"
    )
  chunks = step.train.chunks
  if step.trainer.method.config.allows_chunks:
    advice.append(
      f"--config.train.chunks={2 * chunks} encodes half as many images at a "
      "time"
      if chunks > 1
      else "--config.train.chunks=auto encodes a step run by run, for a third "
      "more arithmetic; each run is a BatchNorm batch of its own"
    )
  images = _image_bytes(step)[0]
  if images > _LARGE * room:
    advice.append(
      f"images take {_bytes(images)} on the device, several batches at a time: "
      "a smaller data.canvas_size makes them smaller, and crops less sharp; "
      "docs/small_hardware.md says when data.canvas_memory=host leaves them in "
      "the host's memory"
    )
  general = (
    "lower train.batch_size or support.images_per_class, or use more chips"
  )
  if needed is None:
    return [*advice, general]
  # What a step keeps, beside that, grows with the images of a device.
  ratio = room / (needed - fixed)
  devices = target.num_devices
  batch = int(step.train.batch_size * ratio) // devices * devices
  if chunks > 1:
    # Most of what they keep does not grow with the batch.
    batch = 0
  if batch:
    advice.append(
      f"on {target.name}, about train.batch_size={batch:,} (now "
      f"{step.train.batch_size:,}) with {int(step.num_supports * ratio):,} "
      f"supports (now {step.num_supports:,}: support.classes_per_step x "
      "images_per_class)"
    )
  larger = target.larger(
    int(devices / ratio) + 1, dividing=step.train.batch_size
  )
  if larger:
    advice.append(f"the recipe as it is, on about --machine={larger}")
  return advice if batch or larger else [*advice, general]


def print_sizes(step: abstract_step.Step, target: chips.Machine) -> None:
  """Says what a step consists of."""
  devices = target.num_devices
  chunks = step.train.chunks
  padded = mesh.padded_size(step.num_supports, step.trainer.mesh, chunks)
  print(
    f"{target.name}: {target.num_chips:,} chips, {devices:,} devices\n"
    f"a step of {step.dataset.name}: "
    f"{step.train.batch_size:,} unlabelled images, each device "
    f"{step.train.batch_size / devices:g}; {step.num_supports:,} supports, "
    f"each device {padded // devices:,}"
    + (
      f", in {chunks:,} chunks of "
      f"{step.train.batch_size // devices // chunks:,} + "
      f"{padded // devices // chunks:,}, each a BatchNorm batch of its own"
    )
    * (chunks > 1),
    flush=True,
  )


def print_plan(plan: dict[str, Any], target: chips.Machine) -> None:
  """Prints the plan of `assess`."""
  lines = [f"\nMemory of each {target.unit} ({plan['method']})"]
  lines += [f"  {line}" for line in _memory_lines(plan)]
  if plan["step_seconds_bound"] is not None:
    lines += [f"\nA step, on each {target.unit}"]
    lines += [f"  {line}" for line in _speed_lines(plan)]
    if target.chip.kind == "gpu" and target.num_chips > _GPUS_OF_A_MACHINE:
      lines.append(
        "  among several machines messages take longer than on the NVLink "
        "counted here"
      )
  if plan["advice"]:
    lines += ["\nWhat to change"]
    lines += [f"  {line}" for line in plan["advice"]]
  print("\n".join(lines), flush=True)


def _memory_lines(plan: dict[str, Any]) -> list[str]:
  peak, waiting = plan["peak_memory_bytes"], plan["waiting_batches_bytes"]
  usable = plan["usable_memory_bytes"]
  verdict = "it fits" if plan["fits"] else "it DOES NOT FIT"
  if peak is None:
    needed = f"more than there is: {verdict}"
  else:
    needed = f"{_bytes(peak)}, and {_bytes(waiting)} of batches that wait: "
    needed += verdict
  lines = [
    f"usable {_bytes(usable)} of {_bytes(plan['memory_bytes'])}",
    f"needed {needed}",
  ]
  if plan["argument_bytes"] is not None:
    lines.append(
      f"arguments {_bytes(plan['argument_bytes'])}, temporaries "
      f"{_bytes(plan['temporary_bytes'])}"
    )
  kept = plan["host_memory_bytes"]
  if kept:
    lines.append(
      f"in the host's memory {_bytes(kept)} of canvases for each device"
    )
  if any(f"level {level}" in plan["method"] for level in ("O0", "O1")):
    lines.append(
      "a low level gives an upper bound; with JAX_OPTIMIZATION_LEVEL=O2 it "
      "takes a few times as long"
    )
  return lines


def _speed_lines(plan: dict[str, Any]) -> list[str]:
  seconds = plan["step_seconds_by_limit"]
  amounts = {
    "arithmetic": f"{plan['flops']:.3g} FLOP",
    "memory": f"{plan['bytes_accessed'] / 1e9:.3g} GB",
    "interconnect": f"{plan['collective_sent_bytes'] / 1e6:.3g} MB sent",
  }
  lines = [
    f"{name}: {what}, {1e3 * seconds[name]:.3g} ms"
    + " (the limit)" * (name == plan["limited_by"])
    for name, what in amounts.items()
  ]
  lines += [
    f"{kind}: {entry['count']:,}, in all {entry['bytes'] / 1e6:.3g} MB"
    for kind, entry in plan["collectives"].items()
  ]
  sent = plan["image_bytes_from_host"]
  if sent:
    rate = sent / plan["step_seconds_bound"]
    lines.append(
      f"images from the host: {sent / 1e9:.3g} GB a step, up to "
      f"{rate / 1e9:.3g} GB/s; benchmarks/input/input.py says whether a host "
      "reads them"
    )
  steps = plan["epochs"] * plan["steps_per_epoch"]
  length = f"{plan['epochs']:,} epochs of {plan['steps_per_epoch']:,} steps"
  length = f"{length} ({steps:,})"
  if plan["minutes"]:
    length = f"in {plan['minutes']:g} minutes at most {length} fit"
  else:
    length = f"{length} take at least {plan['hours_bound']:.3g} hours"
  return [
    *lines,
    f"at most {plan['images_per_second_bound']:,.0f} images/s on all; {length}",
    "bounds of what the chips allow, not measurements: reading images, and "
    "what cannot overlap, come on top",
  ]


def _bytes(number: float) -> str:
  """E.g. "1.25 GiB", "3 MiB"."""
  if number < 2**29:
    return f"{number / 2**20:.0f} MiB"
  return f"{number / 2**30:.2f} GiB"
