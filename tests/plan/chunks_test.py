"""Steps in chunks as they are planned: memory, arithmetic, what travels."""

import dataclasses
import functools

import jax
import pytest

from paws_jax import config as config_lib
from paws_jax import errors
from paws_jax.data import memory_pipeline
from paws_jax.parallel import mesh as mesh_lib
from paws_jax.plan import abstract_step
from paws_jax.plan import auto_chunks
from paws_jax.plan import hlo
from paws_jax.plan import memory
from paws_jax.plan import traced_costs

pytestmark = pytest.mark.unoptimized


def _recipe(batch_size=64, chunks=4, **changes):
  """PAWS at 32 pixels with a small network; 64 supports."""
  config = config_lib.base()
  config.data.source = "digits"
  config.data.labels_per_class = 8
  for view, size in ((config.views.large, 32), (config.views.small, 16)):
    view.update(size=size, jitter_probability=0.0, blur_probability=0.0)
  config.views.small.count = 1
  config.views.update(mean=(0.3,), std=(0.3,), eval_resize=32)
  config.support.classes_per_step = config.support.images_per_class = 8
  config.model.name = "small_resnet"
  config.model.output_dim = 16
  config.train.batch_size = batch_size
  config.train.chunks = chunks
  config.update_from_flattened_dict(
    {name.replace("__", "."): value for name, value in changes.items()}
  )
  return config_lib.resolve(config)


@functools.cache
def _traced(num_devices, chunks, **changes):
  devices = jax.devices()[:num_devices]
  step = abstract_step.create(_recipe(chunks=chunks, **changes), devices)
  return step, step.trace()


@pytest.mark.slow
def test_a_step_costs_a_third_more():
  flops = [
    traced_costs.flops(_traced(1, chunks)[1].jaxpr.jaxpr) for chunks in (1, 4)
  ]
  # Loops are counted as often as they run.
  assert 1.25 < flops[1] / flops[0] <= 1.37


def test_the_model_of_memory_follows_the_chunk():
  """Not the batch: activations are those of one chunk, with its results."""
  whole, chunked = (memory.memory(_traced(1, n)[0]) for n in (1, 4))
  assert chunked.activations < whole.activations / 3
  assert chunked.views == whole.views // 4
  assert chunked.state == whole.state


@pytest.mark.slow
def test_what_travels_with_chunks():
  """BatchNorm's sums for each chunk, none of its own; gradients once."""
  counts = {}
  for group_size, chunks in ((0, 1), (0, 2), (1, 2)):
    step, traced = _traced(2, chunks, train__bn_group_size=group_size)
    found = list(traced_costs.collectives(traced.jaxpr.jaxpr, 2))
    leaves = jax.tree.leaves(step.state.params)
    largest = max(x.size * x.dtype.itemsize for x in leaves)
    text = traced.lower().compile().as_text()
    alone = hlo.collectives(text, num_devices=2)
    counts[group_size, chunks] = (
      sum(c.kind == "all-reduce" for c in found),
      sum(c.num_bytes >= largest for c in found if c.kind == "all-reduce"),
      sum(c.kind == "all-reduce" and c.group_size == 2 for c in alone),
    )
    norms = len(jax.tree.leaves(step.state.batch_stats)) // 2
  (whole, once, _), (shared, same, _), (_, alone_once, few) = counts.values()
  # Supports with large views and small views, forward and backward.
  assert whole < shared <= whole + 3 * 4 * norms + 8
  assert once == same == alone_once
  # Those of the loss, the gradients and the running statistics.
  assert few < 4 * norms


@pytest.mark.slow
def test_memory_does_not_grow_with_the_batch():
  """Chunks of 16 images: one program, compiled and not run."""
  temporaries = []
  for batch_size in (64, 256):
    _, traced = _traced(1, batch_size // 16, batch_size=batch_size)
    temporaries.append(hlo.memory(traced.lower().compile()).temporaries)
  # Embeddings and probabilities of 192 images more, and 3 views of each.
  more = 192 * 3 * (4 * 16 + 4 * 8) * 4
  assert temporaries[1] - temporaries[0] < more
  whole = hlo.memory(_traced(1, 1, batch_size=256)[1].lower().compile())
  assert whole.temporaries > 8 * temporaries[1]


@pytest.mark.parametrize(
  ("available", "count"), [(100, 1), (60, 2), (25, 4), (7, 16), (1, 16)]
)
def test_the_smallest_number_that_fits(available, count):
  asked = []

  def needed(chunks):
    asked.append(chunks)
    return 100 // chunks

  assert auto_chunks.smallest(needed, available, most=16) == count
  # No number twice, and not all of them: each is traced.
  assert len(asked) == len(set(asked)) <= 4


@pytest.mark.parametrize(
  ("bn_groups", "num_devices", "most"),
  [(1, 1, 64), (1, 4, 16), (8, 1, 8), (8, 4, 2), (2, 4, 1), (64, 2, 32)],
)
def test_the_number_divides_images_and_groups(bn_groups, num_devices, most):
  train = config_lib.Train(batch_size=64, bn_groups=bn_groups)
  assert auto_chunks.largest(train, num_devices) == most
  # Each of its divisors can be had.
  for count in (n for n in range(1, most + 1) if most % n == 0):
    mesh_lib.batch_norm_axes(
      0, bn_groups=bn_groups, num_devices=num_devices, chunks=count
    )


def test_groups_are_not_cut_to_find_a_number(monkeypatch):
  config = _recipe(chunks=0)
  train = dataclasses.replace(config.train, bn_groups=4)
  config = dataclasses.replace(config, train=train)
  monkeypatch.setattr(memory, "device_memory", lambda _: 1800)
  total = lambda built: memory.Memory(0, 0, 0, 0, 5000 // built.train.chunks)  # noqa: E731
  monkeypatch.setattr(memory, "memory", total)
  with pytest.raises(
    errors.InputError, match=r"bn_groups=4 allows \(unlab.* in each: 16\)"
  ):
    auto_chunks.create(config, devices=jax.devices()[:1])


def test_a_number_is_found_for_training(monkeypatch, capsys):
  config = _recipe(chunks=0)
  # Of which a program can have 1,000 on a CPU.
  monkeypatch.setattr(memory, "device_memory", lambda _: 1800)
  sizes = {1: 3000, 2: 1500, 4: 900, 8: 500, 16: 300, 32: 200, 64: 100}
  total = lambda built: memory.Memory(0, 0, 0, 0, sizes[built.train.chunks])  # noqa: E731
  monkeypatch.setattr(memory, "memory", total)
  placed, init = [], memory_pipeline.InMemory.__init__
  monkeypatch.setattr(
    memory_pipeline.InMemory,
    "__init__",
    lambda *args, **options: placed.append(1) or init(*args, **options),
  )
  recipe, built = auto_chunks.create(config, devices=jax.devices()[:1])
  assert recipe.train.chunks == built.train.chunks == 4
  assert built.trainer.method.encoder.chunking.count == 4
  # Images are put on the devices once, whatever is tried.
  assert len(placed) == 1
  assert "train.chunks: 4" in capsys.readouterr().out
  monkeypatch.setattr(memory, "device_memory", lambda _: 50)
  with pytest.raises(errors.InputError, match="even 64 chunks"):
    auto_chunks.create(config, devices=jax.devices()[:1])
  monkeypatch.setattr(memory, "device_memory", lambda _: None)
  with pytest.raises(errors.InputError, match="do not report their memory"):
    auto_chunks.create(config, devices=jax.devices()[:1])
