"""benchmarks/step/start.py as its users run it, on a tiny recipe."""

import os
import pathlib
import re
import subprocess
import sys

import pytest

from benchmarks.step import start
from tests import forked
from tests import quick_compile

_ROOT = pathlib.Path(__file__).parents[3]
_RECIPE = (
  "--config=tests/tiny_recipe.py",
  "--config.model.name=small_resnet",
  "--config.train.batch_size=8",
)

# Shows what a run shows and stops as a run does, with status 0; would go on for
# long if it were not asked to.
_RUN = """
import signal, sys, time
signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
print("step 1/9 of an evaluation")
print("compiling the train step ...")
print("step 1/9  5 img/s")
# A signal that comes just before a sleep does not end it.
for _ in range(3000):
  time.sleep(0.1)
"""


def _run(*arguments):
  return subprocess.run(
    [sys.executable, "-m", "benchmarks.step.start", *arguments],
    cwd=_ROOT,
    env={
      **os.environ,
      "JAX_PLATFORMS": "cpu",
      "PYTHONPATH": str(_ROOT),
      **quick_compile.ENVIRON,
    },
    capture_output=True,
    text=True,
    check=False,
  )


def test_both_runs_share_a_cache_and_no_workdir(monkeypatch, capsys):
  commands, popen = [], subprocess.Popen

  def start_another(command, **options):
    commands.append(dict(flag.split("=", 1) for flag in command[4:]))
    return popen([sys.executable, "-u", "-c", _RUN], **options)

  monkeypatch.setattr(start.subprocess, "Popen", start_another)
  monkeypatch.setattr(start, "_print_setting", lambda *_: None)
  monkeypatch.setattr(sys, "argv", ["start.py", *_RECIPE])
  assert start.main() == 0
  cold, warm = commands
  assert cold.pop("--workdir") != warm.pop("--workdir")
  assert cold == warm
  assert "--compilation_cache" in cold
  assert cold["--config.log.every_steps"] == "1"
  assert cold.items() >= dict(flag.split("=") for flag in _RECIPE).items()
  assert capsys.readouterr().out.splitlines()[-1].startswith("ratio: ")


@pytest.mark.slow
def test_prints_seconds_cold_and_warm_and_the_ratio_last():
  result = _run(*_RECIPE)
  assert result.returncode == 0, result.stderr
  *setting, cold, warm, last = result.stdout.splitlines()
  lines = (
    r"device: \d+ x .+ \(cpu\), \d+ CPU cores",
    r"versions: python [\d.]+, jax [\d.]+, flax [\d.]+",
    rf"recipe: {re.escape(' '.join(_RECIPE))}",
  )
  for line, expected in zip(setting, lines, strict=True):
    assert re.fullmatch(expected, line), result.stdout
  seconds = {}
  for name, line in (("cold", cold), ("warm", warm)):
    found = re.fullmatch(
      rf"{name}: compiling after ([\d.]+) s, first step after ([\d.]+) s", line
    )
    assert found, result.stdout
    compiling, seconds[name] = map(float, found.groups())
    assert 0 < compiling < seconds[name]
  ratio = float(re.fullmatch(r"ratio: (\d+\.\d\d)", last)[1])
  assert ratio == pytest.approx(seconds["cold"] / seconds["warm"], rel=0.05)


@pytest.mark.slow
def test_bad_arguments_are_refused():
  refused = {
    ("more",): "unknown arguments: more; fields of the recipe are changed",
    ("--config.train.epochs", "1"): "unknown arguments: --config.train.ep",
    ("--config=none.py",): "--config=none.py: there is no such file",
    (*_RECIPE, "--config.train.batch_size=0"): (
      "error: the run ended with status 2 before its first step:\nerror: "
    ),
  }
  results = forked.run("benchmarks.step.start", refused)
  for result, message in zip(results, refused.values(), strict=True):
    assert result.returncode == 2
    assert message in result.stderr
    assert "Traceback" not in result.stderr
