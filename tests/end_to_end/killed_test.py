"""A process that writes checkpoints is killed, twenty times, at any moment."""

import os
import random
import signal
import subprocess
import sys
import time

import pytest

KILLS = 20

# Imports, which takes seconds, and starts a child for each line that it reads.
# A child goes on from the newest checkpoint, whose arrays must be those of its
# step, and writes one for every step from then on. It says which are complete.
WRITER = """
import os, sys, traceback, warnings
import jax.numpy as jnp
import numpy as np
from paws_jax.runs import checkpoint

def state(step):
  values = np.random.default_rng(step).standard_normal((8, 300, 300))
  return {"step": jnp.int32(step), "w": [jnp.float32(v) for v in values]}

def write(directory):
  with checkpoint.Checkpointer(directory) as checkpointer:
    restored = checkpointer.restore_latest(state(0))
    step = 0
    if restored is not None:
      step, found, meta = restored
      assert meta == {"of": step}
      expected = state(step)
      assert int(found["step"]) == step
      for array, wanted in zip(found["w"], expected["w"], strict=True):
        np.testing.assert_array_equal(array, wanted)
    print("from", step, os.getpid(), flush=True)
    while True:
      step += 1
      checkpointer.save(step, state(step), {"of": step})
      checkpointer.wait()
      print("saved", step, flush=True)

for _ in sys.stdin:
  with warnings.catch_warnings():
    # JAX warns of forks, but has no backend yet.
    warnings.simplefilter("ignore")
    child = os.fork()
  if not child:
    try:
      write(sys.argv[1])
    finally:
      traceback.print_exc()
      os._exit(1)
  status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
  print("ended", status, flush=True)
"""


@pytest.mark.slow
def test_twenty_kills_lose_no_complete_checkpoint(tmp_path):
  rng = random.Random(0)
  last = 0
  errors = tmp_path / "errors"
  with (
    errors.open("w") as err,
    subprocess.Popen(
      [sys.executable, "-c", WRITER, str(tmp_path / "c")],
      env=os.environ | {"JAX_PLATFORMS": "cpu"},
      stdin=subprocess.PIPE,
      stdout=subprocess.PIPE,
      stderr=err,
      text=True,
    ) as parent,
  ):
    for _ in range(KILLS):
      parent.stdin.write("start\n")
      parent.stdin.flush()
      lines = iter(parent.stdout.readline, "")
      # Of a damaged checkpoint there would be a warning.
      kind, step, *pid = next(lines).split()
      assert kind == "from", errors.read_text()
      # The one under way may have been finished, but not yet reported.
      assert int(step) in (last, last + 1)
      last = int(step)
      for _ in range(rng.randrange(3)):
        last = int(next(lines).removeprefix("saved "))
      time.sleep(rng.uniform(0, 0.3))
      os.kill(int(pid[0]), signal.SIGKILL)
      for line in lines:
        kind, number = line.split()
        if kind == "ended":
          break
        assert kind == "saved"
        last = int(number)
      assert int(number) == -signal.SIGKILL, errors.read_text()
  assert last > KILLS // 2
