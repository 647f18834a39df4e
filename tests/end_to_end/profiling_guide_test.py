"""The recipes of docs/profiling.md run as they are written, on a tiny step."""

import pathlib
import re

import jax.numpy as jnp
import pytest

from paws_jax.parallel import cpu_devices
from paws_jax.training import step

_ROOT = pathlib.Path(__file__).parents[2]
_GUIDE = (_ROOT / "docs" / "profiling.md").read_text(encoding="utf-8")
_BLOCKS = re.findall(r"```python\n(.*?)```", _GUIDE, re.DOTALL)
_QUICKSTART = "configs/quickstart.py"

pytestmark = pytest.mark.slow


@pytest.fixture(autouse=True)
def asked_batch_sizes(monkeypatch):
  """Of `sharding.use_cpu_cores`, for which it is too late in this process."""
  asked = []
  monkeypatch.setattr(cpu_devices, "use_cpu_cores", asked.append)
  return asked


def _run(block):
  assert _QUICKSTART in block or "ProfileData" in block
  exec(block.replace(_QUICKSTART, str(_ROOT / "tests" / "tiny_recipe.py")), {})


def _step(trainer, state, batch):
  """Fast to compile; what a trace looks like does not depend on it."""
  images = batch.unlabelled.image.astype(jnp.float32)
  loss = jnp.mean(jnp.einsum("bhwc,dhwc->bd", images, images))
  return state.replace(step=state.step + 1), {"loss": loss}


def test_a_trace_and_what_took_most_time(
  tmp_path, monkeypatch, capsys, asked_batch_sizes
):
  monkeypatch.chdir(tmp_path)
  monkeypatch.setattr(step, "train_step", _step)
  trace, table, _ = _BLOCKS
  _run(trace)
  # As `main`: else it is not what trains on a CPU.
  assert asked_batch_sizes == [256]
  assert len(list((tmp_path / "runs" / "trace").rglob("*.xplane.pb"))) == 1
  capsys.readouterr()
  _run(table)
  lines = capsys.readouterr().out.splitlines()
  assert len(lines) == 10
  found = [re.fullmatch(r" *([\d.]+) ms  (\S.*)", line) for line in lines]
  times = [float(match[1]) for match in found]
  assert times == sorted(times, reverse=True)
  assert times[0] > 0
  # The names are the compiler's.
  assert any(
    re.match(r"(fusion|dot|reduce|sort|call|\S*fusion)", m[2]) for m in found
  )


def test_the_program_is_read_without_running(capsys, asked_batch_sizes):
  _run(_BLOCKS[2])
  assert asked_batch_sizes == [256]
  out = capsys.readouterr().out
  assert re.search(
    r"^convolutions: \{\('bf16', 'bf16', 'bf16'\): \d+\}$", out, re.MULTILINE
  )
  assert "calls of the host: []\n" in out
