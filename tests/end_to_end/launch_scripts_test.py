import importlib.util
import json
import os
import pathlib
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time

import pytest
import yaml

ROOT = pathlib.Path(__file__).parents[2]
LAUNCH = ROOT / "launch"
SCRIPTS = ("gke.sh", "pod.sh", "slurm.sbatch", "tpu_host.sh", "tpu_vm.sh")
RECIPE = "--config=configs/imagenet.py:1pct"
WORKDIR = "--workdir=gs://bucket/run"
# Survives a shell, ssh and YAML, or does not.
AWKWARD = '--config.data.dir=it\'s "a" \\ & | $HOME *'
TPU = ("--name=in1", "--zone=us-west4-a")
ON_TPU = "gcloud compute tpus tpu-vm"
POD = (*TPU, "--project=lab", "--dry-run", "--")


def _run(script, *arguments, env=(), cwd=ROOT):
  """Runs a script of launch/; nothing of the caller's cloud is seen."""
  hidden = ("TPU_NAME", "CLOUDSDK_", "SLURM_", "PAWS_JAX_", "JOB_")
  kept = {k: v for k, v in os.environ.items() if not k.startswith(hidden)}
  return subprocess.run(
    ["bash", str(LAUNCH / script), *arguments],
    capture_output=True,
    text=True,
    cwd=cwd,
    env=kept | dict(env),
    timeout=60,
  )


def _executable(path, text):
  path.write_text(f"#!/usr/bin/env bash\n{text}\n", encoding="utf-8")
  path.chmod(0o755)
  return path


@pytest.fixture(autouse=True)
def _no_cloud(tmp_path_factory, monkeypatch):
  """No mistake in a script or a test reaches a real cloud or cluster."""
  away = tmp_path_factory.mktemp("away")
  for name in ("gcloud", "kubectl", "srun", "scontrol"):
    _executable(away / name, f'echo "{name} was executed" >&2; exit 99')
  monkeypatch.setenv("PATH", str(away), prepend=os.pathsep)


def _path(tmp_path):
  return ("PATH", f"{tmp_path}:{os.environ['PATH']}")


def test_shellcheck_finds_nothing():
  places = os.pathsep.join((f"{sys.prefix}/bin", os.environ["PATH"]))
  program = shutil.which("shellcheck", path=places)
  assert program, "shellcheck is missing: pip install -e '.[dev]'"
  done = subprocess.run(
    [program, ROOT / ".ci" / "run", *(LAUNCH / name for name in SCRIPTS)],
    capture_output=True,
    text=True,
  )
  assert not done.returncode, done.stdout + done.stderr


def test_scripts_are_all_here_and_can_be_executed():
  found = {p.name for p in LAUNCH.iterdir() if p.suffix in (".sh", ".sbatch")}
  assert found == set(SCRIPTS)
  for name in found - {"slurm.sbatch"}:
    assert os.access(LAUNCH / name, os.X_OK), name


# Cloud TPU VMs


@pytest.mark.parametrize(
  ("arguments", "expected"),
  [
    (
      ("create", *TPU, "--type=v5litepod-64", "--dry-run"),
      [
        f"{ON_TPU} create in1 --version=v2-alpha-tpuv5-lite --zone=us-west4-a "
        "--accelerator-type=v5litepod-64"
      ],
    ),
    (
      ("create", *TPU, "--type=v6e-8", "--spot", "--queued", "--dry-run"),
      [
        "gcloud compute tpus queued-resources create in1 --node-id=in1 "
        "--runtime-version=v2-alpha-tpuv6e --zone=us-west4-a "
        "--accelerator-type=v6e-8 --spot"
      ],
    ),
    (
      ("stop", *POD),
      [
        f"{ON_TPU} ssh in1 --zone=us-west4-a --project=lab --worker=all "
        "'--command=bash paws_jax/launch/tpu_host.sh stop'"
      ],
    ),
    (
      ("devices", *POD, RECIPE),
      [
        f"{ON_TPU} ssh in1 --zone=us-west4-a --project=lab --worker=all "
        "'--command=bash paws_jax/launch/tpu_host.sh call --task=devices "
        f"{RECIPE}'"
      ],
    ),
    (
      ("collect", *POD, RECIPE, WORKDIR),
      [
        "mkdir -p runs/in1/logs",
        f"{ON_TPU} ssh in1 --zone=us-west4-a --project=lab --worker=all "
        "'--command=cat paws_jax_run/log' --output-directory=runs/in1/logs",
        "gcloud storage rsync --recursive '--exclude=checkpoints/.*' "
        "gs://bucket/run runs/in1",
      ],
    ),
    (
      ("delete", "--queued", *POD),
      [
        "gcloud compute tpus queued-resources delete in1 --zone=us-west4-a "
        "--project=lab --force --quiet"
      ],
    ),
  ],
)
def test_tpu_vm_prints_what_it_would_execute(arguments, expected):
  done = _run("tpu_vm.sh", *arguments)
  assert not done.returncode, done.stderr
  assert done.stdout.splitlines() == expected


@pytest.mark.parametrize(
  ("kind", "chips", "hosts", "runtime"),
  [
    ("v3-8", 4, 1, "tpu-ubuntu2204-base"),
    ("v4-32", 16, 4, "tpu-ubuntu2204-base"),
    ("v5p-128", 64, 16, "v2-alpha-tpuv5"),
    ("v5litepod-1", 1, 1, "v2-alpha-tpuv5-lite"),
    ("v5litepod-8", 8, 1, "v2-alpha-tpuv5-lite"),
    ("v5litepod-16", 16, 4, "v2-alpha-tpuv5-lite"),
    ("v6e-256", 256, 64, "v2-alpha-tpuv6e"),
  ],
)
def test_tpu_types(kind, chips, hosts, runtime):
  options = (f"--type={kind}", "--data-disk=projects/p/d", "--dry-run")
  done = _run("tpu_vm.sh", "create", *TPU, *options)
  assert "--data-disk=source=projects/p/d,mode=read-only" in done.stdout
  assert f"{chips} chip(s) on {hosts} host(s), runtime {runtime}" in done.stderr
  assert f"--version={runtime} " in done.stdout


def test_tpu_install_copies_to_every_host():
  lines = _run("tpu_vm.sh", "install", *TPU, "--dry-run").stdout.splitlines()
  assert [line.split()[0] for line in lines] == [
    "tar",
    "gcloud",
    "rm",
    "gcloud",
    "gcloud",
  ]
  on_hosts = [line for line in lines if line.startswith("gcloud")]
  assert all("--worker=all" in line for line in on_hosts)


@pytest.mark.parametrize("command", ["status", "install", "log", "delete"])
def test_dry_run_executes_nothing(tmp_path, command):
  for name in ("gcloud", "tar", "rm", "mkdir", "kubectl"):
    _executable(tmp_path / name, f'touch "{tmp_path}/executed"')
  env = [_path(tmp_path)]
  done = _run("tpu_vm.sh", command, *TPU, "--dry-run", env=env)
  assert done.stdout.startswith(("gcloud ", "tar "))
  assert not (tmp_path / "executed").exists()
  _run("tpu_vm.sh", command, *TPU, env=env)
  assert (tmp_path / "executed").exists()


def test_arguments_arrive_on_the_host_as_they_were_given(tmp_path):
  # What ssh does with a command: the host's shell reads it.
  received = tmp_path / "received"
  _executable(
    tmp_path / "gcloud",
    'for word in "$@"; do case $word in --command=*) '
    f"bash() {{ printf '%s\\n' \"$@\" >'{received}'; }}; "
    'eval "${word#--command=}";; esac; done',
  )
  done = _run(
    "tpu_vm.sh", "run", *TPU, "--", RECIPE, WORKDIR, AWKWARD,
    env=[_path(tmp_path)],
  )  # fmt: skip
  assert not done.returncode, done.stderr
  assert received.read_text().splitlines() == [
    "paws_jax/launch/tpu_host.sh",
    "start",
    RECIPE,
    WORKDIR,
    AWKWARD,
  ]


def test_project_and_zone_from_the_environment():
  env = {
    "TPU_NAME": "in2",
    "CLOUDSDK_COMPUTE_ZONE": "z",
    "CLOUDSDK_CORE_PROJECT": "p",
  }
  done = _run("tpu_vm.sh", "delete", "--dry-run", env=env)
  assert done.stdout == f"{ON_TPU} delete in2 --zone=z --project=p --quiet\n"


# What a host of a TPU does


def _state(env):
  return _run("tpu_host.sh", "state", env=env).stdout.strip()


def _until(holds):
  for _ in range(100):
    if holds():
      return
    time.sleep(0.05)
  raise AssertionError("nothing happened in 5 seconds")


def test_host_starts_once_stops_and_keeps_the_status(tmp_path):
  program = _executable(
    tmp_path / "python",
    'echo "ran $*"; trap "echo saved; exit 0" TERM\n'
    "for _ in {1..200}; do sleep 0.05; done",
  )
  env = {"PAWS_JAX_STATE": tmp_path / "state", "PAWS_JAX_PYTHON": program}
  assert _state(env) == "not started"
  started = _run("tpu_host.sh", "start", RECIPE, env=env)
  log = tmp_path / "state" / "log"
  try:
    assert started.stdout.startswith("started: process ")
    _until(log.read_text)
    assert _state(env).startswith("running: process ")
    for command in ("start", "install", "remove"):
      refused = _run("tpu_host.sh", command, env=env)
      assert refused.returncode == 1
      assert "is already running: stop it first" in refused.stderr
  finally:
    _run("tpu_host.sh", "stop", env=env)
  _until(lambda: _state(env) == "ended with status 0")
  lines = log.read_text().splitlines()
  assert lines == [f"ran -u -m paws_jax.main {RECIPE}", "saved"]


def test_host_says_how_a_run_failed(tmp_path):
  program = _executable(tmp_path / "python", "exit 7")
  env = {"PAWS_JAX_STATE": tmp_path / "state", "PAWS_JAX_PYTHON": program}
  _run("tpu_host.sh", "start", RECIPE, env=env)
  _until(lambda: _state(env) == "ended with status 7")
  assert _run("tpu_host.sh", "call", RECIPE, env=env).returncode == 7


# GKE


def _jobset(machine, *options, arguments=(RECIPE, WORKDIR), command="run"):
  done = _run(
    "gke.sh",
    command,
    "--name=in1",
    f"--machine={machine}",
    "--image=example/paws:1",
    "--dry-run",
    *options,
    "--",
    *arguments,
  )
  assert not done.returncode, done.stderr
  assert "@" not in done.stdout.partition("apiVersion")[2]
  return yaml.safe_load(done.stdout)


@pytest.mark.parametrize(
  ("machine", "accelerator", "hosts", "chips"),
  [
    ("v5e:1x1", "tpu-v5-lite-podslice", 1, 1),
    ("v5e:2x2", "tpu-v5-lite-podslice", 1, 4),
    ("v5e:2x4", "tpu-v5-lite-podslice", 1, 8),
    ("v5e:8x8", "tpu-v5-lite-podslice", 16, 4),
    ("v6e:4x4", "tpu-v6e-slice", 4, 4),
    ("v4:2x2x2", "tpu-v4-podslice", 2, 4),
    ("v5p:4x4x4", "tpu-v5p-slice", 16, 4),
  ],
)
def test_jobset_asks_for_the_whole_slice(machine, accelerator, hosts, chips):
  jobset = _jobset(machine)
  (replicated,) = jobset["spec"]["replicatedJobs"]
  job = replicated["template"]["spec"]
  pod = job["template"]["spec"]
  (container,) = pod["containers"]
  assert (jobset["kind"], jobset["apiVersion"]) == (
    "JobSet",
    "jobset.x-k8s.io/v1alpha2",
  )
  assert replicated["replicas"] == 1
  assert (job["parallelism"], job["completions"]) == (hosts, hosts)
  assert job["completionMode"] == "Indexed"
  assert job["backoffLimit"] == 0
  for kind in ("requests", "limits"):
    assert container["resources"][kind] == {"google.com/tpu": chips}
  assert pod["nodeSelector"] == {
    "cloud.google.com/gke-tpu-accelerator": accelerator,
    "cloud.google.com/gke-tpu-topology": machine.partition(":")[2],
  }


def test_jobset_runs_the_command_as_given():
  jobset = _jobset("v5e:2x2", arguments=(RECIPE, WORKDIR, AWKWARD))
  spec = jobset["spec"]["replicatedJobs"][0]["template"]["spec"]
  (container,) = spec["template"]["spec"]["containers"]
  assert container["image"] == "example/paws:1"
  assert container["command"] == ["bash", "launch/pod.sh"]
  assert container["args"] == [RECIPE, WORKDIR, AWKWARD]


def test_jobset_restarts_what_was_taken_away_but_not_what_was_refused():
  jobset = _jobset("v5e:2x2", "--max-restarts=7", "--spot")
  policy = jobset["spec"]["failurePolicy"]
  spec = jobset["spec"]["replicatedJobs"][0]["template"]["spec"]
  (rule,) = spec["podFailurePolicy"]["rules"]
  (container,) = spec["template"]["spec"]["containers"]
  assert policy["maxRestarts"] == 7
  assert policy["rules"][0]["onJobFailureReasons"] == ["PodFailurePolicy"]
  assert rule["action"] == "FailJob"
  assert rule["onExitCodes"]["values"] == [2]
  assert rule["onExitCodes"]["containerName"] == container["name"]
  selector = spec["template"]["spec"]["nodeSelector"]
  assert selector["cloud.google.com/gke-spot"] == "true"


def test_gke_devices_is_a_job_of_its_own():
  jobset = _jobset("v5e:2x2", command="devices")
  assert jobset["metadata"]["name"] == "in1-devices"
  assert jobset["spec"]["failurePolicy"]["maxRestarts"] == 0
  spec = jobset["spec"]["replicatedJobs"][0]["template"]["spec"]
  (container,) = spec["template"]["spec"]["containers"]
  assert container["args"][0] == "--task=devices"


def test_gke_knows_former_names():
  options = ("--name=in1", "--image=i", "--dry-run", "--", RECIPE, WORKDIR)
  former = _run("gke.sh", "topology", "--topology=v5e:2x2", *options)
  assert former.stderr.splitlines() == [
    "notice: --topology is now --machine; both work",
    "notice: topology is now devices; both work",
  ]
  now = _run("gke.sh", "devices", "--machine=v5e:2x2", *options)
  assert now.stderr == ""
  assert former.stdout == now.stdout


def test_tpu_vm_knows_former_names():
  former = _run("tpu_vm.sh", "topology", *POD, RECIPE)
  assert former.stderr == "notice: topology is now devices; both work\n"
  now = _run("tpu_vm.sh", "devices", *POD, RECIPE)
  assert now.stderr == ""
  assert former.stdout == now.stdout


@pytest.mark.parametrize(
  ("machine", "expected"),
  [
    ("v5e:2x4", "--machine-type=ct5lp-hightpu-8t --num-nodes=1"),
    (
      "v5e:8x8",
      "--machine-type=ct5lp-hightpu-4t --num-nodes=16 --tpu-topology=8x8",
    ),
    (
      "v4:2x2x4",
      "--machine-type=ct4p-hightpu-4t --num-nodes=4 --tpu-topology=2x2x4",
    ),
    ("v6e:2x2", "--machine-type=ct6e-standard-4t --num-nodes=1"),
  ],
)
def test_gke_pool(machine, expected):
  place = ("--cluster=c", "--location=us-west4", "--dry-run")
  done = _run("gke.sh", "pool", "--name=p", f"--machine={machine}", *place)
  assert done.stdout.strip() == (
    "gcloud container node-pools create p --cluster=c --location=us-west4 "
    + expected
  )


def test_gke_applies_what_the_dry_run_shows(tmp_path):
  applied = tmp_path / "applied"
  _executable(tmp_path / "kubectl", f"echo \"$*\" >&2; cat >'{applied}'")
  image = "--image=example/paws:1"
  options = ("--name=in1", "--machine=v5e:4x4", image, "--")
  done = _run("gke.sh", "run", *options, RECIPE, WORKDIR, env=[_path(tmp_path)])
  assert done.stderr.strip() == "apply --filename=-"
  assert yaml.safe_load(applied.read_text()) == _jobset("v5e:4x4")


# Finished, or only stopped


@pytest.fixture
def finished():
  spec = importlib.util.spec_from_file_location(
    "launch_finished", LAUNCH / "finished.py"
  )
  module = importlib.util.module_from_spec(spec)
  spec.loader.exec_module(module)
  return module


def _workdir(path, *, rows=None, steps=()):
  path.mkdir()
  (path / "config.json").write_text("{}")
  for step in steps:
    (path / "checkpoints" / str(step)).mkdir(parents=True)
  if rows is not None:
    (path / "results.json").write_text(json.dumps(rows))
  return str(path)


@pytest.mark.parametrize(
  ("rows", "steps", "expected"),
  [
    (None, [], 3),
    (None, [10, 20], 3),
    ([{"task": "finetune", "steps": 50}], [10, 20], 3),
    ([{"task": "pretrain", "steps": 20}], [10, 20], 0),
    # Finished once, given more epochs, and stopped on the way.
    ([{"task": "pretrain", "steps": 20}], [20, 30], 3),
    ([{"task": "pretrain", "steps": s} for s in (20, 40)], [20, 40], 0),
  ],
)
def test_finished(tmp_path, capsys, finished, rows, steps, expected):
  workdir = _workdir(tmp_path / "run", rows=rows, steps=[*steps])
  assert finished.main(["finished.py", workdir]) == expected
  verdict = "finished" if expected == 0 else "not finished yet"
  assert capsys.readouterr().out == f"{workdir}: {verdict}\n"


def test_finished_ignores_a_checkpoint_that_was_being_written(
  tmp_path, finished
):
  workdir = _workdir(
    tmp_path / "run",
    rows=[{"task": "pretrain", "steps": 20}],
    steps=[20, "30.orbax-checkpoint-tmp"],
  )
  assert finished.is_finished(workdir)


def test_finished_refuses_what_is_no_result(tmp_path, finished):
  workdir = _workdir(tmp_path / "run", rows={"task": "pretrain"})
  with pytest.raises(ValueError, match="not a JSON list of objects: move it"):
    finished.is_finished(workdir)


@pytest.mark.parametrize("text", ["", "[" * 100_000, '[{"task": 1}, 2]'])
def test_finished_names_a_damaged_file(tmp_path, capsys, finished, text):
  workdir = _workdir(tmp_path / "run", rows=[])
  (tmp_path / "run" / "results.json").write_text(text)
  assert finished.main(["finished.py", workdir]) == 1
  assert "results.json is not " in capsys.readouterr().err


def test_finished_says_where_there_is_no_run(tmp_path, capsys, finished):
  assert finished.main(["finished.py", str(tmp_path / "typo")]) == 3
  assert "typo: there is no run\n" in capsys.readouterr().out


@pytest.mark.parametrize("arguments", [[], ["a", "b"], ["--help"]])
def test_finished_usage(capsys, finished, arguments):
  assert finished.main(["finished.py", *arguments]) == 2
  assert "usage: python launch/finished.py" in capsys.readouterr().err


# A pod, and a SLURM job: the same question


def _program(tmp_path, *, trains, finished=0):
  """A "python" that trains with a shell command and asks nobody."""
  return _executable(
    tmp_path / "python",
    f'case "$*" in *paws_jax.main*) {trains} ;; '
    f'*) echo "$*" >>"{tmp_path}/asked"; exit {finished} ;; esac',
  )


@pytest.mark.parametrize(
  ("trains", "finished", "index", "task", "expected"),
  [
    ("exit 0", 0, 0, "pretrain", 0),
    ("exit 0", 3, 0, "pretrain", 75),
    # Only pod 0 asks: at the end the others may be faster than its results.
    ("exit 0", 3, 1, "pretrain", 0),
    ("exit 0", 3, 0, "devices", 0),
    ("exit 2", 3, 0, "pretrain", 2),
    ("kill -ABRT $$", 3, 0, "pretrain", 128 + signal.SIGABRT),
  ],
)
def test_pod_status(tmp_path, trains, finished, index, task, expected):
  program = _program(tmp_path, trains=trains, finished=finished)
  env = {"PAWS_JAX_PYTHON": program, "JOB_COMPLETION_INDEX": str(index)}
  done = _run("pod.sh", RECIPE, WORKDIR, f"--task={task}", env=env)
  assert done.returncode == expected, done.stderr


@pytest.mark.parametrize("finished", [0, 3])
def test_pod_hands_the_signal_on_and_waits_for_the_save(tmp_path, finished):
  program = _program(
    tmp_path,
    trains=f"trap 'sleep 0.3; touch \"{tmp_path}/saved\"; exit 0' TERM; "
    f'touch "{tmp_path}/ready"; for _ in {{1..200}}; do sleep 0.05; done',
    finished=finished,
  )
  pod = subprocess.Popen(
    ["bash", str(LAUNCH / "pod.sh"), RECIPE, WORKDIR],
    env=os.environ | {"PAWS_JAX_PYTHON": str(program)},
    cwd=ROOT,
  )
  try:
    _until((tmp_path / "ready").exists)
    pod.send_signal(signal.SIGTERM)
    assert pod.wait(timeout=60) == (75 if finished else 0)
  finally:
    pod.kill()
  assert (tmp_path / "saved").exists()
  asked = (tmp_path / "asked").read_text()
  assert asked == "launch/finished.py gs://bucket/run\n"


def _sbatch(
  tmp_path, *, trains, finished=3, state="RUNNING", restarts=0, task="pretrain"
):
  """Status and output of the job, and what scontrol was told besides."""
  program = _program(tmp_path, trains=trains, finished=finished)
  _executable(
    tmp_path / "srun",
    'while [[ $1 == --* ]]; do shift; done; exec "$@"',
  )
  _executable(
    tmp_path / "scontrol",
    f'[ "$1" = show ] && echo "JobId=5 JobState={state} Reason=None" '
    f'|| echo "$*" >>"{tmp_path}/told"',
  )
  env = {
    "PATH": f"{tmp_path}:{os.environ['PATH']}",
    "PAWS_JAX_PYTHON": program,
    "PAWS_JAX_MAX_RESTARTS": "4",
    "SLURM_JOB_ID": "5",
    "SLURM_SUBMIT_DIR": ROOT,
    "SLURM_RESTART_COUNT": str(restarts),
  }
  command = (RECIPE, "--workdir=/w", f"--task={task}")
  done = _run("slurm.sbatch", *command, env=env, cwd=tmp_path)
  told = tmp_path / "told"
  return done, told.read_text() if told.exists() else ""


def test_slurm_queues_a_stopped_run_again(tmp_path):
  done, told = _sbatch(tmp_path, trains="exit 0")
  assert (done.returncode, told) == (0, "requeue 5\n")


@pytest.mark.parametrize(
  ("how", "expected"),
  [
    ({"trains": "exit 0", "finished": 0}, 0),
    # SLURM itself queues a pre-empted job again, and nobody a cancelled one.
    ({"trains": "exit 0", "state": "COMPLETING"}, 0),
    ({"trains": "exit 0", "state": "CANCELLED"}, 0),
    # A failed run would fail again; a workdir that cannot be read, too.
    ({"trains": "exit 7"}, 7),
    ({"trains": "exit 0", "task": "devices"}, 0),
    ({"trains": "exit 0", "finished": 1}, 1),
  ],
)
def test_slurm_leaves_other_runs_alone(tmp_path, how, expected):
  done, told = _sbatch(tmp_path, **how)
  assert (done.returncode, told) == (expected, "")


def test_slurm_gives_up_in_the_end(tmp_path):
  done, told = _sbatch(tmp_path, trains="exit 0", restarts=4)
  assert (done.returncode, told) == (1, "")
  assert "queued again 4 times already" in done.stderr


def test_slurm_batch_shell_outlives_its_own_signal(tmp_path):
  # The signal comes to the shell while srun waits for the processes to save.
  done, told = _sbatch(
    tmp_path, trains="kill -TERM $PPID; sleep 0.3; exit 0", state="COMPLETING"
  )
  assert (done.returncode, told) == (0, "")
  assert "SLURM is stopping the job" in done.stdout


def test_slurm_directives():
  text = (LAUNCH / "slurm.sbatch").read_text()
  found = re.findall(r"^#SBATCH --([\w-]+)(?:=(.*))?$", text, re.MULTILINE)
  directives = dict(found)
  assert len(directives) == len(found)
  assert directives["signal"] == "TERM@120"
  assert directives["requeue"] == ""
  assert directives["open-mode"] == "append"
  assert directives["gpus-per-node"] == directives["ntasks-per-node"]
  # sbatch reads no further than the first command.
  first = re.search(r"^[^#\n]", text, re.MULTILINE).start()
  assert text.rindex("#SBATCH") < first


def test_slurm_dry_run():
  done = _run(
    "slurm.sbatch", "--dry-run", RECIPE, "--workdir=/w", AWKWARD,
    env={"SLURM_CPUS_PER_TASK": "12", "PAWS_JAX_PYTHON": "python"},
  )  # fmt: skip
  step, question, requeue = done.stdout.splitlines()
  assert shlex.split(step) == [
    "srun",
    "--kill-on-bad-exit=1",
    "--cpus-per-task=12",
    *("python", "-u", "-m", "paws_jax.main", RECIPE, "--workdir=/w", AWKWARD),
  ]
  assert shlex.split(question) == ["python", "launch/finished.py", "/w"]
  assert requeue.startswith("scontrol requeue")


# What docs/pods.md has a reader type

_DOCUMENTED = re.findall(
  r"^(launch/\S+\.sh .*?)(?:\s+#.*)?$",
  (ROOT / "docs" / "pods.md").read_text(encoding="utf-8"),
  re.MULTILINE,
)


def test_documented_commands_are_found():
  found = {tuple(command.split()[:2]) for command in _DOCUMENTED}
  assert found == {
    (f"launch/{script}", verb)
    for script, verbs in {
      "gke.sh": "pool devices run log delete",
      "tpu_vm.sh": "create status install devices run log collect delete",
    }.items()
    for verb in verbs.split()
  }


@pytest.mark.parametrize("command", _DOCUMENTED)
def test_documented_command(command):
  script, verb, *rest = shlex.split(command)
  env = {"TPU_NAME": "in1", "CLOUDSDK_COMPUTE_ZONE": "z"}
  name = pathlib.Path(script).name
  done = _run(name, verb, "--dry-run", *rest, env=env)
  assert not done.returncode, done.stderr
  assert done.stdout


# Refusals


@pytest.mark.parametrize("script", ["gke.sh", "slurm.sbatch", "tpu_vm.sh"])
@pytest.mark.parametrize("arguments", [(), ("nonsense",)])
def test_usage(script, arguments):
  done = _run(script, *arguments)
  assert done.returncode == 2
  assert not done.stdout
  assert "usage: " in done.stderr


@pytest.mark.parametrize("script", ["gke.sh", "slurm.sbatch", "tpu_vm.sh"])
def test_help(script):
  done = _run(script, "--help")
  assert done.returncode == 0
  assert done.stdout.startswith("usage: ")


@pytest.mark.parametrize(
  ("arguments", "message"),
  [
    (("create", "--zone=z"), "--name is missing"),
    (("create", "--name=a"), "--zone is missing"),
    (("create", *TPU), "--type is missing"),
    (("create", "--name=A_b", "--zone=z"), "--name=A_b: lower-case letters"),
    (("create", *TPU, "--type=v5e-8"), "--type=v5e-8: known are v3-N"),
    (("create", *TPU, "--type=v4"), "--type=v4: no size after the dash"),
    (("create", *TPU, "--type=v4-1"), "--type=v4-1: less than one chip"),
    (("create", *TPU, "--sport"), "unknown option --sport"),
    (("launch", *TPU), "unknown command launch"),
    (("devices", *TPU), "--config=RECIPE is missing after --"),
    (("run", *TPU, "--", WORKDIR), "--config=RECIPE is missing after --"),
    (("run", *TPU, "--", RECIPE), "--workdir=gs://BUCKET/RUN is missing"),
    (
      ("run", *TPU, "--", RECIPE, "--workdir=runs/a"),
      "--workdir=runs/a: it must be gs://BUCKET/RUN or a path from /",
    ),
  ],
)
def test_tpu_vm_refuses(tmp_path, arguments, message):
  _executable(tmp_path / "gcloud", f'touch "{tmp_path}/executed"')
  done = _run("tpu_vm.sh", *arguments, env=[_path(tmp_path)])
  assert done.returncode == 2
  assert message in done.stderr
  assert not (tmp_path / "executed").exists()


@pytest.mark.parametrize(
  ("options", "arguments", "message"),
  [
    ({"image": ""}, (RECIPE, WORKDIR), "--image is missing"),
    ({"name": ""}, (RECIPE, WORKDIR), "--name is missing"),
    ({"name": "In_1"}, (RECIPE, WORKDIR), "In_1: lower-case letters"),
    ({"machine": ""}, (RECIPE, WORKDIR), "--machine is missing"),
    ({"machine": "v7:2x2"}, (RECIPE, WORKDIR), "known are v4, v5e, v5p, v6e"),
    ({"machine": "v5e:2xa"}, (RECIPE, WORKDIR), "no shape like 8x8"),
    ({"machine": "v5e"}, (RECIPE, WORKDIR), "no shape like 8x8"),
    ({"machine": "v4:4x4"}, (RECIPE, WORKDIR), "has 3 dimensions, not 2"),
    ({"machine": "v5e:0x4"}, (RECIPE, WORKDIR), "an empty dimension"),
    ({"machine": "v4:1x1x2"}, (RECIPE, WORKDIR), "2 chips are not 4 a host"),
    ({"max-restarts": "no"}, (RECIPE, WORKDIR), "--max-restarts=no: not a"),
    ({}, (WORKDIR,), "--config=RECIPE is missing after --"),
    ({}, (RECIPE,), "--workdir=gs://BUCKET/RUN is missing after --"),
    ({}, (RECIPE, "--workdir=/scratch/a"), "pods share no disk"),
    ({}, (RECIPE, WORKDIR, "--a=b\nc"), "has more than one line"),
  ],
)
def test_gke_refuses(tmp_path, options, arguments, message):
  _executable(tmp_path / "kubectl", f'touch "{tmp_path}/executed"')
  given = {"name": "in1", "machine": "v5e:4x4", "image": "i"} | options
  flags = [f"--{name}={value}" for name, value in given.items()]
  done = _run("gke.sh", "run", *flags, "--", *arguments, env=[_path(tmp_path)])
  assert done.returncode == 2
  assert message in done.stderr
  assert not (tmp_path / "executed").exists()


@pytest.mark.parametrize(
  ("arguments", "cwd", "message"),
  [
    (("--workdir=/w",), ROOT, "--config=RECIPE is missing"),
    ((RECIPE,), ROOT, "--workdir=DIR is missing"),
    ((RECIPE, "--workdir=/w", "--dry-run"), ROOT, "--dry-run comes first"),
    ((RECIPE, "--workdir=/w"), LAUNCH, "is not the root of the checkout"),
  ],
)
def test_slurm_refuses(arguments, cwd, message):
  done = _run("slurm.sbatch", *arguments, cwd=cwd)
  assert done.returncode == 2
  assert message in done.stderr
