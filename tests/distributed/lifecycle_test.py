"""Real processes on this machine start, stop and end together."""

import signal

import jax
import pytest

from paws_jax.distributed import lifecycle
from tests import processes

START = """
import atexit, os, signal, sys, time
process, num_processes, port = map(int, sys.argv[1:])
if process == int(os.environ.get("ENDS_LATE", -1)):
  # Run last, after JAX has left the run.
  atexit.register(time.sleep, 1.5)
from paws_jax import errors
from paws_jax.distributed import launch as launch_lib
from paws_jax.distributed import lifecycle
launch = launch_lib.Launch(
  f"localhost:{port}", num_processes, process, "test"
)
def start(launch=launch, seconds=60):
  lifecycle.initialize(
    launch, timeout_seconds=seconds, heartbeat_timeout_seconds=10
  )
def caught(function, *args, **options):
  try:
    function(*args, **options)
  except errors.DistributedError as error:
    print(type(error).__name__, error)
  else:
    print("no error")
"""
LOOP = """
for step in range(2000):
  multihost_utils.process_allgather(step)
  if step == 5:
    print("going", flush=True)
"""


def _run(code, num_processes=2, *, seconds=60, **options):
  code = f"{START}{code}"
  with processes.start_code(
    code, num_processes=num_processes, **options
  ) as group:
    finished = group.wait(seconds=seconds)
  return finished


def test_alone():
  lifecycle.initialize(None)
  assert not jax.distributed.is_initialized()
  assert lifecycle.is_main()
  lifecycle.barrier("x")
  assert not lifecycle.StopNotice().reached()
  with pytest.raises(SystemExit) as exit_info:
    lifecycle.exit_now(3)
  assert exit_info.value.code == 3


@pytest.mark.slow
def test_processes_start_and_end():
  code = """
start()
import jax
print(jax.process_count(), jax.device_count(), lifecycle.is_main())
lifecycle.barrier("here")
"""
  for process, finished in enumerate(_run(code, 3, devices=2)):
    assert finished.status == 0, finished.err
    assert processes.lines(finished) == [f"3 6 {process == 0}"]


@pytest.mark.slow
@pytest.mark.parametrize("late", [0, 1])
def test_process_may_end_later_than_others(late):
  for finished in _run("start()", environ={"ENDS_LATE": str(late)}):
    assert finished.status == 0, finished.err
    assert "error" not in finished.err


@pytest.mark.slow
def test_different_numbers_of_processes():
  code = """
launch = launch_lib.Launch(f"localhost:{port}", 2 + process, process, "test")
caught(start, launch)
"""
  for finished in _run(code):
    assert finished.status == 0, finished.err
    (line,) = processes.lines(finished)
    assert line.startswith("DistributedError process 1 (")
    assert "was started with 3 processes, process 0" in line


@pytest.mark.slow
def test_missing_process():
  code = """
launch = launch_lib.Launch(f"localhost:{port}", 2, int("WHO"), "test")
caught(start, launch, seconds=1)
"""
  (first,) = _run(code.replace("WHO", "0"), 1)
  assert "has waited 1 s for process 1, of 2, on port" in first.out
  (other,) = _run(code.replace("WHO", "1"), 1)
  assert "has tried for 1 s to reach process 0 at localhost:" in other.out
  assert first.status == other.status == 0


@pytest.mark.slow
def test_different_numbers_of_devices():
  code = """
os.environ["JAX_NUM_CPU_DEVICES"] = str(1 + (process == 1))
import jax
jax.config.update("jax_num_cpu_devices", 1 + (process == 1))
caught(start)
"""
  for finished in _run(code, 3):
    assert finished.status == 0, finished.err
    assert processes.lines(finished) == [
      "DistributedError the processes have different numbers of devices: 1 on "
      "processes 0, 2, 2 on process 1. Give each the same (JAX_NUM_CPU_DEVICES,"
      " CUDA_VISIBLE_DEVICES, machines of one kind)."
    ]


GO = "start()\nfrom jax.experimental import multihost_utils\n"


@pytest.mark.slow
@pytest.mark.parametrize("victim", [0, 1])
def test_process_is_killed(victim):
  # JAX notices after 44 s, which no slow machine reaches.
  code = START.replace("seconds=10", "seconds=45") + GO + LOOP
  with processes.start_code(code, num_processes=2) as group:
    for number in range(2):
      group.wait_for_output(number, "going")
    group.send(victim, signal.SIGKILL)
    finished = group.wait(seconds=30)
  killed, other = finished[victim], finished[1 - victim]
  assert killed.status == -signal.SIGKILL
  # JAX aborts as soon as process 0 has ended, and may be quicker.
  if victim == 0 and other.status == -signal.SIGABRT:
    assert "Terminating process because the JAX distributed" in other.err
  else:
    assert other.status == 1
    assert f"error: process {victim}" in other.err
    assert "has ended without a message" in other.err


@pytest.mark.slow
@pytest.mark.parametrize("victim", [0, 1])
def test_process_is_stopped_and_continued(victim):
  # JAX would end them after 20 s.
  code = START.replace("seconds=10", "seconds=20") + "lifecycle._SILENCE = 0.3"
  code += f"\n{GO}{LOOP}"
  others = {0, 1, 2} - {victim}
  with processes.start_code(code, num_processes=3) as group:
    for number in range(3):
      group.wait_for_output(number, "going")
    group.send(victim, signal.SIGSTOP)
    for number in others:
      group.wait_for_end(number, seconds=60)
    group.send(victim, signal.SIGCONT)
    finished = group.wait(seconds=10)
  for number in others:
    assert finished[number].status == 1, finished[number].err
    assert f"error: process {victim}" in finished[number].err
    assert "has sent nothing for 6 s: it is stopped" in finished[number].err
    assert "@" not in finished[number].err  # Addresses of a stack trace.
  assert finished[victim].status != 0


@pytest.mark.slow
@pytest.mark.parametrize("victim", [0, 1])
def test_process_ends_while_jax_starts(victim):
  # Before JAX could notice, for process 0, too.
  code = f"""
import jax
if process == {victim}:
  jax.distributed.initialize = lambda **_: os._exit(5)
start()
"""
  finished = _run(code, seconds=50)
  gone, other = finished[victim], finished[1 - victim]
  assert gone.status == 5
  assert other.status == 1, other.err
  name = ["process 0 has", "process 1 ("][victim]
  assert f"error: {name}" in other.err
  assert "ended without a message" in other.err
  assert f"Process {1 - victim} (" in other.err


@pytest.mark.slow
@pytest.mark.parametrize("victim", [0, 1])
@pytest.mark.parametrize(
  ("how", "status"),
  [
    ("raise KeyError('mine')", 1),
    ("lifecycle.exit_now(7)", 7),
  ],
)
def test_process_fails(victim, how, status):
  code = f"""{GO}
if process == {victim}:
  time.sleep(0.5)
  {how}
time.sleep(60)
"""
  finished = _run(code, seconds=50)
  failed, other = finished[victim], finished[1 - victim]
  assert failed.status == status
  assert ("KeyError: 'mine'" in failed.err) == ("raise" in how)
  assert other.status == 1, other.err
  assert f"error: process {victim} (" in other.err
  assert f"has ended with an error, status {status}; see its" in other.err


STOP = """
notice = lifecycle.StopNotice()
for step in range(0, 4000, 2):
  multihost_utils.process_allgather(step)
  if notice.reached():
    print("stopped at", step, flush=True)
    break
  if step == 10:
    print("going", flush=True)
  time.sleep(0.005)
"""
# Ctrl-C does the same.
INTERRUPT = """
signal.signal(
  signal.SIGINT, lambda *_: os.kill(os.getpid(), signal.SIGTERM)
)
"""


# Steps far apart, of which a resumed run has many behind it, and checkpoints.
RESUMED = """
import jax.numpy as jnp
from paws_jax.parallel import mesh as sharding
from paws_jax.runs import checkpoint
if early and process == 1:
  os.kill(os.getpid(), signal.SIGTERM)
  time.sleep(3)
multihost_utils.process_allgather(1)
notice = lifecycle.StopNotice()
state = sharding.replicate({"w": np.zeros(3)}, sharding.make_mesh())
with checkpoint.Checkpointer(directory) as checkpointer:
  for step in range(3900, 7800, 39):
    multihost_utils.process_allgather(step)
    if notice.reached():
      print("stopped at", step, flush=True)
      break
    if step == 3978:
      checkpointer.save(step, state, {})
      checkpointer.wait()
      if process == 1:
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(2)
"""


@pytest.mark.slow
@pytest.mark.parametrize(("early", "step"), [(True, 3900), (False, 4017)])
def test_neither_checkpoints_nor_earlier_steps_hide_the_notice(
  tmp_path, early, step
):
  values = (
    f"early, directory = {early}, {str(tmp_path / 'c')!r}\nimport numpy as np\n"
  )
  for each in _run(f"{GO}{values}{RESUMED}", seconds=60):
    assert each.status == 0, each.err
    [(stopped, at)] = [
      (line, int(line.split()[-1]))
      for line in processes.lines(each)
      if line.startswith("stopped at")
    ]
    # The one after, if the notice was still on its way.
    assert at in (step, step + 39), stopped


@pytest.mark.slow
@pytest.mark.parametrize(
  ("target", "number"), [(0, signal.SIGTERM), (2, signal.SIGINT)]
)
def test_all_stop_at_the_same_step(target, number):
  code = START + GO + INTERRUPT + STOP
  with processes.start_code(code, num_processes=3) as group:
    for process in range(3):
      group.wait_for_output(process, "going")
    group.send(target, number)
    finished = group.wait(seconds=30)
  assert [each.status for each in finished] == [0, 0, 0], finished
  stops = {processes.lines(each)[-1] for each in finished}
  assert len(stops) == 1
  assert "stopped at" in stops.pop()
