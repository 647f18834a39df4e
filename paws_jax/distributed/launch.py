"""Detection of how this process was started: alone, or as one of several.

Nothing here needs JAX or talks to another process; but on a TPU machine the
metadata server of the cloud is asked.
"""

from __future__ import annotations

import dataclasses
import os
import re
import zlib
from collections.abc import Callable
from collections.abc import Mapping
from typing import Any

from paws_jax import errors
from paws_jax.distributed import launch_cloud_tpu

# Port of process 0 of a TPU slice, which no variable names. JAX uses the same,
# and guides open it in firewalls.
_TPU_PORT = 8482
# Ports derived from the number of a job, so that two jobs on one machine rarely
# get the same one.
_FIRST_PORT, _NUM_PORTS = 61440, 4096
# SLURM numbers the shells of sbatch, salloc and ssh from here.
_FIRST_SLURM_SHELL = 0xFFFFFFF0
_FLAGS = ("--coordinator_address", "--num_processes", "--process_id")
_Names = tuple[str, str]
_BY_FLAGS = f"or give {', '.join(_FLAGS[:2])} and {_FLAGS[2]}"


@dataclasses.dataclass(frozen=True)
class Launch:
  """How this process, one of several, was started.

  Attributes:
    coordinator_address: "host:port" where process 0 listens; None: JAX finds
      it, and the next two.
    num_processes: at least 2.
    process_id: in [0, num_processes).
    source: where this comes from, for messages: "SLURM", "flags".
    local_device_ids: the GPUs of the machine that belong to this process; None:
      all that it sees.
    run_id: the launcher's name for the run, the same for all processes, so that
      two runs on one port are distinguished; "" without one.
  """

  coordinator_address: str | None
  num_processes: int | None
  process_id: int | None
  source: str
  local_device_ids: tuple[int, ...] | None = None
  run_id: str = ""


def detect(
  *,
  coordinator_address: str | None,
  num_processes: int | None,
  process_id: int | None,
  environ: Mapping[str, str] = os.environ,
  has_tpu: Callable[[], bool] = launch_cloud_tpu.has_device,
  metadata: Callable[[str], str | None] = launch_cloud_tpu.ask_metadata,
) -> Launch | None:
  """Detects whether this process is one of several.

  The first of these that names several processes counts: the three flags;
  torchrun and programs like it (RANK, WORLD_SIZE, MASTER_ADDR, MASTER_PORT);
  Open MPI; a step of SLURM, that is srun, not the shell of sbatch or salloc;
  Cloud TPU, of one slice or more. The inner launcher comes first: srun may
  start a torchrun on each machine.

  Args:
    coordinator_address: flag, "host:port"; None or "" when not given.
    num_processes: flag, None when not given.
    process_id: flag, None when not given.
    environ: environment variables.
    has_tpu: returns whether this machine has a TPU.
    metadata: returns an attribute of this machine by name, None without; called
      only when `has_tpu`.

  Returns:
    None for a single process.

  Raises:
    InputError: flags or variables that contradict each other, or of which some
      are missing; names them.
  """
  flags = (coordinator_address or None, num_processes, process_id)
  if flags != (None, None, None):
    return _by_flags(flags)
  for detector in (_torchrun, _open_mpi, _slurm):
    launch = detector(environ)
    if launch is not None:
      return launch
  if "MASTER_ADDR" in environ and _several(environ, "WORLD_SIZE"):
    # Each of several processes would train alone.
    raise errors.InputError(
      f"the environment variable WORLD_SIZE is {environ['WORLD_SIZE']} but "
      "RANK is missing: start every process with its own RANK, or remove "
      f"WORLD_SIZE and MASTER_ADDR, {_BY_FLAGS}."
    )
  platforms = environ.get("JAX_PLATFORMS", "")
  if platforms and "tpu" not in platforms.split(","):
    return None
  return _cloud_tpu(environ, metadata if has_tpu() else lambda _: None)


def _by_flags(
  flags: tuple[str | None, int | None, int | None],
) -> Launch | None:
  address, size, rank = flags
  if address is None or size is None or rank is None:
    given = [f for f, v in zip(_FLAGS, flags, strict=True) if v is not None]
    missing = [f for f in _FLAGS if f not in given]
    raise errors.InputError(
      f"{' and '.join(given)} given without {' and '.join(missing)}: give all "
      "three, to every process, or none."
    )
  return _checked(address, size, rank, "flags", _FLAGS[1:])


def _checked(
  address: str, size: int, rank: int, source: str, names: _Names, **options: Any
) -> Launch | None:
  """Checks the numbers, called `names`; returns None for a single process."""
  if size < 1 or not 0 <= rank < size:
    raise errors.InputError(
      f"{names[0]} is {size} and {names[1]} is {rank}: there must be at least "
      "one process, and they are numbered from 0 to the number of processes "
      "minus 1."
    )
  host, _, port = address.rpartition(":")
  if not host or not port.isdecimal() or not 0 < int(port) < 2**16:
    raise errors.InputError(
      f"the coordinator's address is {address!r} ({source}): it must be the "
      "machine of process 0 and a free port on it, host:port."
    )
  return Launch(address, size, rank, source, **options) if size > 1 else None


def _by_variables(
  environ: Mapping[str, str],
  source: str,
  address: str,
  names: _Names,
  **options: Any,
) -> Launch | None:
  """Reads the size and the rank from the variables called `names`."""
  size, rank = (_number(environ, name) for name in names)
  return _checked(address, size, rank, source, names, **options)


def _number(environ: Mapping[str, str], name: str) -> int:
  """Reads an environment variable that must be there, and a number."""
  value = environ.get(name, "")
  if not value.isdecimal():
    raise errors.InputError(
      f"the environment variable {name} is "
      f"{repr(value) if name in environ else 'missing'}: it must be a number, "
      "set by the program that started this process. Correct that, "
      f"{_BY_FLAGS}."
    )
  return int(value)


def _first_set(environ: Mapping[str, str], *names: str) -> str:
  """Returns the first of these variables that has a value; "" for none."""
  return next((name for name in names if environ.get(name)), "")


def _several(environ: Mapping[str, str], name: str) -> bool:
  """Whether a variable is set and above 1."""
  return name in environ and _number(environ, name) > 1


def _torchrun(environ: Mapping[str, str]) -> Launch | None:
  if "RANK" not in environ or not _several(environ, "WORLD_SIZE"):
    return None
  host = environ.get("MASTER_ADDR")
  if not host:
    raise errors.InputError(
      "the environment variables RANK and WORLD_SIZE are set but MASTER_ADDR "
      f"is not: set it to the machine of process 0, {_BY_FLAGS}."
    )
  return _by_variables(
    environ,
    "RANK and WORLD_SIZE",
    _join(host, _torchrun_port(environ)),
    ("WORLD_SIZE", "RANK"),
    local_device_ids=_gpus(environ, "LOCAL_RANK", "LOCAL_WORLD_SIZE"),
    run_id=environ.get("TORCHELASTIC_RUN_ID", ""),
  )


def _torchrun_port(environ: Mapping[str, str]) -> int:
  """MASTER_PORT, or another port where torchrun itself listens on that one."""
  port = _number(environ, "MASTER_PORT")
  if environ.get("TORCHELASTIC_USE_AGENT_STORE") != "True":
    return port
  name = f"{environ.get('TORCHELASTIC_RUN_ID', '')}:{port}"
  number = zlib.crc32(name.encode())
  return _port(number) if _port(number) != port else _port(number + 1)


def _open_mpi(environ: Mapping[str, str]) -> Launch | None:
  if not _several(environ, "OMPI_COMM_WORLD_SIZE"):
    return None
  uri = environ.get("OMPI_MCA_orte_hnp_uri", "")
  # 1531576320.0;tcp://10.96.0.1,10.148.0.1:34911, or tcp6://[fe80::1,...]:1
  found = re.search(r"^(\d+)\..*tcp6?://\[?([^,\]]+?)(?:,|\]|:\d+$)", uri)
  run_id = found[1] if found else environ.get("PMIX_NAMESPACE", "")
  if found:
    # The number is a multiple of 4096.
    host, port = found[2], _port(int(run_id) // 4096)
  elif environ.get("MASTER_ADDR"):
    host, port = environ["MASTER_ADDR"], _number(environ, "MASTER_PORT")
  elif _number(environ, "OMPI_COMM_WORLD_LOCAL_SIZE") == _number(
    environ, "OMPI_COMM_WORLD_SIZE"
  ):
    # Open MPI 5 sets no address.
    host, port = "localhost", _port(zlib.crc32(run_id.encode()))
  else:
    raise errors.InputError(
      "Open MPI has started this process, but does not say where process 0 "
      "runs (OMPI_MCA_orte_hnp_uri is missing): pass MASTER_ADDR and "
      f"MASTER_PORT on with mpirun -x, {_BY_FLAGS}."
    )
  return _by_variables(
    environ,
    "Open MPI",
    _join(host, port),
    ("OMPI_COMM_WORLD_SIZE", "OMPI_COMM_WORLD_RANK"),
    local_device_ids=_gpus(
      environ, "OMPI_COMM_WORLD_LOCAL_RANK", "OMPI_COMM_WORLD_LOCAL_SIZE"
    ),
    run_id=run_id,
  )


def _slurm(environ: Mapping[str, str]) -> Launch | None:
  total = _first_set(environ, "SLURM_STEP_NUM_TASKS", "SLURM_NTASKS")
  if (
    "SLURM_STEP_ID" not in environ
    or _number(environ, "SLURM_STEP_ID") >= _FIRST_SLURM_SHELL
    or not _several(environ, total)
  ):
    return None
  nodes = _first_set(environ, "SLURM_STEP_NODELIST", "SLURM_JOB_NODELIST")
  if not nodes:
    raise errors.InputError(
      "this is a step of SLURM, but SLURM_STEP_NODELIST and SLURM_JOB_NODELIST "
      f"are missing: start it by srun with its environment, {_BY_FLAGS}."
    )
  job = _number(environ, "SLURM_JOB_ID")
  return _by_variables(
    environ,
    "SLURM",
    _join(first_host(environ[nodes]), _port(job)),
    (total, "SLURM_PROCID"),
    local_device_ids=_slurm_gpus(environ),
    run_id=f"{job}.{environ['SLURM_STEP_ID']}",
  )


def first_host(nodes: str) -> str:
  """Returns the first machine of a list in SLURM's notation.

  Gives "node003" for "node[003-010,020],gpu7", "r1n08" for "r[1-2]n[08-11]".

  Raises:
    InputError: when the list cannot be read.
  """
  first = re.match(r"(?:[^\[\],]|\[[\d,-]+\])+", nodes)
  if first is None or (first.end() < len(nodes) and nodes[first.end()] != ","):
    raise errors.InputError(
      f"the list of SLURM's nodes is {nodes!r}: it must look like "
      f"node[003-010,020],gpu7. Set SLURM_STEP_NODELIST to it, {_BY_FLAGS}."
    )
  return re.sub(r"\[(\d+)[\d,-]*\]", r"\1", first[0])


def _slurm_gpus(environ: Mapping[str, str]) -> tuple[int, ...] | None:
  """The GPUs of a task on a machine with more tasks of the same step."""
  name = _first_set(
    environ, "SLURM_STEP_TASKS_PER_NODE", "SLURM_TASKS_PER_NODE"
  )
  # "4(x2),3": 4 on each of two machines, 3 on the last.
  tasks = []
  for count, times in re.findall(
    r"(\d+)(?:\(x(\d+)\))?", environ.get(name, "1")
  ):
    tasks += [int(count)] * int(times or 1)
  node = int(environ.get("SLURM_NODEID", "0"))
  here = str(tasks[node] if node < len(tasks) else max(tasks, default=1))
  return _gpus({**environ, "here": here}, "SLURM_LOCALID", "here")


def _gpus(
  environ: Mapping[str, str], rank: str, size: str
) -> tuple[int, ...] | None:
  """The share of a process in the GPUs that it sees.

  None, all of them, when it is the only process of its machine, or sees only
  one GPU, as where the launcher has bound each process to one.
  """
  if rank not in environ or not _several(environ, size):
    return None
  local, others = _number(environ, rank), _number(environ, size)
  visible = environ.get("CUDA_VISIBLE_DEVICES", "")
  num_visible = len(visible.split(",")) if visible else others
  if num_visible == 1:
    return None
  if num_visible % others or local >= others:
    raise errors.InputError(
      f"CUDA_VISIBLE_DEVICES lists {num_visible} GPUs but {others} processes "
      f"share this machine, and this is number {local} ({rank}): start as many "
      "as there are GPUs, or a number that divides them, and number them from "
      "0."
    )
  each = num_visible // others
  return tuple(range(local * each, (local + 1) * each))


def _cloud_tpu(
  environ: Mapping[str, str], metadata: Callable[[str], str | None]
) -> Launch | None:
  workers = launch_cloud_tpu.find(environ, metadata)
  if workers.num_slices > 1:
    return Launch(None, None, None, "Cloud TPU, several slices")
  if len(workers.hosts) < 2:
    return None
  names = ("the number of workers", "TPU_WORKER_ID")
  found = {names[0]: str(len(workers.hosts))}
  if workers.number is not None:
    found[names[1]] = workers.number
  return _by_variables(
    found, "Cloud TPU", _join(workers.hosts[0], _TPU_PORT), names
  )


def _port(number: int) -> int:
  return _FIRST_PORT + number % _NUM_PORTS


def _join(host: str, port: int) -> str:
  """Joins "host:port", with brackets around an IPv6 address."""
  return f"[{host}]:{port}" if ":" in host.strip("[]") else f"{host}:{port}"
