"""`--task=plan`: exit status, plan.json, and what is refused."""

import contextlib
import importlib.util
import json
import os
import pathlib
import subprocess
import sys
import types

import jax
import jax.numpy as jnp
import pytest
from etils.epath import gpath
from etils.epath import testing as epath_testing

from paws_jax import errors as errors_lib
from paws_jax.plan import abstract_step
from paws_jax.plan import hlo
from paws_jax.plan import memory
from paws_jax.plan import traced_costs
from paws_jax.tasks import plan

_ROOT = pathlib.Path(__file__).parents[2]
_HAS_LIBTPU = importlib.util.find_spec("libtpu") is not None

# plan.json holds at least these.
_KEYS = {
  "peak_memory_bytes",
  "flops",
  "bytes_accessed",
  "collectives",
  "fits",
  "images_per_second_bound",
}


def _recipe(**changes):
  path = _ROOT / "tests" / "tiny_recipe.py"
  spec = importlib.util.spec_from_file_location("recipe", path)
  module = importlib.util.module_from_spec(spec)
  spec.loader.exec_module(module)
  config = module.get_config()
  config.model.name = "small_resnet"
  config.update_from_flattened_dict(
    {name.replace("__", "."): value for name, value in changes.items()}
  )
  return config


@pytest.fixture
def quick(monkeypatch):
  """A model that needs no tracing; set `activations` of what it returns."""
  costs = types.SimpleNamespace(activations=2**20)

  def model(step):
    return traced_costs.TracedCosts(
      memory=memory.Memory(2**20, 2**20, 0, 0, costs.activations),
      flops=10**9,
      bytes_accessed=1e6,
      collectives=[hlo.Collective("all-reduce", 80, {}, 2, "")],
    )

  monkeypatch.setattr(traced_costs, "trace_costs", model)
  return costs


def test_a_plan_that_fits(quick, tmp_path, capsys):
  workdir = tmp_path / "new" / "run"
  assert plan.run(_recipe(), str(workdir), machine="h100:2") == 0
  out = capsys.readouterr().out
  assert "256 unlabelled images, each device 128; 10 supports" in out
  assert "(model, not compiled)" in out
  assert f"written: {workdir}/plan.json" in out
  written = json.loads((workdir / "plan.json").read_text())
  assert set(written) >= _KEYS
  assert written["fits"] is True
  assert written["method"] == "model, not compiled"
  assert written["flops"] == 10**9
  assert written["collectives"] == {"all-reduce": {"count": 1, "bytes": 80}}
  assert written["versions"]["jax"] == jax.__version__


def test_a_plan_in_a_bucket(quick, tmp_path, capsys, monkeypatch):
  bucket = tmp_path / "bucket"

  def moved(original, path, *others, **options):
    there = os.fspath(path).replace("gs://bucket", str(bucket))
    return original(there, *others, **options)

  # It would be asked in place of what follows.
  monkeypatch.setattr(gpath, "_is_tf_installed", lambda: False)
  monkeypatch.chdir(tmp_path)
  names = ("exists", "isdir", "makedirs", "mkdir", "open")
  with epath_testing.mock_epath(**dict.fromkeys(names, moved)):
    assert plan.run(_recipe(), "gs://bucket/run", machine="h100:2") == 0
  assert "written: gs://bucket/run/plan.json" in capsys.readouterr().out
  assert json.loads((bucket / "run" / "plan.json").read_text())["fits"] is True
  assert list(tmp_path.iterdir()) == [bucket]


def test_a_plan_that_does_not_fit(quick, tmp_path, capsys):
  quick.activations = 2**40
  assert plan.run(_recipe(), str(tmp_path), machine="a100:2") == 1
  out = capsys.readouterr().out
  assert "DOES NOT FIT" in out
  written = json.loads((tmp_path / "plan.json").read_text())
  assert written["fits"] is False
  assert len(written["advice"]) >= 2
  assert all(line in out for line in written["advice"])


@pytest.mark.slow
def test_a_model_of_a_real_step(tmp_path):
  assert plan.run(_recipe(), str(tmp_path), machine="h100:2") == 0
  two = json.loads((tmp_path / "plan.json").read_text())
  assert plan.run(_recipe(), str(tmp_path), machine="h100:4") == 0
  four = json.loads((tmp_path / "plan.json").read_text())
  # Twice the devices, half the work of each, but for what all do.
  assert 0.45 < four["flops"] / two["flops"] < 0.7
  assert four["collectives"]["all-gather"]["count"] <= 2


# 0 is "auto".
@pytest.mark.parametrize("chunks", [1, 0])
def test_more_devices_than_images_are_refused(tmp_path, chunks):
  changes = {"train__batch_size": 2, "train__chunks": chunks}
  _refused(tmp_path, "4 devices do not divide", machine="h100:4", **changes)


def _refused(tmp_path, words, *, machine="h100:2", **changes):
  with pytest.raises(errors_lib.UserError) as caught:
    plan.run(_recipe(**changes), str(tmp_path), machine=machine)
  assert caught.value.status == 2
  assert words in str(caught.value)
  assert not (tmp_path / "plan.json").exists()


@pytest.mark.parametrize(
  ("machine", "words"),
  [
    ("v5e:3x3", "unknown shape '3x3'. v5e has v5e:1x1, v5e:2x2,"),
    ("tpu", "unknown chip 'tpu'. Known are v3:2x2|4x4|"),
  ],
)
def test_unknown_machines(tmp_path, machine, words):
  _refused(tmp_path, words, machine=machine)


def test_bad_recipes(quick, tmp_path):
  _refused(tmp_path, "optim.peak_lr is 0", optim__peak_lr=0.0)
  words = "train.batch_size is 255, which 2 devices do not divide"
  _refused(tmp_path, words, train__batch_size=255)
  words = "train.batch_size is 4, which 8 devices do not divide"
  _refused(tmp_path, words, machine="h100:8", train__batch_size=4)
  words = "model.name is 'resnet9'; known are resnet50"
  _refused(tmp_path, words, model__name="resnet9")
  words = "support.classes_per_step is 11 but the data has 10 classes"
  _refused(tmp_path, words, support__classes_per_step=11)


def test_a_workdir_that_is_a_file(quick, tmp_path):
  path = tmp_path / "file"
  path.write_text("")
  _refused(path, f"{path / 'plan.json'} cannot be written")


def test_a_bucket_that_is_closed(quick, tmp_path, monkeypatch):
  class OpError(Exception):
    """As TensorFlow's, which is none of OSError's."""

  def refuse(*_):
    raise OpError("403: no access")

  errors = types.SimpleNamespace(OpError=OpError)
  fake = types.SimpleNamespace(errors=errors)
  monkeypatch.setitem(sys.modules, "tensorflow", fake)
  monkeypatch.setattr(plan.files, "replace_text", refuse)
  _refused(tmp_path, "403: no access")


def test_without_libtpu_it_says_what_to_install(tmp_path, monkeypatch):
  monkeypatch.setattr(plan.importlib.util, "find_spec", lambda _: None)
  words = 'pip install -e ".[tpu]"'
  _refused(tmp_path, words, machine="v5e:2x2")


def test_a_libtpu_that_does_not_know_the_machine(tmp_path, monkeypatch):
  def refuse(**_):
    raise RuntimeError("Invalid TPU external name\nand pages of more")

  monkeypatch.setattr(plan.importlib.util, "find_spec", lambda _: object())
  monkeypatch.setattr(plan.topologies, "get_topology_desc", refuse)
  words = "libtpu does not describe it: Invalid TPU external name. If it is"
  _refused(tmp_path, words, machine="v6e:2x2")


@pytest.mark.parametrize(
  ("name", "options"),
  [
    ("v4:2x2x1", {"chip_config_name": "megacore"}),
    ("v5e:1x1", {"chips_per_host_bounds": (1, 1, 1)}),
    ("v5e:2x2", {}),
  ],
)
def test_how_topologies_are_asked_for(monkeypatch, name, options):
  asked = []

  def describe(**keywords):
    asked.append(keywords)
    return types.SimpleNamespace(devices=jax.devices()[:4])

  monkeypatch.setattr(plan.importlib.util, "find_spec", lambda _: object())
  monkeypatch.setattr(plan.topologies, "get_topology_desc", describe)
  assert len(plan._devices(plan.chips.parse(name))) == 4
  assert asked == [{"platform": "tpu", "topology_name": name, **options}]


def test_too_few_stand_ins_for_gpus(tmp_path):
  num_devices = len(jax.devices())
  words = f"asks for 64 devices, but JAX started with {num_devices} CPU"
  before = jax.config.jax_num_cpu_devices
  _refused(tmp_path, words, machine="h100:64", train__batch_size=256)
  assert jax.config.jax_num_cpu_devices == before


class _Lowered:
  """A step whose compilation fails."""

  def __init__(self, message):
    self._message = message
    self.argument_bytes = 500
    self.trainer = types.SimpleNamespace(mesh=types.SimpleNamespace(size=4))
    self.jaxpr = jax.make_jaxpr(jnp.matmul)(jnp.ones((2, 3)), jnp.ones((3, 5)))

  def trace(self):
    return self

  def lower(self, **_):
    return self

  def compile(self):
    raise jax.errors.JaxRuntimeError(self._message)


def test_running_out_of_memory_while_compiling_is_an_answer():
  message = (
    "RESOURCE_EXHAUSTED: Ran out of memory on HBM, the total memory required "
    "for HLO temporaries (29.29G) exceeds available HBM (15.75G)."
  )
  costs = plan._compile(_Lowered(message))
  assert costs.too_large
  assert costs.peak_bytes == int(29.29 * 2**30) + 500
  assert costs.flops == 2 * 2 * 3 * 5
  assert costs.collectives is None


def test_other_failures_of_the_compiler_are_not_answers():
  with pytest.raises(jax.errors.JaxRuntimeError, match="INTERNAL: a bug"):
    plan._compile(_Lowered("INTERNAL: a bug"))


def test_the_compilers_level(monkeypatch):
  monkeypatch.delenv("JAX_OPTIMIZATION_LEVEL", raising=False)
  before = jax.config.jax_optimization_level
  with contextlib.suppress(KeyError), plan._level() as level:
    assert level == jax.config.jax_optimization_level == "O1" != before
    raise KeyError
  assert jax.config.jax_optimization_level == before
  # Whoever sets it knows what they want.
  monkeypatch.setenv("JAX_OPTIMIZATION_LEVEL", "O2")
  with plan._level() as level:
    assert level == before


@pytest.mark.slow
@pytest.mark.skipif(not _HAS_LIBTPU, reason="libtpu is not installed")
def test_a_small_encoder_is_compiled_for_a_tpu(tmp_path):
  code = (
    "import runpy\n"
    "from paws_jax.tasks import plan\n"
    "config = runpy.run_path('tests/tiny_recipe.py')['get_config']()\n"
    "config.model.name = 'small_resnet'\n"
    f"status = plan.run(config, {str(tmp_path)!r}, machine='v5e:2x2')\n"
    "raise SystemExit(status)\n"
  )
  result = subprocess.run(
    [sys.executable, "-c", code],
    cwd=_ROOT,
    env={**os.environ, "JAX_PLATFORMS": "cpu"},
    capture_output=True,
    text=True,
    timeout=900,
    check=False,
  )
  assert result.returncode == 0, result.stderr
  written = json.loads((tmp_path / "plan.json").read_text())
  assert set(written) >= _KEYS
  assert written["fits"] is True
  assert written["method"] == "compiled at level O1"
  assert written["num_devices"] == 4
  assert 0 < written["peak_memory_bytes"] < 2**30
  assert written["flops"] > 1e6
  # The supports are gathered once, and nothing of the size of images is.
  assert written["collectives"]["all-gather"]["count"] <= 2
  assert written["collectives"]["all-gather"]["bytes"] < 2**20
  assert set(written["collectives"]) <= {
    *("all-gather", "all-reduce", "reduce-scatter")
  }
  assert "images/s" in result.stdout


@pytest.mark.slow
def test_a_plan_is_made_without_the_data(quick, tmp_path, capsys):
  spec = importlib.util.spec_from_file_location(
    "imagenet", _ROOT / "configs" / "imagenet.py"
  )
  module = importlib.util.module_from_spec(spec)
  spec.loader.exec_module(module)
  config = module.get_config()
  assert plan.run(config, str(tmp_path), machine="h200:8") == 0
  written = json.loads((tmp_path / "plan.json").read_text())
  assert written["steps_per_epoch"] == 312
  # Two batches of 512 + 840 canvases on each device.
  canvases = 2 * (512 + 840) * 512 * 512 * 3
  assert written["waiting_batches_bytes"] == pytest.approx(canvases, rel=1e-3)
  assert "imagenet2012" in capsys.readouterr().out
  assert abstract_step.KNOWN["imagenet2012"].num_images == 1_281_167
