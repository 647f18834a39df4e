"""Reading compiled programs: by lines as compilers print them, and our own."""

import functools
import importlib.util
import pathlib
import types
from unittest import mock

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from paws_jax import config as config_lib
from paws_jax.plan import abstract_step
from paws_jax.plan import hlo

_TINY = pathlib.Path(__file__).parents[1] / "tiny_recipe.py"
# With 11 BatchNorms.
_MOST_ALL_REDUCES = 30

# Lines as XLA prints them for TPUs and CPUs.
_TEXT = """\
HloModule jit_call, is_scheduled=true, input_output_alias={ {0}: (0, {}, \
may-alias), {1, 0}: (3, {}, must-alias) }, entry_computation_layout={...}

%region_0 (a: f32[], b: f32[]) -> f32[] {
  ROOT %add.1 = f32[]{:T(128)} add(%a, %b)
}

ENTRY %main.1 (p0: f32[4,8]) -> f32[4,8] {
  %p0 = f32[4,8]{1,0:T(8,128)} parameter(0), metadata={op_name="state"}
  %psum.2 = (f32[129]{0:T(256)}, bf16[3,2]{1,0:T(8,128)(2,1)}) \
all-reduce(%p0, %p0), channel_id=1, replica_groups={{0,1,2,3}}, \
to_apply=%region_0, metadata={op_name="jit(call)/bn1/psum"}
  %ag.1 = f32[16,8]{1,0} all-gather(%p0), replica_groups=[2,4]<=[8], \
dimensions={0}
  %ag-start.1 = (bf16[4,8]{1,0}, bf16[16,8]{1,0}) all-gather-start(%p0), \
replica_groups={{0,1,2,3}}, dimensions={0}
  %ag-done.1 = bf16[16,8]{1,0} all-gather-done(%ag-start.1)
  %rs.1 = f32[1,8]{1,0} reduce-scatter(%p0), replica_groups={{0,1,2,3}}
  %cp.1 = (f32[4]{0}, f32[4]{0}, u32[]{:S(2)}, u32[]{:S(2)}) \
collective-permute-start(%p0), source_target_pairs={{0,1}}
  %ar.3 = f32[] all-reduce(%c), replica_groups={}
  ROOT %fusion.1 = bf16[4,8]{1,0} fusion(%p0, %rs.1), kind=kLoop, \
metadata={op_name="jit(call)/encoder/add"}
}
"""


def test_collectives_with_what_they_carry():
  found = hlo.collectives(_TEXT, num_devices=8)
  assert [(c.kind, c.num_bytes, c.group_size) for c in found] == [
    ("all-reduce", 129 * 4 + 6 * 2, 4),
    ("all-gather", 16 * 8 * 4, 4),
    # The result, not the operand beside it; and not once more when done.
    ("all-gather", 16 * 8 * 2, 4),
    # What goes in: a part for each device.
    ("reduce-scatter", 4 * 8 * 4, 4),
    ("collective-permute", 16, 8),
    # All devices, where no group is given.
    ("all-reduce", 4, 8),
  ]
  assert found[0].bytes_by_dtype == {"f32": 516, "bf16": 12}
  assert found[0].source == "jit(call)/bn1/psum"
  assert hlo.summary(found) == {
    "all-reduce": {"count": 2, "bytes": 532},
    "all-gather": {"count": 2, "bytes": 768},
    "reduce-scatter": {"count": 1, "bytes": 128},
    "collective-permute": {"count": 1, "bytes": 16},
  }


def test_what_a_device_sends_around_a_ring():
  reduced, gathered, _, scattered, permuted, _ = hlo.collectives(
    _TEXT, num_devices=8
  )
  assert reduced.sent_bytes == 2 * 528 * 3 / 4
  assert gathered.sent_bytes == 512 * 3 / 4
  assert scattered.sent_bytes == 128 * 3 / 4
  assert permuted.sent_bytes == 16


@pytest.mark.parametrize(
  ("dtype", "shape", "num_bytes"),
  [("f32", "2,3", 24), ("bf16", "", 2), ("s4", "16", 8), ("token", "", 0)],
)
def test_bytes_of_an_array(dtype, shape, num_bytes):
  assert hlo.array_bytes(dtype, shape) == num_bytes


def test_a_dtype_of_unknown_size_is_refused():
  text = _TEXT.replace("f32[129]", "f6e3m2[129]")
  with pytest.raises(ValueError, match=r"array f6e3m2\[129\], .*: add it to"):
    hlo.collectives(text, num_devices=8)


@pytest.mark.parametrize(
  ("message", "needed"),
  [
    (
      "RESOURCE_EXHAUSTED: Ran out of memory on HBM, the total memory required "
      "for HLO temporaries (29.29G) exceeds available HBM (15.75G).",
      # Beside them, what is there before the program starts.
      29.29 * 2**30 + 500,
    ),
    (
      "RESOURCE_EXHAUSTED: XLA:TPU compile permanent error. Ran out of memory "
      "in memory space hbm. Used 20.52G of 15.75G hbm. Exceeds hbm capacity by "
      "4.77G.",
      20.52 * 2**30,
    ),
    ("RESOURCE_EXHAUSTED: something else", None),
  ],
)
def test_bytes_that_were_missing(message, needed):
  found = hlo.needed_bytes(message, argument_bytes=500)
  assert found == (None if needed is None else int(needed))


def test_arguments_that_are_donated():
  assert hlo.donated(_TEXT) == {0, 3}
  assert hlo.donated("HloModule jit_call\n%a = {0}: (0, {})") == set()


def test_buffers_of_the_main_computation():
  found = hlo.buffers(_TEXT)
  # The first computation's scalar and the parameter are none.
  assert [(b.dtype, b.shape) for b in found[:3]] == [
    ("f32", (129,)),
    ("bf16", (3, 2)),
    ("f32", (16, 8)),
  ]
  last = hlo.Buffer("bf16", (4, 8), "jit(call)/encoder/add")
  assert found[-1] == last


def test_dtypes_of_operations():
  def products(x, y):
    half = jnp.matmul(x.astype(jnp.bfloat16), y.astype(jnp.bfloat16))
    return jnp.matmul(x, y), jnp.matmul(2 * x, y), half

  text = jax.jit(products).lower(np.ones((2, 3)), np.ones((3, 4))).as_text()
  assert hlo.operation_dtypes(text, "dot_general") == {
    ("f32", "f32", "f32"): 2,
    ("bf16", "bf16", "bf16"): 1,
  }
  assert hlo.operation_dtypes(text, "convolution") == {}


def test_calls_of_the_host():
  def told(x):
    jax.debug.print("{}", x)
    return jax.pure_callback(np.asarray, x, x)

  found = hlo.host_calls(jax.jit(told).lower(1.0).as_text())
  assert len(found) == 2
  assert all("callback" in name for name in found)
  # As TPUs are told to.
  names = ["send", "recv", "infeed", "outfeed"]
  text = "\n".join(f'%1 = "stablehlo.{name}"(%0)' for name in names)
  assert hlo.host_calls(text) == names
  assert hlo.host_calls("%0 = stablehlo.custom_call @Eigh(%1)") == []


def tiny_recipe(**changes):
  spec = importlib.util.spec_from_file_location("tiny_recipe", _TINY)
  module = importlib.util.module_from_spec(spec)
  spec.loader.exec_module(module)
  config = module.get_config()
  config.update_from_flattened_dict(
    {name.replace("__", "."): value for name, value in changes.items()}
  )
  return config


@functools.cache
def compiled_step():
  """The tiny recipe's step, with a smaller encoder, for four CPU devices."""
  config = tiny_recipe(model__name="small_resnet", model__prediction_head=True)
  step = abstract_step.create(config_lib.resolve(config), jax.devices()[:4])
  # Which collectives there are does not depend on how well LLVM does.
  options = {"xla_backend_optimization_level": 0}
  return step, step.trace().lower().compile(compiler_options=options)


@pytest.mark.slow
def test_the_collectives_of_the_real_step():
  """Numbers may fall; before they rise, see what new array travels."""
  step, compiled = compiled_step()
  found = hlo.collectives(compiled.as_text(), num_devices=4)
  summary = hlo.summary(found)
  assert set(summary) == {"all-gather", "reduce-scatter", "all-reduce"}
  # h and z of the supports, and of two views z, for a health metric; of the
  # supports' z alone, a gradient comes back.
  embeddings = 4 * 8 * (step.num_supports + -step.num_supports % 4)
  views = 4 * 8 * 2 * tiny_recipe().train.batch_size
  gathered = 2 * embeddings + views
  assert summary["all-gather"] == {"count": 1, "bytes": gathered}
  assert summary["reduce-scatter"] == {"count": 1, "bytes": embeddings}
  # Gradients, once and in float32; the sums of BatchNorm, forward and backward
  # in each of two passes; numbers of rows and metrics.
  gradients = sum(4 * x.size for x in jax.tree.leaves(step.state.params))
  norms = sum(4 * x.size for x in jax.tree.leaves(step.state.batch_stats))
  reduced = summary["all-reduce"]
  assert gradients < reduced["bytes"] <= gradients + 4 * norms + 4 * 100
  assert reduced["count"] <= _MOST_ALL_REDUCES


@pytest.mark.parametrize(
  ("platform", "told", "peak"),
  [
    # Aliased outputs count once: 100 + (60 - 50) + 30.
    ("tpu", {}, 140),
    ("tpu", {"peak_memory_in_bytes": 0}, 140),
    ("tpu", {"peak_memory_in_bytes": 125}, 125),
    # Without temporaries.
    ("cpu", {"peak_memory_in_bytes": 110}, 140),
  ],
)
def test_the_peak_holds_all(platform, told, peak):
  stats = types.SimpleNamespace(
    argument_size_in_bytes=100,
    output_size_in_bytes=60,
    alias_size_in_bytes=50,
    temp_size_in_bytes=30,
    **told,
  )
  device = mock.Mock(platform=platform)
  compiled = types.SimpleNamespace(
    memory_analysis=lambda: stats,
    input_shardings=(),
    output_shardings=[types.SimpleNamespace(device_set={device})],
  )
  assert hlo.memory(compiled) == hlo.Memory(
    peak=peak, arguments=100, temporaries=30
  )


@pytest.mark.slow
def test_the_memory_of_the_real_step():
  step, compiled = compiled_step()
  memory = hlo.memory(compiled)
  assert memory.arguments + memory.temporaries <= memory.peak
  assert memory.temporaries > 0
  assert memory.arguments == pytest.approx(step.argument_bytes, rel=0.01)
