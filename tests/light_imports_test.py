"""Help and recipes load no JAX, the core neither TensorFlow nor clu."""

import pathlib
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).parent.parent

# What only loads with the host pipeline, or when it is asked for.
HEAVY = ("tensorflow", "tensorflow_datasets", "clu")
CORE = (
  "augment",
  "classifier.classifier",
  "config",
  "data.dataset",
  "data.memory_pipeline",
  "data.sources.arrays",
  "distributed.lifecycle",
  "evaluation.soft_nn",
  "losses",
  "methods",
  "models",
  "monitoring.monitor",
  "optim",
  "parallel.mesh",
  "runs.checkpoint",
  "runs.metrics",
  "tasks.evaluate",
  "tasks.export",
  "tasks.finetune",
  "tasks.predict",
  "tasks.pretrain",
  "tasks.report",
  "training.experiment",
  "training.step",
)


def _run_without(modules, code):
  """Runs code in a Python in which these modules cannot be imported."""
  blocked = "".join(f"sys.modules[{name!r}] = None\n" for name in modules)
  return subprocess.run(
    [sys.executable, "-c", f"import sys\n{blocked}{code}"],
    cwd=ROOT,
    capture_output=True,
    text=True,
    timeout=600,
    check=False,
  )


@pytest.mark.slow
def test_the_core_imports_without_tensorflow_and_clu():
  code = "".join(f"import paws_jax.{name}\n" for name in CORE)
  # Nor may an import start the devices: flags come first.
  code += (
    "from jax._src import xla_bridge\n"
    "assert not xla_bridge.backends_are_initialized()\n"
    "print('imported')\n"
  )
  result = _run_without(HEAVY, code)
  assert result.stdout == "imported\n", result.stderr


@pytest.mark.parametrize("module", ["paws_jax", "paws_jax.main"])
def test_help_needs_neither_jax_nor_tensorflow(module):
  result = _run_without(
    (*HEAVY, "jax", "flax", "orbax"),
    "import runpy\n"
    f"sys.argv = [{module!r}, '--help']\n"
    f"runpy.run_module({module!r}, run_name='__main__', alter_sys=True)\n",
  )
  # The flags of the command come first.
  assert result.stdout.lstrip().startswith("Semi-supervised"), result.stdout
  assert result.stdout.index("--config") < result.stdout.index("--helpfull")
  assert "--workdir" in result.stdout
  assert "Traceback" not in result.stderr


def test_recipes_need_no_jax():
  code = (
    "import importlib.util, pathlib\n"
    "for path in pathlib.Path('configs').glob('*.py'):\n"
    "  spec = importlib.util.spec_from_file_location(path.stem, path)\n"
    "  module = importlib.util.module_from_spec(spec)\n"
    "  spec.loader.exec_module(module)\n"
    "  print(module.get_config().seed)\n"
  )
  result = _run_without((*HEAVY, "jax"), code)
  assert result.returncode == 0, result.stderr
  assert result.stdout
