"""`--task=plan`: whether a recipe fits a machine, and how fast it can be.

For a TPU the train step is compiled for the given machine, which needs libtpu
but no TPU. For GPUs it is only traced, and the costs are those of a model.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import importlib.metadata
import importlib.util
import os
import time
from collections.abc import Iterator
from collections.abc import Sequence
from typing import Any

import jax
import ml_collections
from etils import epath
from jax.experimental import topologies

from paws_jax import config as config_lib
from paws_jax import errors
from paws_jax.plan import abstract_step
from paws_jax.plan import auto_chunks
from paws_jax.plan import chips
from paws_jax.plan import hlo
from paws_jax.plan import memory
from paws_jax.plan import roofline
from paws_jax.plan import traced_costs
from paws_jax.runs import files
from paws_jax.runs import workdir as workdir_lib

_FILE = "plan.json"
# How much the compiler tries: an option of JAX and its environment variable.
_LEVEL = "jax_optimization_level"
_LOW_LEVEL = "O1"
_MODEL = "model, not compiled"


def run(
  config: config_lib.Recipe | ml_collections.ConfigDict,
  workdir: str,
  *,
  machine: str,
) -> int:
  """Plans a recipe for a machine; prints, and writes plan.json.

  The compiler works at a low level, a minute or two for ResNet-50, unless
  JAX_OPTIMIZATION_LEVEL is set (O2 is what training uses).

  Args:
    config: the recipe, with overrides.
    workdir: plan.json is written there; a bucket will do.
    machine: "v5e:2x4" or "h100:8".

  Returns:
    The exit status: 0 when the step fits, 1 when it does not.

  Raises:
    UserError: the recipe or the machine cannot be used, or plan.json not be
      written.
  """
  recipe = config_lib.resolve(config)
  if recipe.model.trunk == "frozen":
    raise errors.InputError(
      "model.trunk is 'frozen', whose steps read features in place of images "
      "and fit almost anywhere: --task=doctor --time_steps says how long "
      "training takes; to plan the training of the trunk, set model.trunk to "
      "'train'."
    )
  target = chips.parse(machine)
  step = _create(recipe, _devices(target), target)
  roofline.print_sizes(step, target)
  costs = _compile(step) if target.chip.kind == "tpu" else _model(step)
  plan = roofline.assess(step, target, costs) | {"versions": _versions()}
  roofline.print_plan(plan, target)
  print(f"\nwritten: {_write(plan, workdir)}", flush=True)
  return 0 if plan["fits"] else 1


def _create(
  recipe: config_lib.Recipe,
  devices: Sequence[jax.Device],
  target: chips.Machine,
) -> abstract_step.Step:
  """Builds the step; with train.chunks=auto the smallest number that fits."""

  @functools.cache
  def create(count: int) -> abstract_step.Step:
    recipe_of = auto_chunks.with_chunks(recipe, count)
    return abstract_step.create(recipe_of, devices)

  if recipe.train.chunks:
    return create(recipe.train.chunks)
  # Refuses what no number of chunks could change.
  create(1)
  count = auto_chunks.smallest(
    lambda count: memory.memory(create(count)).total,
    target.chip.usable_bytes,
    most=auto_chunks.largest(recipe.train, target.num_devices),
  )
  print(f"train.chunks: {count}, by the model of memory")
  return create(count)


def _devices(target: chips.Machine) -> Sequence[jax.Device]:
  """Descriptions of the devices of a machine, or stand-ins.

  Raises:
    InputError: libtpu is not installed, or cannot describe the machine.
  """
  if target.chip.kind == "gpu":
    return _stand_ins(target.num_devices)
  if importlib.util.find_spec("libtpu") is None:
    raise errors.InputError(
      "compiling for a TPU needs libtpu (and no TPU): pip install "
      '-e ".[tpu]". For GPUs, e.g. --machine=h100:8, it is not needed.'
    )
  # Else it asks the network what machine this is, and complains.
  os.environ.setdefault("TPU_SKIP_MDS_QUERY", "1")
  os.environ.setdefault("TPU_WORKER_HOSTNAMES", "localhost")
  # It is made for one process at a time, but no TPU is touched here.
  os.environ.setdefault("ALLOW_MULTIPLE_LIBTPU_LOAD", "1")
  options: dict[str, Any] = dict(target.chip.options)
  if target.num_chips == 1:
    options["chips_per_host_bounds"] = (1, 1, 1)
  try:
    described = topologies.get_topology_desc(
      platform="tpu", topology_name=target.name, **options
    )
  except (jax.errors.JaxRuntimeError, RuntimeError) as error:
    raise errors.InputError(
      f"--machine={target.name}: the installed libtpu does not describe it: "
      f"{_first_line(error)}. If it is too old for that, pip install --upgrade "
      '-e ".[tpu]".'
    ) from error
  return described.devices


def _stand_ins(num_devices: int) -> list[jax.Device]:
  """CPU devices, on which nothing will run."""
  # Once JAX has its devices, their number is what it is.
  # JAX adds the fields of its configuration at run time.
  config: Any = jax.config
  with contextlib.suppress(RuntimeError):
    if config.jax_num_cpu_devices < num_devices:
      config.update("jax_num_cpu_devices", num_devices)
  devices = jax.local_devices(backend="cpu")
  if len(devices) < num_devices:
    raise errors.InputError(
      f"--machine asks for {num_devices} devices, but JAX started with "
      f"{len(devices)} CPU devices to stand for them: start afresh with "
      f"JAX_NUM_CPU_DEVICES={num_devices}."
    )
  return devices[:num_devices]


@contextlib.contextmanager
def _level() -> Iterator[str]:
  """The low level of optimization, unless the environment names one."""
  before = getattr(jax.config, _LEVEL)
  if _LEVEL.upper() not in os.environ:
    jax.config.update(_LEVEL, _LOW_LEVEL)
  try:
    yield getattr(jax.config, _LEVEL)
  finally:
    jax.config.update(_LEVEL, before)


def _compile(step: abstract_step.Step) -> roofline.StepCosts:
  """Compiles the step for its devices and reads what it takes."""
  num_devices = step.trainer.mesh.size
  with _level() as level:
    traced = step.trace()
    lowered = traced.lower(lowering_platforms=("tpu",))
    method = f"compiled at level {level}"
    print("compiling (a minute or more) ...", flush=True)
    start = time.perf_counter()
    try:
      compiled = lowered.compile()
    except jax.errors.JaxRuntimeError as error:
      return _too_large(error, step, traced, method)
  print(f"compiled in {time.perf_counter() - start:.0f} s", flush=True)
  used = hlo.memory(compiled)
  analysis = compiled.cost_analysis()
  costs = roofline.StepCosts(
    method=method,
    peak_bytes=used.peak,
    argument_bytes=used.arguments,
    temporary_bytes=used.temporaries,
    flops=analysis["flops"],
    bytes_accessed=analysis["bytes accessed"],
    collectives=hlo.collectives(compiled.as_text(), num_devices=num_devices),
    host_bytes_read=traced_costs.host_bytes_read(traced.jaxpr.jaxpr),
  )
  if step.train.chunks == 1:
    return costs
  # The compiler counts what is in a loop once.
  counted = traced_costs.trace_costs(step, traced)
  return dataclasses.replace(
    costs,
    method=f"{method}, costs of a step by the model",
    flops=counted.flops,
    bytes_accessed=counted.bytes_accessed,
    collectives=counted.collectives,
  )


def _too_large(
  error: Exception, step: abstract_step.Step, traced: Any, method: str
) -> roofline.StepCosts:
  """What is known of a step that the compiler could not fit.

  Raises:
    JaxRuntimeError: `error`, when it is about something else.
  """
  message = str(error)
  if "RESOURCE_EXHAUSTED" not in message:
    raise error
  return roofline.StepCosts(
    method=method,
    peak_bytes=hlo.needed_bytes(message, argument_bytes=step.argument_bytes),
    flops=traced_costs.flops(traced.jaxpr.jaxpr),
    too_large=True,
  )


def _model(step: abstract_step.Step) -> roofline.StepCosts:
  """Costs of a step that is only traced."""
  costs = traced_costs.trace_costs(step)
  needed = costs.memory
  return roofline.StepCosts(
    method=_MODEL,
    # Batches that wait are counted with all others, in roofline.assess.
    peak_bytes=needed.total - roofline.waiting_bytes(step),
    argument_bytes=needed.state + needed.images - roofline.waiting_bytes(step),
    temporary_bytes=needed.gradients + needed.views + needed.activations,
    flops=costs.flops,
    bytes_accessed=costs.bytes_accessed,
    collectives=costs.collectives,
    host_bytes_read=costs.host_bytes_read,
  )


def _write(plan: dict[str, Any], workdir: str) -> epath.Path:
  """Writes plan.json.

  Raises:
    WorkdirError: the directory cannot be written.
  """
  path = files.resolve(workdir) / _FILE
  try:
    path.parent.mkdir(parents=True, exist_ok=True)
    files.replace_output(path, files.to_json(plan))
  except workdir_lib.storage_errors() as error:
    raise errors.WorkdirError(f"{path} cannot be written: {error}") from None
  return path


def _versions() -> dict[str, str]:
  """Of what the numbers depend on."""
  versions = {}
  for name in ("jax", "libtpu"):
    with contextlib.suppress(importlib.metadata.PackageNotFoundError):
      versions[name] = importlib.metadata.version(name)
  return versions


def _first_line(error: Exception) -> str:
  return (str(error).splitlines() or [type(error).__name__])[0]
