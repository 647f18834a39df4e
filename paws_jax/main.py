"""Semi-supervised image classification with PAWS.

python -m paws_jax.main --config=configs/quickstart.py
"""

# Tasks import what they need when they run, so that `--help` answers at once.

from __future__ import annotations

import importlib
import pathlib
import sys
from collections.abc import Sequence

import ml_collections
from absl import app
from absl import flags

from paws_jax.cli import flags as flags_lib
from paws_jax.distributed import launch as launch_lib
from paws_jax.runs import output

flags.adopt_module_key_flags(flags_lib)


def main(argv: Sequence[str]) -> int:
  """Dispatches on --task; returns the exit status."""
  if len(argv) > 1:
    return flags_lib.fail(f"unknown arguments: {' '.join(argv[1:])}", 2)
  task = flags_lib.TASK.value
  try:
    flags_lib.check_options()
    config = flags_lib.recipe()
  except ValueError as error:
    return flags_lib.fail(error, 2)
  if (task == "plan") != (flags_lib.TOPOLOGY.value is not None):
    return flags_lib.fail("--task=plan and --topology=NAME belong together", 2)
  workdir = flags_lib.WORKDIR.value or ""
  if not workdir and flags_lib.CONFIG.value is not None:
    workdir = str(pathlib.Path("runs") / flags_lib.recipe_name())
  output.protect_output()
  try:
    if task in ("plan", "doctor"):
      # One process does.
      return {"plan": _plan, "doctor": _doctor}[task](workdir)
    if task in flags_lib.AFTERWARDS:
      return _alone(config, workdir)
    return _together(config, workdir)
  except KeyboardInterrupt:
    return flags_lib.fail(
      "interrupted; the same command goes on where it can", 130
    )


def _alone(config: ml_collections.ConfigDict | None, workdir: str) -> int:
  """Runs a task that one process does, on all cores of a CPU."""
  from paws_jax.parallel import cpu_devices

  if config is not None:
    cpu_devices.use_cpu_cores(config.eval.batch_size)
  return _execute(config, workdir)


def _together(config: ml_collections.ConfigDict, workdir: str) -> int:
  """Runs a task that may have several processes."""
  from paws_jax.distributed import lifecycle

  try:
    status = _start(config)
    if status:
      return status
    if flags_lib.TASK.value == "topology":
      status = _topology(config)
    else:
      status = _execute(config, workdir)
  except KeyboardInterrupt:
    status = flags_lib.fail(
      "interrupted; the same command goes on where it can", 130
    )
  if status:
    # Of several processes, an ordinary end would wait for the others.
    lifecycle.exit_now(status)
  return status


def _start(config: ml_collections.ConfigDict) -> int:
  """Joins the other processes of the run, if there are any; exit status."""
  from paws_jax import errors
  from paws_jax.distributed import agree
  from paws_jax.distributed import lifecycle
  from paws_jax.parallel import cpu_devices

  try:
    launch = launch_lib.detect(
      coordinator_address=flags_lib.COORDINATOR.value,
      num_processes=flags_lib.NUM_PROCESSES.value,
      process_id=flags_lib.PROCESS_ID.value,
    )
  except ValueError as error:
    return flags_lib.fail(error, 2)
  num_processes = launch.num_processes or 1 if launch else 1
  cpu_devices.use_cpu_cores(max(config.train.batch_size, 0) // num_processes)
  try:
    lifecycle.initialize(launch, timeout_seconds=flags_lib.TIMEOUT.value)
    agree.agree(task=flags_lib.TASK.value)
  except errors.DisagreementError as error:
    return flags_lib.fail(error, 2)
  except errors.DistributedError as error:
    return flags_lib.fail(error, 1)
  if not lifecycle.is_main():
    output.silence_output()
  return 0


def _topology(config: ml_collections.ConfigDict) -> int:
  from paws_jax import errors
  from paws_jax.tasks import devices

  try:
    return devices.run(config)
  except (ValueError, TypeError, errors.DisagreementError) as error:
    return flags_lib.fail(error, 2)


def _plan(workdir: str) -> int:
  from paws_jax.tasks import plan

  return plan.run(
    flags_lib.CONFIG.value, workdir, topology=flags_lib.TOPOLOGY.value
  )


def _execute(config: ml_collections.ConfigDict | None, workdir: str) -> int:
  """Has a task's module prepare it, then run it; returns the exit status."""
  from paws_jax import errors
  from paws_jax.runs import compilation_cache
  from paws_jax.runs import out_of_memory
  from paws_jax.runs import workdir as workdir_lib

  compilation_cache.enable(flags_lib.CACHE.value)
  name, options = flags_lib.MODULES[flags_lib.TASK.value]
  task = importlib.import_module(f"paws_jax.{name}")
  given = {name: flags.FLAGS[name].value for name in options}
  try:
    # Tasks that train have better advice of their own.
    with out_of_memory.evaluating(config):
      prepared = task.prepare(config, workdir, **given)
  except (
    ValueError,
    TypeError,
    FileNotFoundError,
    IsADirectoryError,
    NotADirectoryError,
    PermissionError,
    errors.DisagreementError,
  ) as error:
    return flags_lib.fail(error, 2)
  except (
    MemoryError,
    errors.CheckpointError,
    errors.DistributedError,
    *workdir_lib.storage_errors(),
  ) as error:
    # Nothing to refuse: another time it may work.
    return flags_lib.fail(error, 1)
  try:
    with out_of_memory.evaluating(config):
      return task.run(prepared)
  except (
    errors.BadImageError,
    errors.NonFiniteError,
    errors.CheckpointError,
    errors.WorkdirError,
    errors.DistributedError,
    MemoryError,
    *workdir_lib.storage_errors(),
  ) as error:
    return flags_lib.fail(error, 1)


def _doctor(workdir: str) -> int:
  from paws_jax.parallel import cpu_devices
  from paws_jax.tasks import doctor

  cpu_devices.use_cpu_cores(flags_lib.CONFIG.value.train.batch_size)
  return doctor.run(
    flags_lib.CONFIG.value,
    workdir,
    train_command=flags_lib.train_command(sys.argv[1:]),
  )


if __name__ == "__main__":
  app.run(main, flags_parser=flags_lib.parse_flags)
