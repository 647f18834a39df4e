"""The package works where only it is installed: no checkout, no recipe files.

Wheel and source distribution are built and the wheel is unpacked as pip does,
without what it depends on: the environment of the tests has that. What a light
installation does not have cannot be imported.
"""

import os
import pathlib
import shutil
import subprocess
import sys
import tarfile
import zipfile

import numpy as np
import pytest
from PIL import Image

import paws_jax
from paws_jax.config import recipe_files
from tests import quick_compile

ROOT = pathlib.Path(__file__).parents[2]
pytestmark = pytest.mark.slow
_BUILD = """
import sys
from setuptools import build_meta
into = sys.argv[1]  # Building changes the arguments.
build_meta.build_sdist(into)
build_meta.build_wheel(into)
"""


def run(*command, cwd, **environ):
  """Runs a command that succeeds; returns its output."""
  result = subprocess.run(
    command,
    cwd=cwd,
    env=os.environ | {"JAX_PLATFORMS": "cpu"} | quick_compile.ENVIRON | environ,
    capture_output=True,
    text=True,
    timeout=600,
    check=False,
  )
  assert result.returncode == 0, result.stdout + result.stderr
  return result.stdout


def _image(path, seed):
  path.parent.mkdir(parents=True, exist_ok=True)
  pixels = np.random.default_rng(seed).integers(0, 256, (60, 50, 3), np.uint8)
  Image.fromarray(pixels).save(path)


@pytest.fixture(scope="module")
def distributions(tmp_path_factory):
  """A directory with the wheel and the source distribution."""
  path = tmp_path_factory.mktemp("distributions")
  source = path / "source"
  for name in ("paws_jax", "configs"):
    ignored = shutil.ignore_patterns("__pycache__")
    shutil.copytree(ROOT / name, source / name, ignore=ignored)
  for name in ("setup.py", "pyproject.toml", "README.md", "LICENSE"):
    shutil.copy(ROOT / name, source)
  run(sys.executable, "-c", _BUILD, path, cwd=source)
  shutil.rmtree(source)
  return path


# Runs before anything else in a Python that finds it.
_LIGHT = """
import sys
for name in ("tensorflow", "tensorflow_datasets", "clu", "tensorboard",
             "importlib_resources"):
  sys.modules[name] = None
"""


@pytest.fixture(scope="module")
def paws(distributions, tmp_path_factory):
  """Runs `paws-jax` of the unpacked wheel in a directory of its own."""
  site = tmp_path_factory.mktemp("site")
  cwd = tmp_path_factory.mktemp("empty")
  (wheel,) = distributions.glob("*.whl")
  pip = (sys.executable, "-m", "pip", "install", "--quiet", "--no-deps")
  run(*pip, "--no-index", "--target", site, wheel, cwd=cwd)
  (site / "sitecustomize.py").write_text(_LIGHT)
  found = run(
    *(sys.executable, "-c", "import paws_jax; print(paws_jax.__file__)"),
    cwd=cwd,
    PYTHONPATH=str(site),
  )
  assert pathlib.Path(found.strip()).is_relative_to(site)

  def paws(*arguments):
    command = (sys.executable, site / "bin" / "paws-jax", *arguments)
    return run(*command, cwd=cwd, PYTHONPATH=str(site))

  paws.cwd = cwd
  return paws


def test_recipes_and_version(paws):
  assert paws("--version") == f"paws_jax {paws_jax.__version__}\n"
  lines = paws("--list").splitlines()
  assert [line.split()[0] for line in lines] == recipe_files.names()


def test_train_predict_report(paws):
  trained = paws("--config=quickstart", "--config.train.epochs=2")
  assert "PAWS-NN" in trained
  _image(paws.cwd / "digit.png", 0)
  run_of = "--workdir=runs/quickstart"
  paws("predict", run_of, "--images=digit.png")
  paws("report", run_of)
  written = paws.cwd / "runs" / "quickstart"
  assert "digit.png" in (written / "predictions.csv").read_text()
  assert (written / "report.html").stat().st_size > 10_000


def test_images_of_ones_own(paws):
  places = ["labelled/a", "labelled/b", "test/a", "test/b"] * 3
  for seed, place in enumerate(places + ["unlabelled"] * 60):
    _image(paws.cwd / "photos" / place / f"{seed}.jpg", seed)
  recipe = [
    "--config=image_folder:laptop",
    "--config.data.dir=photos/labelled",
    "--config.data.unlabelled_dir=photos/unlabelled",
    "--config.data.test_dir=photos/test",
    "--config.train.epochs=1",
    "--config.optim.warmup_epochs=0",
    "--config.train.batch_size=30",
    # What is compiled takes most of the time.
    "--config.model.name=small_resnet",
    "--config.views.large.size=24",
    "--config.views.large.jitter_probability=0.0",
    "--config.views.large.grey_probability=0.0",
    "--workdir=runs/photos",
  ]
  assert "0 problems" in paws("doctor", *recipe)
  assert "PAWS-NN" in paws(*recipe)
  run_of = "--workdir=runs/photos"
  for task in ("evaluate", "report", "export"):
    paws(task, run_of)
  paws("predict", run_of, "--images=photos/unlabelled")
  rows = (paws.cwd / "runs/photos/predictions.csv").read_text().splitlines()
  assert len(rows) == 61


def test_a_recipe_finds_those_beside_it(paws):
  assert "Devices" in paws("devices", "--config=ropaws:imagenet")


def test_the_source_distribution_holds_recipes_and_types(distributions):
  (path,) = distributions.glob("*.tar.gz")
  with tarfile.open(path) as archive:
    names = {name.partition("/")[2] for name in archive.getnames()}
  assert {f"configs/{name}.py" for name in recipe_files.names()} <= names
  assert "paws_jax/py.typed" in names


def test_the_wheel_holds_every_file_of_the_package(distributions):
  (path,) = distributions.glob("*.whl")
  with zipfile.ZipFile(path) as archive:
    names = set(archive.namelist())
  files = {
    path.relative_to(ROOT).as_posix()
    for path in (ROOT / "paws_jax").rglob("*")
    if path.is_file() and path.suffix not in (".pyc", ".md")
  }
  assert files <= names


def test_an_editable_installation_finds_the_recipes(tmp_path):
  """The environment of the tests is one: `pip install -e .`."""
  script = pathlib.Path(sys.executable).with_name("paws-jax")
  listed = run(script, "--list", cwd=tmp_path)
  names = [line.split()[0] for line in listed.splitlines() if line]
  recipes = {path.stem for path in (ROOT / "configs").glob("*.py")}
  assert recipes - {"__init__"} <= set(names)
