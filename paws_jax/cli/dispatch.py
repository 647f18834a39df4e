"""Runs the task of a command line and reports errors in one line."""

# Tasks import what they need when they run, so that `--help` answers at once.

from __future__ import annotations

import contextlib
import importlib
import sys
from collections.abc import Callable
from collections.abc import Iterator
from collections.abc import Sequence

import ml_collections
from absl import flags

from paws_jax import errors
from paws_jax.cli import commands
from paws_jax.cli import flags as flags_lib
from paws_jax.distributed import launch as launch_lib
from paws_jax.runs import output

# Errors of the system that a wrong path causes.
_WRONG_PATH = (
  FileNotFoundError,
  IsADirectoryError,
  NotADirectoryError,
  PermissionError,
)


def run(argv: Sequence[str]) -> int:
  """Runs the task of a command line whose flags are parsed.

  Args:
    argv: the program and the arguments that are no flags.

  Returns:
    The exit status: 0, 1 after a failure, 2 for a command that was refused
    before anything was done, 130 after an interrupt.
  """
  return _status(lambda: _run(argv))


def _status(task: Callable[[], int]) -> int:
  """Calls a function for its exit status; reports errors meant for users."""
  try:
    return task()
  except KeyboardInterrupt:
    return flags_lib.fail(
      "interrupted; run the same command again to continue where it can", 130
    )
  except errors.UserError as error:
    return flags_lib.fail(error, error.status)


def _run(argv: Sequence[str]) -> int:
  if len(argv) > 1:
    raise errors.InputError(flags_lib.unknown_arguments(argv[1:]))
  flags_lib.check_options()
  config, workdir = flags_lib.recipe(), flags_lib.workdir()
  output.protect_output()
  task = flags_lib.TASK.value
  if task == "plan":
    return _plan(config, workdir)
  if task == "doctor":
    return _doctor(config, workdir)
  if commands.TASKS[task].after_training:
    return _run_alone(config, workdir)
  return _run_together(config, workdir)


def _run_alone(config: ml_collections.ConfigDict | None, workdir: str) -> int:
  """Runs a task in one process, on all cores of a CPU."""
  from paws_jax.parallel import cpu_devices

  if config is not None:
    cpu_devices.use_cpu_cores(config.eval.batch_size)
  return _execute(config, workdir)


def _run_together(config: ml_collections.ConfigDict, workdir: str) -> int:
  """Runs a task that may have several processes."""
  from paws_jax.distributed import lifecycle

  def task() -> int:
    _join_processes(config)
    if flags_lib.TASK.value == "devices":
      return _devices(config)
    return _execute(config, workdir)

  status = _status(task)
  if status:
    # Of several processes, an ordinary exit would wait for the others.
    lifecycle.exit_now(status)
  return status


def _rows_of_a_chunk(config: ml_collections.ConfigDict) -> int:
  """Unlabelled images that the devices divide; values are not checked yet."""
  batch_size, chunks = max(config.train.batch_size, 0), config.train.chunks
  known = isinstance(chunks, int) and chunks > 0
  return batch_size // chunks if known else batch_size


def _join_processes(config: ml_collections.ConfigDict) -> None:
  """Connects this process with the others of its run, if there are any."""
  from paws_jax.distributed import agree
  from paws_jax.distributed import lifecycle
  from paws_jax.parallel import cpu_devices

  launch = launch_lib.detect(
    coordinator_address=flags_lib.COORDINATOR.value,
    num_processes=flags_lib.NUM_PROCESSES.value,
    process_id=flags_lib.PROCESS_ID.value,
  )
  num_processes = launch.num_processes or 1 if launch else 1
  cpu_devices.use_cpu_cores(_rows_of_a_chunk(config) // num_processes)
  lifecycle.initialize(launch, timeout_seconds=flags_lib.TIMEOUT.value)
  agree.agree(task=flags_lib.TASK.value)
  if not lifecycle.is_main():
    output.silence_output()


def _execute(config: ml_collections.ConfigDict | None, workdir: str) -> int:
  """Lets the module of a task prepare, then run; returns the exit status."""
  from paws_jax.runs import compilation_cache
  from paws_jax.runs import full_disk
  from paws_jax.runs import out_of_memory

  compilation_cache.enable(flags_lib.CACHE.value)
  name = flags_lib.TASK.value
  task = importlib.import_module(f"paws_jax.tasks.{name}")
  values = {
    flag: flags.FLAGS[flag].value for flag in commands.TASKS[name].flags
  }
  started = False
  try:
    # Tasks that train give advice of their own.
    with out_of_memory.evaluating(config):
      with _refusing_wrong_paths():
        prepared = task.prepare(config, workdir, **values)
      started = True
      return task.run(prepared)
  except errors.UserError as error:
    return flags_lib.fail(error, 1 if started else error.status)
  except _storage_errors() as error:
    return flags_lib.fail(full_disk.sentence(error, workdir), 1)


def _storage_errors() -> tuple[type[Exception], ...]:
  """Errors of memory or a file system that is full."""
  from paws_jax.runs import workdir as workdir_lib

  return (MemoryError, *workdir_lib.storage_errors())


@contextlib.contextmanager
def _refusing_wrong_paths() -> Iterator[None]:
  """Turns errors of the system that a wrong path causes into refusals."""
  try:
    yield
  except errors.UserError:
    raise
  except _WRONG_PATH as error:
    raise errors.InputError(str(error)) from error


def _devices(config: ml_collections.ConfigDict) -> int:
  from paws_jax.tasks import devices

  return devices.run(config)


def _plan(config: ml_collections.ConfigDict, workdir: str) -> int:
  from paws_jax.tasks import plan

  machine = flags_lib.MACHINE.value
  # The flags were checked.
  assert machine is not None
  with _refusing_wrong_paths():
    return plan.run(config, workdir, machine=machine)


def _doctor(config: ml_collections.ConfigDict, workdir: str) -> int:
  from paws_jax.parallel import cpu_devices
  from paws_jax.tasks import doctor

  cpu_devices.use_cpu_cores(_rows_of_a_chunk(config))
  return doctor.run(
    config,
    workdir,
    train_command=flags_lib.train_command(sys.argv),
    time_steps=flags_lib.TIME_STEPS.value,
    classifier=flags_lib.CLASSIFIER.value,
  )
