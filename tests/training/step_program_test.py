"""The program of the ImageNet step: dtypes, donation, and what travels.

Everything that is large is made small: images, batch, and for what has to be
compiled the encoder too. Which operations there are does not depend on that.
"""

import functools
import importlib.util
import json
import os
import pathlib
import subprocess
import sys

import jax
import pytest

from paws_jax import config as config_lib
from paws_jax.plan import abstract_step
from paws_jax.plan import chips
from paws_jax.plan import hlo
from paws_jax.plan import traced_costs
from paws_jax.tasks import plan

_ROOT = pathlib.Path(__file__).parents[2]
_HAS_LIBTPU = importlib.util.find_spec("libtpu") is not None
_NUM_DEVICES = 4
# Supports with large crops, and small crops.
_PASSES = 2
_SMALL = {
  "views.large.size": 64,
  "views.small.size": 32,
  "data.canvas_size": 64,
  "train.batch_size": 8,
  # 18 supports, which four devices do not divide: they are padded to 20.
  "support.classes_per_step": 9,
  "support.images_per_class": 2,
}
# What takes long to compile and sends nothing.
_QUICK = {
  "model.name": "resnet_tiny",
  "model.output_dim": 32,
  "views.jitter_probability": 0.0,
  "views.blur_probability": 0.0,
}

# Traces, and some compile, an encoder of 50 or 14 layers.
pytestmark = pytest.mark.slow


def make_step(devices, **changes):
  path = _ROOT / "configs" / "imagenet.py"
  spec = importlib.util.spec_from_file_location("imagenet", path)
  module = importlib.util.module_from_spec(spec)
  spec.loader.exec_module(module)
  config = module.get_config()
  config.update_from_flattened_dict(_SMALL | changes)
  return abstract_step.create(config_lib.resolve(config), devices)


@functools.cache
def the_recipes_step():
  """ResNet-50 in bfloat16, lowered."""
  step = make_step(jax.devices()[:_NUM_DEVICES], **{"model.dtype": "bfloat16"})
  return step, step.trace().lower().as_text()


@functools.cache
def quick_step():
  """A small encoder in float32: the step, traced, lowered, compiled."""
  changes = _QUICK | {"model.dtype": "float32"}
  step = make_step(jax.devices()[:_NUM_DEVICES], **changes)
  traced = step.trace()
  lowered = traced.lower()
  # Which operations there are does not depend on how well LLVM does.
  options = {"xla_backend_optimization_level": 0}
  compiled = lowered.compile(compiler_options=options)
  return step, traced, lowered.as_text(), compiled.as_text()


def num_kernels(step, rank):
  return sum(x.ndim == rank for x in jax.tree.leaves(step.state.params))


def num_norms(step):
  return len(jax.tree.leaves(step.state.batch_stats)) // 2


def array_bytes(tree):
  return sum(x.size * x.dtype.itemsize for x in jax.tree.leaves(tree))


def test_every_convolution_is_in_bfloat16():
  step, text = the_recipes_step()
  layers = num_kernels(step, 4)
  assert layers == 53
  # Forward, the kernel's gradient and the input's, which images need none of.
  number = _PASSES * (3 * layers - 1)
  convolutions = hlo.operation_dtypes(text, "convolution")
  assert convolutions == {("bf16",) * 3: number}
  # The heads' layers likewise; crops, similarities and votes are float32.
  products = hlo.operation_dtypes(text, "dot_general")
  assert set(products) == {("bf16",) * 3, ("f32",) * 3}
  assert products[("bf16",) * 3] == _PASSES * 3 * num_kernels(step, 2)


def test_every_convolution_is_in_float32_where_that_is_asked_for():
  step, _, text, _ = quick_step()
  number = _PASSES * (3 * num_kernels(step, 4) - 1)
  convolutions = hlo.operation_dtypes(text, "convolution")
  assert convolutions == {("f32",) * 3: number}
  assert "bf16" not in text


def test_the_step_never_calls_the_host():
  """A call back into Python would stall every device at every step."""
  _, text = the_recipes_step()
  assert hlo.host_calls(text) == []


def test_the_state_is_written_where_it_was():
  """Else parameters and optimiser would take their memory twice."""
  step, *_, compiled = quick_step()
  # The state comes first among the arguments.
  everything = set(range(len(jax.tree.leaves(step.state))))
  assert hlo.donated(compiled) == everything


def test_collectives_as_they_are_written():
  """Before a compiler merges any."""
  step, traced, *_ = quick_step()
  found = list(traced_costs.collectives(traced.jaxpr.jaxpr, _NUM_DEVICES))
  # No sum over devices in less than float32, and no image on its way.
  assert {name for c in found for name in c.bytes_by_dtype} == {"float32"}
  summary = hlo.summary(found)
  assert summary["all-gather"]["count"] == 1
  assert summary["reduce-scatter"]["count"] == 1
  # Each BatchNorm once forward and once backward in each pass, each gradient
  # once; me-max and all metrics share one, numbers of valid rows some more.
  norms = 2 * _PASSES * num_norms(step)
  gradients = len(jax.tree.leaves(step.state.params))
  assert norms + gradients < summary["all-reduce"]["count"]
  assert summary["all-reduce"]["count"] <= norms + gradients + 4
  assert set(summary) == {"all-gather", "reduce-scatter", "all-reduce"}


def test_collectives_as_they_are_compiled():
  """Numbers may fall; before they rise, see what new array travels."""
  step, *_, compiled = quick_step()
  found = hlo.collectives(compiled, num_devices=_NUM_DEVICES)
  summary = hlo.summary(found)
  assert set(summary) == {"all-gather", "reduce-scatter", "all-reduce"}
  # h and z of the supports, padding included, and for a health metric z of the
  # two large views; only of the supports' z a gradient comes back.
  embedding = 4 * _QUICK["model.output_dim"]
  supports, views = 20 * embedding, 2 * 8 * embedding
  gathered = {"count": 1, "bytes": 2 * supports + views}
  assert summary["all-gather"] == gathered
  assert summary["reduce-scatter"] == {"count": 1, "bytes": supports}
  # Gradients once; of a BatchNorm [sums, squares, count] forward in each pass
  # and two numbers a channel backward; me-max, a share of each class and some
  # 20 metrics.
  reduced = summary["all-reduce"]
  gradients = array_bytes(step.state.params)
  channels = array_bytes(step.state.batch_stats)
  norms = _PASSES * (2 * channels + 4 * num_norms(step))
  assert gradients < reduced["bytes"] <= gradients + norms + 4 * 100
  # A BatchNorm's sums of both passes share one, forward and backward; gradients
  # ride along, or are merged into few. (51 when this was written.)
  assert reduced["count"] <= 2 * num_norms(step) + 14


def feature_maps(text):
  """The encoder's arrays in a compiled program: [dtype, shape] of each."""
  # Rows of a pass on a device: 5 supports with 2 x 2 large crops; 6 x 2 small.
  rows = {5 + 2 * 2, 6 * 2}
  return [
    [buffer.dtype, buffer.shape]
    for buffer in hlo.buffers(text)
    # Images have three channels, and masks one.
    if len(buffer.shape) == 4
    and buffer.shape[0] in rows
    and buffer.shape[-1] not in {1, 3}
  ]


def feature_maps_on_a_tpu(dtype):
  """Prints `feature_maps` of the step compiled for four chips, as JSON."""
  devices = plan._devices(chips.parse("v5e:2x2"))
  step = make_step(devices, **_QUICK, **{"model.dtype": dtype})
  with plan._level():
    lowered = step.trace().lower(lowering_platforms=("tpu",))
    print(json.dumps(feature_maps(lowered.compile().as_text())))


@pytest.mark.skipif(not _HAS_LIBTPU, reason="libtpu is not installed")
def test_no_feature_map_is_float32_in_a_tpus_memory():
  """One that is costs more time than any arithmetic that could be saved."""
  code = (
    "import sys\n"
    "from tests.training import step_program_test\n"
    "step_program_test.feature_maps_on_a_tpu('bfloat16')\n"
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
  found = json.loads(result.stdout.splitlines()[-1])
  # Masks of ReLUs are booleans.
  assert {dtype for dtype, _ in found} <= {"bf16", "pred"}
  # Of every convolution at least its output, once.
  shapes = [tuple(shape) for dtype, shape in found if dtype == "bf16"]
  assert len(shapes) >= 2 * 17
  # Of either pass the stem's, and of four stages three each but for what two
  # have alike: so no stage is overlooked.
  assert len(set(shapes)) == 2 * 12
