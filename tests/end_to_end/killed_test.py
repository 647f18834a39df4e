"""A process that writes checkpoints is killed, twenty times, at any moment."""

import random
import subprocess
import sys
import time

import pytest

KILLS = 20

# Goes on from the newest checkpoint, whose arrays must be those of its step,
# and writes one for every step from then on. Says which are complete.
WRITER = """
import sys
import jax.numpy as jnp
import numpy as np
from paws_jax.runs import checkpoint

def state(step):
  values = np.random.default_rng(step).standard_normal((8, 300, 300))
  return {"step": jnp.int32(step), "w": [jnp.float32(v) for v in values]}

with checkpoint.Checkpointer(sys.argv[1]) as checkpointer:
  restored = checkpointer.restore_latest(state(0))
  step = 0
  if restored is not None:
    step, found, meta = restored
    assert meta == {"of": step}
    expected = state(step)
    assert int(found["step"]) == step
    for array, wanted in zip(found["w"], expected["w"], strict=True):
      np.testing.assert_array_equal(array, wanted)
  print("from", step, flush=True)
  while True:
    step += 1
    checkpointer.save(step, state(step), {"of": step})
    checkpointer.wait()
    print("saved", step, flush=True)
"""


@pytest.mark.slow
def test_twenty_kills_lose_no_complete_checkpoint(tmp_path):
  rng = random.Random(0)
  last = 0
  for _ in range(KILLS):
    with subprocess.Popen(
      [sys.executable, "-c", WRITER, str(tmp_path / "c")],
      stdout=subprocess.PIPE,
      stderr=subprocess.PIPE,
      text=True,
    ) as writer:
      first = writer.stdout.readline()
      if first:
        time.sleep(rng.uniform(0, 1))
        writer.kill()
      out, err = writer.communicate()
    assert first.startswith("from "), err
    # The one under way may have been finished, but not yet been told of.
    assert int(first.split()[1]) in (last, last + 1), err
    assert "damaged" not in out
    saved = [int(line.split()[1]) for line in out.splitlines()]
    last = saved[-1] if saved else int(first.split()[1])
  assert last > KILLS // 2
