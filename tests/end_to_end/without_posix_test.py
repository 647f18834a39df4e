"""Systems without the modules and functions that only POSIX has: Windows."""

import os
import pathlib
import re
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from paws_jax import errors
from paws_jax.distributed import launch as launch_lib
from paws_jax.distributed import lifecycle
from tests import random_classifier

ROOT = pathlib.Path(__file__).parent.parent.parent
_MODULES = ("fcntl", "grp", "pty", "pwd", "resource", "termios", "tty")
_FUNCTIONS = ("sched_getaffinity", "sysconf", "sysconf_names", "getuid", "fork")
_SIGNALS = ("SIGHUP", "SIGKILL", "SIGUSR1", "SIGALRM")

# Other packages have versions for Windows: those here are imported first.
_PROGRAM = f"""
import os, runpy, signal, sys
import absl.app, etils.epath, flax.linen, jax.experimental.multihost_utils
import ml_collections, optax, PIL.Image, safetensors.numpy

class Missing:
  def find_spec(self, name, *_):
    if name in {_MODULES}:
      raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)

sys.meta_path.insert(0, Missing())
for name in {_MODULES}:
  sys.modules.pop(name, None)
for name in {_FUNCTIONS}:
  delattr(os, name)
for name in {_SIGNALS}:
  delattr(signal, name)

directory, images = sys.argv[1:]
sys.argv = ["main", "--task=predict", f"--classifier={{directory}}",
            f"--images={{images}}", f"--output={{images}}/p.csv"]
try:
  runpy.run_module("paws_jax.main", run_name="__main__")
except SystemExit as left:
  assert not left.code
import paws_jax
paws_jax.Classifier.load(directory).save(directory)
"""


@pytest.mark.slow
def test_a_classifier_is_read_written_and_predicts(tmp_path):
  random_classifier.make().save(tmp_path / "saved")
  (tmp_path / "images").mkdir()
  for name in ("a", "b"):
    pixels = np.full((9, 12), 90, np.uint8)
    Image.fromarray(pixels).save(tmp_path / "images" / f"{name}.png")
  result = subprocess.run(
    [sys.executable, "-c", _PROGRAM, tmp_path / "saved", tmp_path / "images"],
    env={**os.environ, "PYTHONPATH": str(ROOT), "JAX_PLATFORMS": "cpu"},
    capture_output=True,
    text=True,
  )
  assert result.returncode == 0, result.stderr
  assert "2 of 2 images are predicted" in result.stdout
  lines = (tmp_path / "images" / "p.csv").read_text().splitlines()
  assert len(lines) == 3


def test_only_one_module_asks_for_what_posix_alone_has():
  found = {
    (path.relative_to(ROOT).as_posix(), name)
    for path in (ROOT / "paws_jax").rglob("*.py")
    for name in re.findall(
      rf"^ *(?:import|from) ({'|'.join(_MODULES)})\b",
      path.read_text(encoding="utf-8"),
      flags=re.MULTILINE,
    )
  }
  assert found == {("paws_jax/runs/locks.py", "fcntl")}


def test_several_processes_are_refused_on_windows(monkeypatch):
  monkeypatch.setattr(sys, "platform", "win32")
  launch = launch_lib.Launch("a test", "localhost:1", 2, 0)
  with pytest.raises(errors.DistributedError, match="not supported on Windows"):
    lifecycle.initialize(launch)
