"""Detection of one or several processes from flags and the environment."""

import os
import subprocess
import sys

import pytest

from paws_jax.distributed import launch as launch_lib

SRUN = {
  "SLURM_JOB_ID": "4100",
  "SLURM_STEP_ID": "0",
  "SLURM_STEP_NUM_TASKS": "4",
  "SLURM_NTASKS": "4",
  "SLURM_PROCID": "3",
  "SLURM_LOCALID": "1",
  "SLURM_NODEID": "1",
  "SLURM_STEP_NODELIST": "node[003-004]",
  "SLURM_STEP_TASKS_PER_NODE": "2(x2)",
}
ORTE = {
  "OMPI_COMM_WORLD_SIZE": "2",
  "OMPI_COMM_WORLD_RANK": "1",
  "OMPI_COMM_WORLD_LOCAL_RANK": "0",
  "OMPI_COMM_WORLD_LOCAL_SIZE": "1",
  "OMPI_MCA_orte_hnp_uri": "8192.0;tcp://10.96.0.1,10.148.0.1:34911",
}
TORCHRUN = {
  "RANK": "5",
  "WORLD_SIZE": "8",
  "LOCAL_RANK": "1",
  "LOCAL_WORLD_SIZE": "4",
  "MASTER_ADDR": "first",
  "MASTER_PORT": "29500",
}
GKE = {"TPU_WORKER_HOSTNAMES": "t-0.x,t-1.x,t-2.x", "TPU_WORKER_ID": "2"}


def detect(environ=None, *, flags=(None, None, None), metadata=None):
  """With a TPU when there is metadata."""
  return launch_lib.detect(
    coordinator_address=flags[0],
    num_processes=flags[1],
    process_id=flags[2],
    environ=environ or {},
    has_tpu=lambda: metadata is not None,
    metadata=lambda name: metadata.get(name),
  )


def without(environ, *names, **changes):
  return {k: v for k, v in environ.items() if k not in names} | changes


def test_alone():
  assert detect() is None


def test_flags_come_first():
  launch = detect(SRUN, flags=("host:1234", 3, 2))
  assert launch == launch_lib.Launch("host:1234", 3, 2, "flags")
  assert detect(flags=("[fe80::1]:12", 2, 0)).coordinator_address == (
    "[fe80::1]:12"
  )


def test_flags_of_a_single_process():
  assert detect(SRUN, flags=("host:1234", 1, 0)) is None


@pytest.mark.parametrize(
  ("flags", "words"),
  [
    (
      ("host:1", None, None),
      "--coordinator_address given without --num_processes and --process_id",
    ),
    ((None, 2, 0), "without --coordinator_address: give all three"),
    ((None, None, 0), "--process_id given without"),
    (("host:1", 2, 2), "--num_processes is 2 and --process_id is 2: .* from 0"),
    (("host:1", 2, -1), "--process_id is -1"),
    (("host:1", 0, 0), "--num_processes is 0"),
    (("host", 2, 0), "'host' .flags.: it must be .* host:port"),
    (("host:x", 2, 0), "'host:x'"),
    (("host:70000", 2, 0), "'host:70000'"),
    ((":1", 2, 0), "':1'"),
  ],
)
def test_wrong_flags(flags, words):
  with pytest.raises(ValueError, match=words):
    detect(flags=flags)


def test_srun():
  launch = detect(SRUN)
  assert launch == launch_lib.Launch(
    "node003:61444", 4, 3, "SLURM", (1,), "4100.0"
  )
  other = detect(SRUN | {"SLURM_JOB_ID": "4101"})
  assert other.coordinator_address == "node003:61445"


@pytest.mark.parametrize(
  "environ",
  [
    # The shells of sbatch and salloc.
    without(SRUN, "SLURM_STEP_ID", "SLURM_STEP_NUM_TASKS"),
    SRUN | {"SLURM_STEP_ID": "4294967291"},
    SRUN | {"SLURM_STEP_ID": "4294967290"},
    # srun of a single task in a larger job.
    SRUN | {"SLURM_STEP_NUM_TASKS": "1"},
    without(SRUN, "SLURM_STEP_NUM_TASKS") | {"SLURM_NTASKS": "1"},
    {"SLURM_JOB_ID": "1", "SLURM_NTASKS": "8", "SLURM_PROCID": "0"},
  ],
)
def test_slurm_with_a_single_process(environ):
  assert detect(environ) is None


@pytest.mark.parametrize(
  ("environ", "words"),
  [
    (without(SRUN, "SLURM_PROCID"), "SLURM_PROCID is missing: .*--process_id"),
    (without(SRUN, "SLURM_JOB_ID"), "SLURM_JOB_ID is missing"),
    (without(SRUN, "SLURM_STEP_NODELIST"), "SLURM_STEP_NODELIST and"),
    (SRUN | {"SLURM_PROCID": "4"}, "TASKS is 4 and SLURM_PROCID is 4"),
    (SRUN | {"SLURM_PROCID": "x"}, "SLURM_PROCID is 'x': it must be a number"),
    (SRUN | {"SLURM_STEP_NODELIST": "n[1-"}, r"nodes is 'n\[1-'"),
    (SRUN | {"SLURM_STEP_NODELIST": ",a"}, "',a'"),
  ],
)
def test_incomplete_slurm(environ, words):
  with pytest.raises(ValueError, match=words):
    detect(environ)


def test_nodes_of_the_job_where_the_step_lists_none():
  environ = without(SRUN, "SLURM_STEP_NODELIST", SLURM_JOB_NODELIST="a,b")
  assert detect(environ).coordinator_address == "a:61444"


@pytest.mark.parametrize(
  ("nodes", "first"),
  [
    ("node[003-010,020],gpu7", "node003"),
    ("gpu7,node[003-010]", "gpu7"),
    ("node[7,9]", "node7"),
    ("solo", "solo"),
    ("r[1-2]n[08-11]", "r1n08"),
    ("n[01-02]-ib,x", "n01-ib"),
    ("a.b.org", "a.b.org"),
  ],
)
def test_first_host(nodes, first):
  assert launch_lib.first_host(nodes) == first


@pytest.mark.parametrize(
  ("changes", "ids"),
  [
    ({"SLURM_STEP_TASKS_PER_NODE": "1(x4)"}, None),
    ({"SLURM_STEP_TASKS_PER_NODE": "3,1"}, None),
    ({"SLURM_STEP_TASKS_PER_NODE": "1,3"}, (1,)),
    ({"CUDA_VISIBLE_DEVICES": "0,1"}, (1,)),
    ({"CUDA_VISIBLE_DEVICES": "4,5,6,7"}, (2, 3)),
    # srun has bound each task to a GPU.
    ({"CUDA_VISIBLE_DEVICES": "1"}, None),
  ],
)
def test_gpus_of_a_task(changes, ids):
  assert detect(SRUN | changes).local_device_ids == ids


def test_gpus_that_tasks_cannot_share():
  with pytest.raises(ValueError, match="lists 3 GPUs but 2 processes"):
    detect(SRUN | {"CUDA_VISIBLE_DEVICES": "0,1,2"})
  with pytest.raises(ValueError, match=r"number 2 \(SLURM_LOCALID\)"):
    detect(SRUN | {"SLURM_LOCALID": "2"})


def test_torchrun():
  launch = detect(TORCHRUN)
  assert launch == launch_lib.Launch(
    "first:29500", 8, 5, "RANK and WORLD_SIZE", (1,)
  )
  # On each machine of an srun.
  assert detect(SRUN | TORCHRUN) == launch
  assert detect(TORCHRUN | {"MASTER_ADDR": "::1"}).coordinator_address == (
    "[::1]:29500"
  )
  assert detect(TORCHRUN | {"WORLD_SIZE": "1", "RANK": "0"}) is None


def test_torchrun_occupies_its_port():
  environ = TORCHRUN | {
    "TORCHELASTIC_USE_AGENT_STORE": "True",
    "TORCHELASTIC_RUN_ID": "none",
  }
  launch = detect(environ)
  host, port = launch.coordinator_address.split(":")
  assert host == "first"
  assert 61440 <= int(port) < 65536
  assert launch.run_id == "none"
  # The same for all processes of a run, seldom for two runs of a machine.
  assert detect(environ | {"RANK": "0"}).coordinator_address == (
    launch.coordinator_address
  )
  for change in ({"MASTER_PORT": "29501"}, {"TORCHELASTIC_RUN_ID": "mine"}):
    other = detect(environ | change)
    assert other.coordinator_address != launch.coordinator_address
  # PyTorch on its own, as in a script that sets the variables.
  environ["TORCHELASTIC_USE_AGENT_STORE"] = "False"
  assert detect(environ).coordinator_address == "first:29500"


def test_port_differs_from_any_port_of_torchrun():
  environ = TORCHRUN | {"TORCHELASTIC_USE_AGENT_STORE": "True"}
  for port in range(61440, 65536):
    launch = detect(environ | {"MASTER_PORT": str(port)})
    assert launch.coordinator_address != f"first:{port}"


def test_incomplete_torchrun():
  with pytest.raises(ValueError, match="MASTER_ADDR is not"):
    detect(without(TORCHRUN, "MASTER_ADDR"))
  with pytest.raises(ValueError, match="MASTER_PORT is missing"):
    detect(without(TORCHRUN, "MASTER_PORT"))
  with pytest.raises(ValueError, match="WORLD_SIZE is 8 but RANK is missing"):
    detect(without(TORCHRUN, "RANK"))
  # A script of SLURM may set the address for other programs.
  environ = SRUN | without(TORCHRUN, "RANK")
  assert detect(environ).source == "SLURM"


def test_open_mpi():
  launch = detect(ORTE)
  assert launch == launch_lib.Launch(
    "10.96.0.1:61442", 2, 1, "Open MPI", run_id="8192"
  )
  # mpirun starts its daemons by srun.
  assert detect(SRUN | ORTE) == launch
  uri = "4096.0;tcp6://[fe80::b9b,2620:10d::2]:43370"
  launch = detect(ORTE | {"OMPI_MCA_orte_hnp_uri": uri})
  assert launch.coordinator_address == "[fe80::b9b]:61441"
  uri = "4096.0;tcp://10.0.0.7:43370"
  launch = detect(ORTE | {"OMPI_MCA_orte_hnp_uri": uri})
  assert launch.coordinator_address == "10.0.0.7:61441"
  assert detect(ORTE | {"OMPI_COMM_WORLD_SIZE": "1"}) is None


def test_open_mpi_without_an_address():
  environ = without(ORTE, "OMPI_MCA_orte_hnp_uri")
  with pytest.raises(ValueError, match=r"MASTER_ADDR and MASTER_PORT .*mpirun"):
    detect(environ)
  address = {"MASTER_ADDR": "h", "MASTER_PORT": "7"}
  assert detect(environ | address).coordinator_address == "h:7"
  both_here = environ | {"OMPI_COMM_WORLD_LOCAL_SIZE": "2"}
  launch = detect(both_here | {"PMIX_NAMESPACE": "prterun-a-1@1"})
  assert launch.coordinator_address.startswith("localhost:6")
  assert launch.local_device_ids == (0,)
  assert launch.run_id == "prterun-a-1@1"


def test_gke():
  launch = detect(GKE)
  assert launch == launch_lib.Launch("t-0.x:8482", 3, 2, "Cloud TPU")
  ports = {"TPU_PROCESS_ADDRESSES": "a:8476,b:8476", "TPU_WORKER_ID": "0"}
  assert detect(GKE | ports) == launch_lib.Launch("a:8482", 2, 0, "Cloud TPU")
  six = {"TPU_WORKER_HOSTNAMES": "fe80::1,fe80::2", "TPU_WORKER_ID": "0"}
  assert detect(six).coordinator_address == "[fe80::1]:8482"


def test_gke_with_a_single_machine_or_no_tpu():
  assert detect({"TPU_WORKER_HOSTNAMES": "localhost"}) is None
  assert detect(GKE | {"JAX_PLATFORMS": "cpu"}) is None
  assert detect(GKE | {"JAX_PLATFORMS": "tpu,cpu"}) is not None


def test_gke_without_a_number():
  with pytest.raises(ValueError, match="TPU_WORKER_ID is missing"):
    detect(without(GKE, "TPU_WORKER_ID"))
  with pytest.raises(ValueError, match="workers is 3 and TPU_WORKER_ID is 3"):
    detect(GKE | {"TPU_WORKER_ID": "3"})


@pytest.mark.parametrize(
  ("endpoints", "host"),
  [
    ("10.0.0.1,10.0.0.2", "10.0.0.1"),
    ("x:y:10.0.0.1,z:w:10.0.0.2", "10.0.0.1"),
  ],
)
def test_tpu_vm(endpoints, host):
  metadata = {
    "worker-network-endpoints": endpoints,
    "agent-worker-number": "1\n",
  }
  launch = detect(metadata=metadata)
  assert launch == launch_lib.Launch(f"{host}:8482", 2, 1, "Cloud TPU")
  assert detect({"JAX_PLATFORMS": "cpu"}, metadata=metadata) is None


def test_tpu_vm_of_a_single_machine():
  assert detect(metadata={}) is None
  assert detect(metadata={"worker-network-endpoints": "10.0.0.1"}) is None


def test_metadata_server_is_asked_only_with_a_tpu():
  def fail(name):
    raise AssertionError(name)

  assert (
    launch_lib.detect(
      coordinator_address=None,
      num_processes=None,
      process_id=None,
      environ={},
      has_tpu=lambda: False,
      metadata=fail,
    )
    is None
  )


def test_several_slices():
  alike = launch_lib.Launch(None, None, None, "Cloud TPU, several slices")
  assert detect(GKE | {"MEGASCALE_NUM_SLICES": "2"}) == alike
  tpu_env = "ACCELERATOR_TYPE: 'v5'\nMEGASCALE_NUM_SLICES: '2'\n"
  assert detect(metadata={"tpu-env": tpu_env}) == alike
  assert detect(GKE | {"MEGASCALE_NUM_SLICES": "1"}).num_processes == 3


def test_detection_does_not_import_jax():
  code = (
    "import sys; from paws_jax.distributed import launch; "
    "print('jax' in sys.modules)"
  )
  result = subprocess.run(
    [sys.executable, "-c", code],
    capture_output=True,
    text=True,
    env=dict(os.environ),
    check=True,
  )
  assert result.stdout == "False\n"
