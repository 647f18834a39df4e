"""Reading compiled programs: by lines as compilers print them, and our own."""

import functools
import importlib.util
import pathlib

import jax
import pytest

from paws_jax import abstract_step
from paws_jax import program_audit

_TINY = pathlib.Path(__file__).parent / "tiny_recipe.py"

# Lines as XLA prints them for TPUs and CPUs.
_TEXT = """\
HloModule jit_call, is_scheduled=true

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
  found = program_audit.collectives(_TEXT, num_devices=8)
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
  assert program_audit.summary(found) == {
    "all-reduce": {"count": 2, "bytes": 532},
    "all-gather": {"count": 2, "bytes": 768},
    "reduce-scatter": {"count": 1, "bytes": 128},
    "collective-permute": {"count": 1, "bytes": 16},
  }


def test_what_a_device_sends_around_a_ring():
  reduced, gathered, _, scattered, permuted, _ = program_audit.collectives(
    _TEXT, num_devices=8
  )
  assert reduced.sent_bytes == 2 * 528 * 3 / 4
  assert gathered.sent_bytes == 512 * 3 / 4
  assert scattered.sent_bytes == 128 * 3 / 4
  assert permuted.sent_bytes == 16


def test_what_the_main_program_reads_and_writes():
  found = program_audit.instructions(_TEXT)
  by_name = {i.operation: i for i in found}
  fusion = by_name["fusion"]
  assert fusion.results == (("bf16", (4, 8)),)
  assert fusion.written_bytes == 64
  # Its operands: the parameter, and what came out of the reduce-scatter.
  assert fusion.read_bytes == 128 + 32
  assert fusion.source == "jit(call)/encoder/add"
  assert "parameter" not in by_name
  # Of another computation than the main one.
  assert "add" not in by_name
  totals = [i.written_bytes + i.read_bytes for i in found]
  assert totals == sorted(totals, reverse=True)
  assert program_audit.instructions("HloModule empty") == []


@pytest.mark.parametrize(
  ("dtype", "shape", "num_bytes"),
  [("f32", "2,3", 24), ("bf16", "", 2), ("s4", "16", 8), ("token", "", 0)],
)
def test_bytes_of_an_array(dtype, shape, num_bytes):
  assert program_audit.array_bytes(dtype, shape) == num_bytes


@pytest.mark.parametrize(
  ("message", "gib"),
  [
    (
      "RESOURCE_EXHAUSTED: Ran out of memory on HBM, the total memory required "
      "for HLO temporaries (29.29G) exceeds available HBM (15.75G).",
      29.29,
    ),
    (
      "RESOURCE_EXHAUSTED: XLA:TPU compile permanent error. Ran out of memory "
      "in memory space hbm. Used 20.52G of 15.75G hbm. Exceeds hbm capacity by "
      "4.77G.",
      20.52,
    ),
    ("RESOURCE_EXHAUSTED: something else", None),
  ],
)
def test_bytes_that_were_missing(message, gib):
  found = program_audit.needed_bytes(message)
  assert found == (None if gib is None else int(gib * 2**30))


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
  step = abstract_step.create(config, jax.devices()[:4])
  # Which collectives there are does not depend on how well LLVM does.
  options = {"xla_backend_optimization_level": 0}
  return step, step.trace().lower().compile(compiler_options=options)


@pytest.mark.slow
def test_the_collectives_of_the_real_step():
  """Numbers may fall; before they rise, see what new array travels."""
  step, compiled = compiled_step()
  found = program_audit.collectives(compiled.as_text(), num_devices=4)
  summary = program_audit.summary(found)
  assert set(summary) == {"all-gather", "reduce-scatter", "all-reduce"}
  # h and z of the supports, and the way back of the gradients.
  rows = step.num_supports + -step.num_supports % 4
  embeddings = rows * 2 * 8 * 4
  for kind in ("all-gather", "reduce-scatter"):
    assert summary[kind]["bytes"] <= embeddings
    assert summary[kind]["count"] == 1
  # Gradients, of each of the two passes at most, and BatchNorm's sums.
  params = sum(leaf.size for leaf in jax.tree.leaves(step.state.params))
  assert 4 * params <= summary["all-reduce"]["bytes"] < 2.1 * 4 * params
  num_norms = len(jax.tree.leaves(step.state.model_state)) // 2
  assert summary["all-reduce"]["count"] <= 4 * num_norms


@pytest.mark.slow
def test_the_memory_of_the_real_step():
  step, compiled = compiled_step()
  memory = program_audit.memory(compiled)
  assert memory.arguments < memory.peak
  assert memory.temporaries > 0
  # The state that goes in makes room for the one that comes out.
  state = sum(x.size * x.dtype.itemsize for x in jax.tree.leaves(step.state))
  assert memory.aliased == pytest.approx(state, rel=0.01)


@pytest.mark.slow
def test_instructions_account_for_what_is_accessed():
  _, compiled = compiled_step()
  found = program_audit.instructions(compiled.as_text())
  told = compiled.cost_analysis()["bytes accessed"]
  ours = sum(i.written_bytes + i.read_bytes for i in found)
  assert 0.3 * told < ours < 3 * told
