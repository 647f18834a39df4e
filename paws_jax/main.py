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

from paws_jax import command_line
from paws_jax import terminal

flags.adopt_module_key_flags(command_line)


def main(argv: Sequence[str]) -> int:
  """Dispatches on --task; returns the exit status."""
  if len(argv) > 1:
    return command_line.fail(f"unknown arguments: {' '.join(argv[1:])}", 2)
  task = command_line.TASK.value
  try:
    command_line.check_options()
    config = command_line.recipe()
  except ValueError as error:
    return command_line.fail(error, 2)
  if (task == "plan") != (command_line.TOPOLOGY.value is not None):
    return command_line.fail(
      "--task=plan and --topology=NAME belong together", 2
    )
  workdir = command_line.WORKDIR.value or ""
  if not workdir and command_line.CONFIG.value is not None:
    workdir = str(pathlib.Path("runs") / command_line.recipe_name())
  terminal.protect_output()
  try:
    if task in ("plan", "doctor"):
      # One process does.
      return {"plan": _plan, "doctor": _doctor}[task](workdir)
    if task in command_line.AFTERWARDS:
      return _alone(config, workdir)
    return _together(config, workdir)
  except KeyboardInterrupt:
    return command_line.fail(
      "interrupted; the same command goes on where it can", 130
    )


def _alone(config: ml_collections.ConfigDict | None, workdir: str) -> int:
  """Runs a task that one process does, on all cores of a CPU."""
  from paws_jax import sharding

  if config is not None:
    sharding.use_cpu_cores(config.eval.batch_size)
  return _execute(config, workdir)


def _together(config: ml_collections.ConfigDict, workdir: str) -> int:
  """Runs a task that may have several processes."""
  from paws_jax import distributed

  try:
    status = _start(config)
    if status:
      return status
    if command_line.TASK.value == "topology":
      status = _topology(config)
    else:
      status = _execute(config, workdir)
  except KeyboardInterrupt:
    status = command_line.fail(
      "interrupted; the same command goes on where it can", 130
    )
  if status:
    # Of several processes, an ordinary end would wait for the others.
    distributed.exit_now(status)
  return status


def _start(config: ml_collections.ConfigDict) -> int:
  """Joins the other processes of the run, if there are any; exit status."""
  from paws_jax import agreement
  from paws_jax import distributed
  from paws_jax import sharding

  try:
    launch = distributed.detect(
      coordinator_address=command_line.COORDINATOR.value,
      num_processes=command_line.NUM_PROCESSES.value,
      process_id=command_line.PROCESS_ID.value,
    )
  except ValueError as error:
    return command_line.fail(error, 2)
  num_processes = launch.num_processes or 1 if launch else 1
  sharding.use_cpu_cores(max(config.train.batch_size, 0) // num_processes)
  try:
    distributed.initialize(launch, timeout_seconds=command_line.TIMEOUT.value)
    agreement.agree(task=command_line.TASK.value)
  except agreement.DisagreementError as error:
    return command_line.fail(error, 2)
  except distributed.DistributedError as error:
    return command_line.fail(error, 1)
  if not distributed.is_main():
    terminal.silence_output()
  return 0


def _topology(config: ml_collections.ConfigDict) -> int:
  from paws_jax import agreement
  from paws_jax import topology

  try:
    return topology.run(config)
  except (ValueError, TypeError, agreement.DisagreementError) as error:
    return command_line.fail(error, 2)


def _plan(workdir: str) -> int:
  from paws_jax import plan

  return plan.run(
    command_line.CONFIG.value, workdir, topology=command_line.TOPOLOGY.value
  )


def _execute(config: ml_collections.ConfigDict | None, workdir: str) -> int:
  """Has a task's module prepare it, then run it; returns the exit status."""
  from paws_jax import agreement
  from paws_jax import checkpoint
  from paws_jax import compilation_cache
  from paws_jax import distributed
  from paws_jax import memory_advice
  from paws_jax import train
  from paws_jax import workdir as workdir_lib
  from paws_jax.data import decode

  compilation_cache.enable(command_line.CACHE.value)
  name, options = command_line.MODULES[command_line.TASK.value]
  task = importlib.import_module(f"paws_jax.{name}")
  given = {name: flags.FLAGS[name].value for name in options}
  try:
    # Tasks that train have better advice of their own.
    with memory_advice.evaluating(config):
      prepared = task.prepare(config, workdir, **given)
  except (
    ValueError,
    TypeError,
    FileNotFoundError,
    IsADirectoryError,
    NotADirectoryError,
    PermissionError,
    agreement.DisagreementError,
  ) as error:
    return command_line.fail(error, 2)
  except (
    MemoryError,
    checkpoint.CheckpointError,
    distributed.DistributedError,
    *workdir_lib.storage_errors(),
  ) as error:
    # Nothing to refuse: another time it may work.
    return command_line.fail(error, 1)
  try:
    with memory_advice.evaluating(config):
      return task.run(prepared)
  except (
    decode.BadImageError,
    train.NonFiniteError,
    checkpoint.CheckpointError,
    workdir_lib.WorkdirError,
    distributed.DistributedError,
    MemoryError,
    *workdir_lib.storage_errors(),
  ) as error:
    return command_line.fail(error, 1)


def _doctor(workdir: str) -> int:
  from paws_jax import doctor
  from paws_jax import sharding

  sharding.use_cpu_cores(command_line.CONFIG.value.train.batch_size)
  return doctor.run(
    command_line.CONFIG.value,
    workdir,
    train_command=command_line.train_command(sys.argv[1:]),
  )


if __name__ == "__main__":
  app.run(main, flags_parser=command_line.parse_flags)
