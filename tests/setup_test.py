"""What an installation takes along, by the variables of setup.py."""

import pathlib
import re
import runpy

import pytest
import setuptools

ROOT = pathlib.Path(__file__).parents[1]
TENSORFLOW = {"tensorflow-cpu", "tensorflow"}
AROUND = {"clu", "tensorflow-datasets", "importlib_resources", "tensorboard"}


@pytest.fixture
def requirements(monkeypatch):
  """Returns the requirements of setup.py with a variable set."""

  def requirements(variable="", value="1", with_dev=False):
    monkeypatch.delenv("PAWS_JAX_LIGHT", raising=False)
    monkeypatch.delenv("PAWS_JAX_KEEP_TENSORFLOW", raising=False)
    if variable:
      monkeypatch.setenv(variable, value)
    asked = {}
    monkeypatch.setattr(setuptools, "setup", asked.update)
    monkeypatch.chdir(ROOT)
    runpy.run_path("setup.py")
    dev = asked["extras_require"]["dev"] if with_dev else []
    return asked["install_requires"] + dev

  return requirements


def _names(lines):
  return {line.partition(">=")[0].partition("[")[0] for line in lines}


def test_the_default_takes_tensorflow_along(requirements):
  assert _names(requirements()) >= TENSORFLOW | AROUND
  assert requirements("PAWS_JAX_LIGHT", "0") == requirements()


def test_one_may_keep_its_own_tensorflow(requirements):
  kept = requirements("PAWS_JAX_KEEP_TENSORFLOW")
  assert _names(requirements()) - _names(kept) == TENSORFLOW


def test_a_light_installation_has_none(requirements):
  light = requirements("PAWS_JAX_LIGHT")
  assert _names(requirements()) - _names(light) == TENSORFLOW | AROUND


def test_python_without_tensorflow_takes_none_along(
  requirements,
):
  for line in requirements():
    if _names([line]) & (TENSORFLOW | AROUND):
      assert "python_version < '3.14'" in line


def test_the_file_for_wheels_is_that_of_setup_py(requirements):
  """After a change: make requirements-light.txt."""
  lines = (ROOT / "requirements-light.txt").read_text().splitlines()
  assert lines == requirements("PAWS_JAX_LIGHT")


def test_each_lower_bound_is_a_constraint(requirements):
  """`make test-lower-bounds` installs them."""
  script = runpy.run_path(str(ROOT / ".ci" / "lower_bounds.py"))
  # Another version of ruff or mypy finds other things: it has no lower bound.
  bounded = [r for r in requirements(with_dev=True) if not r.endswith(".*")]
  assert list(script["lower_bounds"]()) == [
    re.sub(r"\[[a-z,]+\]", "", line).replace(">=", "==", 1) for line in bounded
  ]
