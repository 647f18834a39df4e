"""The host pipeline: the in-memory pipeline's batches, out of files."""

import collections
import contextlib
import dataclasses
import functools
import gc
import os
import pathlib
import random
import re
import threading
import time
import tracemalloc

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from paws_jax import config as config_lib
from paws_jax import errors
from paws_jax.data import memory_pipeline
from paws_jax.data import sampling
from paws_jax.data.host import decode
from paws_jax.data.host import image_reader
from paws_jax.data.host import pipeline as pipeline_lib
from paws_jax.data.sources import arrays
from paws_jax.data.sources import catalog
from paws_jax.parallel import mesh as mesh_lib
from tests import odd_files

pytestmark = pytest.mark.unoptimized

NUM_IMAGES, BATCH, SEED, SIDE = 45, 8, 5, 8
STEPS_PER_EPOCH = 5
SUPPORT = config_lib.Support(
  **dict(config_lib.base().support)
  | {"classes_per_step": 3, "images_per_class": 2}
)


@functools.cache
def _digits():
  """45 grey digits as RGB."""
  images = arrays.load("digits", directory="", tfds_name="").train_images
  return np.repeat(images[:NUM_IMAGES], 3, axis=-1)


def _index():
  return sampling.label_index(
    np.arange(12), np.arange(NUM_IMAGES) % 3, class_names=("a", "b", "c")
  )


_DECODER = {}


@pytest.fixture(autouse=True, params=["tensorflow", "pillow"])
def decoder(request, monkeypatch):
  """Runs a test with both decoders, but for those of `any_decoder`."""
  monkeypatch.setitem(_DECODER, "decoder", request.param)


# Before or after what is decoded.
any_decoder = pytest.mark.parametrize("decoder", ["pillow"], indirect=True)


@pytest.fixture(scope="session")
def _written(tmp_path_factory):
  root = tmp_path_factory.mktemp("digits")
  for k, pixels in enumerate(_digits()):
    Image.fromarray(pixels).save(root / f"{k:02d}.png")
  return root


@pytest.fixture
def root(_written, tmp_path):
  """A directory of PNG files that a test may damage."""
  for path in _written.iterdir():
    os.link(path, tmp_path / path.name)
  return tmp_path


def _damage(root, *rows):
  for row in rows:
    path = root / f"{row:02d}.png"
    path.unlink()
    path.write_bytes(b"<html>404</html>")


def _files(root):
  return catalog.Files(
    root=str(root), paths=tuple(f"{k:02d}.png" for k in range(NUM_IMAGES))
  )


class _Bytes:
  """A reader that is not one of files, and which takes uneven times."""

  def __init__(self, root, seed=0, *, most_seconds=0.005):
    self._files = _files(root)
    self._times = random.Random(seed)
    self._most_seconds = most_seconds
    self.read_rows = []

  def __len__(self):
    return len(self._files)

  def name(self, index):
    return f"record {index}"

  def read(self, index):
    time.sleep(self._times.random() * self._most_seconds)
    self.read_rows.append(index)
    return self._files.read(index)


def _pipeline(reader, num_devices=1, **settings):
  if isinstance(reader, pathlib.Path):
    reader = _files(reader)
  settings = {
    "pool": np.arange(NUM_IMAGES),
    "support": SUPPORT,
    "batch_size": BATCH,
    "seed": SEED,
    "mesh": mesh_lib.make_mesh(jax.devices()[:num_devices]),
    "canvas_size": SIDE,
    "on_bad_image": "error",
    "max_pixels": 10**6,
    "support_cache_mb": 0,
    "num_threads": 4,
    **_DECODER,
    **settings,
  }
  index = settings.pop("index", _index())
  return pipeline_lib.HostPipeline(reader, index, **settings)


UNIFORM = dataclasses.replace(SUPPORT, sampling="uniform", batch_size=5)


@functools.cache
def _in_memory(num_devices, support=SUPPORT):
  pipeline = memory_pipeline.InMemory(
    _digits(),
    _index(),
    support=support,
    batch_size=BATCH,
    seed=SEED,
    mesh=mesh_lib.make_mesh(jax.devices()[:num_devices]),
  )
  return pipeline, jax.jit(pipeline.batch)


def _expected(step, num_devices=1, support=SUPPORT):
  pipeline, batch = _in_memory(num_devices, support)
  return batch(pipeline.inputs(step, 1), jnp.int32(step))


def _assert_equal(got, want):
  assert jax.tree.structure(got) == jax.tree.structure(want)
  for a, b in zip(jax.tree.leaves(got), jax.tree.leaves(want), strict=True):
    assert a.dtype == b.dtype
    np.testing.assert_array_equal(a, b)


def _num_threads():
  return sum(t.name == "prefetch" for t in threading.enumerate())


# The same batches as in memory.


@pytest.mark.parametrize("num_devices", [1, 4])
def test_batches_are_those_of_the_in_memory_pipeline(root, num_devices):
  # Over the border of an epoch; with 4 devices supports are padded.
  with _pipeline(root, num_devices) as pipeline:
    assert pipeline.steps_per_epoch == STEPS_PER_EPOCH
    batch = jax.jit(pipeline.batch)
    for step in range(2, 8):
      got = batch(pipeline.inputs(step, 1), jnp.int32(step))
      _assert_equal(got, _expected(step, num_devices))
  assert (got.support_mask is None) == (num_devices == 1)


@any_decoder
def test_picking_a_step_moves_nothing_between_devices(root):
  pipeline = _pipeline(root, 4)
  shapes = pipeline.input_shapes(3)
  with pipeline:
    inputs = pipeline.inputs(0, 3)
  program = jax.jit(pipeline.batch).lower(inputs, jnp.int32(0)).compile()
  assert not re.search(r" (all|reduce|collective)-[a-z-]+\(", program.as_text())
  # As the initial state asks for, which needs no image.
  got = jax.eval_shape(pipeline.batch, shapes, jnp.int32(0))
  want = _expected(0, 4)
  assert jax.tree.map(lambda x: (x.shape, x.dtype), got) == jax.tree.map(
    lambda x: (x.shape, x.dtype), want
  )


@pytest.mark.slow
@pytest.mark.parametrize("num_devices", [1, 2])
def test_several_steps_a_call(root, num_devices):
  with _pipeline(root, num_devices) as pipeline:
    batch = jax.jit(pipeline.batch)
    for first in (3, 6):
      inputs = pipeline.inputs(first, 3)
      for step in range(first, first + 3):
        _assert_equal(
          batch(inputs, jnp.int32(step)), _expected(step, num_devices)
        )
  assert batch._cache_size() == 1


@any_decoder
def test_batches_are_spread_as_the_contract_says(root):
  with _pipeline(root, 4) as pipeline:
    (got,) = pipeline.inputs(0, 1).batches
  for a, b in zip(
    jax.tree.leaves(got), jax.tree.leaves(_expected(0, 4)), strict=True
  ):
    assert a.sharding.is_equivalent_to(b.sharding, a.ndim)
    assert a.committed


@any_decoder
def test_shapes_are_known_without_reading(root):
  reader = _Bytes(root)
  with _pipeline(reader, 4) as pipeline:
    shapes = pipeline.input_shapes(2)
    assert not reader.read_rows
    inputs = pipeline.inputs(0, 2)
  assert shapes == jax.tree.map(
    lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding),
    inputs,
  )


def test_methods_without_unlabelled_images_read_none(root):
  with _pipeline(root, with_unlabelled=False) as pipeline:
    inputs = pipeline.inputs(0, 1)
    _assert_equal(inputs.batches[0], _expected(0)._replace(unlabelled=None))
    assert jax.tree.map(lambda x: x.shape, inputs) == jax.tree.map(
      lambda x: x.shape, pipeline.input_shapes(1)
    )


def test_methods_without_labelled_images_read_none(root):
  reader = _Bytes(root)
  pool = np.arange(12, NUM_IMAGES)
  with _pipeline(reader, support=None, index=None, pool=pool) as pipeline:
    inputs = pipeline.inputs(0, 1)
    assert inputs.batches[0][1:] == (None,) * 5
    assert jax.tree.map(lambda x: x.shape, inputs) == jax.tree.map(
      lambda x: x.shape, pipeline.input_shapes(1)
    )
  assert min(reader.read_rows) >= 12


@pytest.mark.parametrize("num_devices", [1, 4])
def test_uniform_supports_are_those_of_the_in_memory_pipeline(
  root, num_devices
):
  # Epochs of 12 labelled images, 5 a step; going elsewhere and on.
  with _pipeline(root, num_devices, support=UNIFORM) as pipeline:
    for step in (1, 2, 3, 9):
      got = pipeline.inputs(step, 1).batches[0]
      _assert_equal(got, _expected(step, num_devices, UNIFORM))


def test_a_pool_leaves_out_the_other_rows(root):
  pool = np.arange(12, NUM_IMAGES, dtype=np.int32)[::-1]
  seen = []
  with _pipeline(root, pool=pool) as pipeline:
    assert pipeline.steps_per_epoch == 4
    for step in range(4):
      seen.append(pipeline.inputs(step, 1).batches[0].unlabelled)
  ids = np.concatenate([canvases.id for canvases in seen])
  assert len(set(ids.tolist())) == 32
  assert ids.min() >= 12
  for canvases in seen:
    np.testing.assert_array_equal(canvases.image, _digits()[canvases.id])


def test_larger_canvases_hold_zeros_around_the_image(root):
  with _pipeline(root, canvas_size=11) as pipeline:
    canvases = pipeline.inputs(0, 1).batches[0].support
  assert canvases.image.shape == (6, 11, 11, 3)
  np.testing.assert_array_equal(canvases.size, [[8, 8]] * 6)
  np.testing.assert_array_equal(
    canvases.image[:, :8, :8], _digits()[canvases.id]
  )
  assert not canvases.image[:, 8:].any()
  assert not canvases.image[:, :, 8:].any()


def test_jpegs_of_all_kinds_are_what_pillow_decodes(tmp_path):
  rng = np.random.default_rng(0)
  kinds = [
    {},
    {"mode": "L"},
    {"mode": "CMYK"},
    {"exif": b"Exif\x00\x00" + _orientation(6)},
    {"format": "PNG"},
    {"shape": (40, 90)},
    {"shape": (3, 2)},
    {"progressive": True},
  ]
  for k, kind in enumerate(kinds * 6):
    kind = dict(kind)
    pixels = rng.integers(0, 256, (*kind.pop("shape", (20, 30)), 3), np.uint8)
    image = Image.fromarray(pixels).convert(kind.pop("mode", "RGB"))
    image.save(tmp_path / f"{k:02d}.png", **{"format": "JPEG", **kind})
  with _pipeline(tmp_path, canvas_size=32) as pipeline:
    for step in range(STEPS_PER_EPOCH):
      canvases = pipeline.inputs(step, 1).batches[0].unlabelled
      for row, square, size in zip(
        *map(np.asarray, (canvases.id, canvases.image, canvases.size)),
        strict=True,
      ):
        want, want_size = decode.canvas(
          _files(tmp_path).read(row),
          name="",
          canvas_size=32,
          max_pixels=10**6,
        )
        np.testing.assert_array_equal(square, want)
        np.testing.assert_array_equal(size, want_size)


def _orientation(value):
  exif = Image.Exif()
  exif[0x0112] = value
  return exif.tobytes().removeprefix(b"Exif\x00\x00")


# Resuming, timing, processes.


@pytest.mark.slow
def test_a_resumed_run_sees_the_same_batches(root):
  with _pipeline(root) as pipeline:
    straight = [pipeline.inputs(step, 1) for step in range(9)]
  for first in (4, 7):
    with _pipeline(root) as pipeline:
      for step in (first, first + 1):
        _assert_equal(pipeline.inputs(step, 1), straight[step])


@pytest.mark.slow
def test_going_elsewhere_starts_anew(root):
  with _pipeline(root) as pipeline:
    for step in (0, 0, 6, 2, 3):
      _assert_equal(pipeline.inputs(step, 1).batches[0], _expected(step))
    assert _num_threads() == 1


@pytest.mark.parametrize("seed", range(2))
def test_the_timing_of_threads_changes_nothing(root, seed):
  reader = _Bytes(root, seed)
  # No row is labelled and in the pool: it is known what a row was read for.
  pool = np.arange(12, NUM_IMAGES, dtype=np.int32)
  batches = {}
  for num_threads in (1, 6):
    reader.read_rows.clear()
    with _pipeline(reader, num_threads=num_threads, pool=pool) as pipeline:
      batches[num_threads] = [pipeline.inputs(step, 1) for step in range(4)]
    planned = np.concatenate([pipeline._plan.unlabelled(k) for k in range(4)])
    read = [row for row in reader.read_rows if row >= 12]
    first_reads = list(dict.fromkeys(read))[: len(planned)]
    # Several threads run out of order, or the test shows nothing.
    assert (first_reads == planned.tolist()) == (num_threads == 1)
  _assert_equal(batches[6], batches[1])


def _rows_of(tree, mesh, own):
  """What JAX puts on these devices of global arrays, in their order."""

  def rows(leaf):
    spread = jax.device_put(np.asarray(leaf), mesh_lib.batch_sharded(mesh))
    parts = {shard.device: shard.data for shard in spread.addressable_shards}
    return np.concatenate([parts[device] for device in own])

  return jax.tree.map(rows, tree)


@pytest.mark.slow
@pytest.mark.parametrize(
  ("num_processes", "in_order"), [(1, True), (2, True), (2, False), (4, True)]
)
def test_processes_together_read_the_global_batch(
  root, num_processes, in_order, monkeypatch
):
  devices = jax.devices()[:8]
  if not in_order:
    # A process's devices need not hold neighboring rows.
    devices = [devices[k] for k in (0, 4, 1, 5, 2, 6, 3, 7)]
  mesh = mesh_lib.make_mesh(devices)
  pipeline = _pipeline(root, mesh=mesh)
  steps = (4, 5)
  wanted = [_expected(step, 8) for step in steps]
  # What a process gives of its own is looked at before it is put together.
  monkeypatch.setattr(mesh_lib, "from_local_rows", lambda rows, mesh: rows)
  monkeypatch.setattr(mesh_lib, "replicate", lambda tree, mesh: tree)
  for own in np.array_split(np.asarray(jax.devices()[:8]), num_processes):
    monkeypatch.setattr(mesh_lib, "local_devices", lambda _, own=own: own)
    with contextlib.closing(pipeline._batches(steps[0])) as stream:
      for got, want in zip(stream, wanted, strict=False):
        whole = {"support_labels": None, "class_ids": None}
        rows = _rows_of(want._replace(**whole), mesh, own)
        assert len(rows.support_mask) == 8 // num_processes
        whole = {name: getattr(want, name) for name in whole}
        _assert_equal(got, rows._replace(**whole))


def test_a_process_reads_its_own_rows_only(root, monkeypatch):
  mesh = mesh_lib.make_mesh(jax.devices()[:4])
  reader = _Bytes(root)
  with _pipeline(reader, mesh=mesh) as pipeline:
    drawn = pipeline._plan.supports(0)._replace(ids=np.arange(20, 28))
    monkeypatch.setattr(pipeline._plan, "unlabelled", lambda _: np.arange(8))
    monkeypatch.setattr(pipeline._plan, "supports", lambda _: drawn)
    own = [jax.devices()[k] for k in (1, 3)]
    with contextlib.closing(pipeline.local_canvases(0, own)) as stream:
      for _ in range(3):
        next(stream)
  assert set(reader.read_rows) == {2, 3, 6, 7, 22, 23, 26, 27}


@any_decoder
def test_rows_of_all_processes_are_all_rows():
  devices = jax.devices()[:8]
  mesh = mesh_lib.make_mesh([devices[k] for k in (0, 4, 1, 5, 2, 6, 3, 7)])
  with _pipeline(pathlib.Path("nowhere"), mesh=mesh) as pipeline:
    halves = [
      mesh_lib.local_rows(16, pipeline._mesh, devices[k : k + 4])
      for k in (0, 4)
    ]
  assert halves[0].tolist() == [0, 1, 4, 5, 8, 9, 12, 13]
  assert sorted(np.concatenate(halves)) == list(range(16))


# Bad images.


@pytest.mark.parametrize("row", [3, 20])
def test_a_bad_image_stops_the_run_by_name(root, row):
  # 3 is labelled, 20 is not.
  _damage(root, row)
  message = rf"^{row:02d}\.png: it is text"
  pipeline = _pipeline(root)
  with pytest.raises(errors.BadImageError, match=message):
    pipeline.inputs(0, STEPS_PER_EPOCH)
  assert _num_threads() == 0


@pytest.mark.slow
def test_the_steps_before_a_bad_image_are_handed_out(root):
  row = 20
  at = next(s for s in range(5) if row in _expected(s).unlabelled.id)
  _damage(root, row)
  with _pipeline(root) as pipeline:
    for step in range(at):
      _assert_equal(pipeline.inputs(step, 1).batches[0], _expected(step))
    for _ in range(2):
      with pytest.raises(errors.BadImageError, match=r"20\.png"):
        pipeline.inputs(at, 1)
    _assert_equal(pipeline.inputs(at + 1, 1).batches[0], _expected(at + 1))


def test_a_missing_file_is_a_bad_image(root):
  (root / "20.png").unlink()
  with (
    _pipeline(root) as pipeline,
    pytest.raises(errors.BadImageError, match=r"20\.png: it cannot be read"),
  ):
    pipeline.inputs(0, STEPS_PER_EPOCH)


def _with_substitutes(batch, unlabelled, support):
  """The batch after these rows' images were replaced."""

  def replace(canvases, substitutes):
    ids = np.asarray(canvases.id)
    taken = [substitutes.get(int(k), int(k)) for k in ids]
    return canvases._replace(image=_digits()[taken])

  return batch._replace(
    unlabelled=replace(batch.unlabelled, unlabelled),
    support=replace(batch.support, support),
  )


@pytest.mark.parametrize("num_devices", [1, 4])
@pytest.mark.parametrize("as_files", [True, False])
def test_skip_puts_a_substitute_and_shifts_nothing(root, num_devices, as_files):
  # 3 and 6 are neighbors in class 0, whose others are 0 and 9; 44 is last.
  _damage(root, 3, 6, 20, 21, 44)
  reader = _files(root) if as_files else _Bytes(root)
  with _pipeline(reader, num_devices, on_bad_image="skip") as pipeline:
    for step in range(STEPS_PER_EPOCH + 2):
      got = pipeline.inputs(step, 1).batches[0]
      want = _with_substitutes(
        _expected(step, num_devices),
        {3: 4, 6: 7, 20: 22, 21: 22, 44: 0},
        {3: 9, 6: 9},
      )
      _assert_equal(got, want)
    replaced = pipeline.replaced
  name = reader.name
  assert set(replaced) == {name(row) for row in (3, 6, 20, 21, 44)}
  assert replaced[name(44)] == name(0)


@pytest.mark.parametrize(
  ("rows", "named"), [((0, 3, 6, 9), r"0\d"), (range(12, NUM_IMAGES), r"\d\d")]
)
def test_what_nothing_can_stand_in_for_is_not_to_be_skipped(root, rows, named):
  _damage(root, *rows)
  pool = np.arange(12, NUM_IMAGES)
  message = rf"^{named}\.png: it is text.* No possible substitute"
  with (
    _pipeline(root, on_bad_image="skip", pool=pool) as pipeline,
    pytest.raises(errors.BadImageError, match=message) as caught,
  ):
    pipeline.inputs(0, 1)
  assert "on_bad_image" not in str(caught.value)


@pytest.mark.parametrize("kind", odd_files.KINDS)
def test_what_may_have_no_end_is_a_bad_image(root, kind):
  path = root / "20.png"
  path.unlink()
  odd_files.make(path, kind)
  pool = np.array([19, 20], np.int32)
  settings = {"pool": pool, "batch_size": 2, "with_unlabelled": True}
  with _pipeline(root, on_bad_image="skip", **settings) as pipeline:
    pipeline.inputs(0, 1)
    assert pipeline.replaced == {"20.png": "19.png"}
  with (
    _pipeline(root, **settings) as pipeline,
    pytest.raises(errors.BadImageError, match=odd_files.KINDS[kind]),
  ):
    pipeline.inputs(0, 1)


@any_decoder
def test_rows_are_tried_in_turn():
  others = np.array([2, 5, 9])
  assert list(image_reader.rows_after(5, others)) == [9, 2]
  assert list(image_reader.rows_after(9, others)) == [2, 5]
  assert list(image_reader.rows_after(3, others)) == [5, 9, 2]


@any_decoder
def test_the_first_substitute_costs_no_list_of_all_of_them():
  others = np.arange(10**6, dtype=np.int32)
  tracemalloc.start()
  try:
    assert next(image_reader.rows_after(7, others)) == 8
    assert tracemalloc.get_traced_memory()[1] < 10**5
  finally:
    tracemalloc.stop()


@any_decoder
def test_other_modes_for_bad_images_are_refused(root):
  with pytest.raises(ValueError, match=r"on_bad_image is 'drop': .*'skip'"):
    _pipeline(root, on_bad_image="drop")


# The cache.


def test_supports_are_read_once_when_they_are_cached(root):
  reader = _Bytes(root)
  with _pipeline(reader, support_cache_mb=1, with_unlabelled=False) as pipeline:
    for step in range(20):
      got = pipeline.inputs(step, 1).batches[0]
      _assert_equal(got, _expected(step)._replace(unlabelled=None))
    # The first rows may be read by several threads at once. Nothing is kept
    # of the canvas around an image.
    assert pipeline.cached_bytes == 12 * SIDE * SIDE * 3
  assert len(reader.read_rows) < 60


def test_what_pillow_decodes_is_read_once(root):
  # PNG files, which the graph leaves to Pillow.
  reader = _Bytes(root)
  pool = np.arange(12, NUM_IMAGES, dtype=np.int32)
  # Small batches, so that what is read ahead ends within the epoch.
  with _pipeline(reader, pool=pool, batch_size=2) as pipeline:
    batches = pipeline.inputs(0, 2).batches
    times = collections.Counter(reader.read_rows)
  taken = np.concatenate([batch.unlabelled.id for batch in batches])
  assert [times[row] for row in taken.tolist()] == [1] * 4


@any_decoder
def test_the_cache_keeps_to_its_budget():
  cache = image_reader.Cache(1000)
  image = np.full((10, 11, 3), 7, np.uint8)
  for row in range(9):
    np.testing.assert_array_equal(cache.put(row, image), image)
    cache.put(row, image)
    assert cache.num_bytes == min(row + 1, 3) * 330
  image[:] = 0
  assert (cache.get(2) == 7).all()
  assert cache.get(3).shape == (0, 0, 3)
  cache.put(8, np.zeros((1, 3, 3), np.uint8))
  assert cache.num_bytes == 999


@any_decoder
def test_a_bad_image_is_not_cached():
  cache = image_reader.Cache(1000)
  cache.put(0, image_reader.NO_IMAGE)
  assert not cache._images


def test_a_small_cache_changes_no_batch(root):
  with _pipeline(root) as pipeline:
    pipeline._cache = image_reader.Cache(500)
    for step in range(6):
      _assert_equal(pipeline.inputs(step, 1).batches[0], _expected(step))
    assert pipeline.cached_bytes == 384


# Settings.


@any_decoder
@pytest.mark.parametrize(
  ("settings", "message"),
  [
    ({"batch_size": 46}, "batch_size is 46 but there are 45 images"),
    ({"batch_size": 10, "num_devices": 4}, "is 10, which 4 devices do not"),
    ({"pool": np.arange(40, 50)}, "rows 40 to 49 .* 45 images"),
    ({"pool": np.arange(-1, 20)}, "rows -1 to 19 .* 45 images"),
  ],
)
def test_settings_that_do_not_fit_are_refused(root, settings, message):
  with pytest.raises(ValueError, match=message):
    _pipeline(root, **settings)


# The thread.


@any_decoder
def test_no_more_than_two_batches_wait_on_the_devices(root):
  pipeline = _pipeline(root)
  made = []

  def batches(first_step):
    for batch in pipeline_lib.HostPipeline._batches(pipeline, first_step):
      made.append(batch)
      yield batch

  pipeline._batches = batches
  with pipeline:
    for taken in range(1, 4):
      pipeline.inputs(taken - 1, 1)
      deadline = time.monotonic() + 20
      while len(made) < taken + 2 and time.monotonic() < deadline:
        time.sleep(0.01)
      time.sleep(0.2)
      assert len(made) == taken + 2


@any_decoder
def test_waiting_is_counted(root):
  reader = _Bytes(root)
  with _pipeline(reader) as pipeline:
    assert pipeline.stall_seconds == 0
    pipeline.inputs(0, 1)
    stalled = pipeline.stall_seconds
    assert stalled > 0.001
    time.sleep(1)
    pipeline.inputs(1, 1)
    # What was ready is not waited for.
    assert pipeline.stall_seconds < stalled + 0.5


@any_decoder
def test_while_the_devices_work_nothing_stalls(root):
  with _pipeline(_Bytes(root, most_seconds=0.1)) as pipeline:
    pipeline.inputs(0, 1, busy=lambda: True)
    assert pipeline.stall_seconds == 0
    # Waiting counts from when they have nothing left to do.
    looks = iter([True, True])
    pipeline.inputs(10, 1, busy=lambda: next(looks, False))
    assert pipeline.stall_seconds > 0


def test_close_ends_the_thread(root):
  pipeline = _pipeline(root)
  pipeline.close()
  pipeline.inputs(0, 1)
  assert _num_threads() == 1
  pipeline.close()
  assert _num_threads() == 0
  _assert_equal(pipeline.inputs(3, 1).batches[0], _expected(3))
  pipeline.close()
  with contextlib.suppress(KeyError), _pipeline(root) as pipeline:
    pipeline.inputs(0, 1)
    raise KeyError
  assert _num_threads() == 0


@any_decoder
def test_an_error_in_the_thread_comes_out_as_it_was(root):
  with _pipeline(root) as pipeline:
    error = ZeroDivisionError("inside")

    def batches(first_step):
      yield from ()
      raise error

    pipeline._batches = batches
    with pytest.raises(ZeroDivisionError) as caught:
      pipeline.inputs(0, 1)
  assert caught.value is error


def _resident_bytes():
  pages = pathlib.Path("/proc/self/statm").read_text(encoding="ascii").split()
  return int(pages[1]) * os.sysconf("SC_PAGE_SIZE")


@pytest.mark.slow
@pytest.mark.skipif(
  not os.path.exists("/proc/self/statm"), reason="Linux tells its memory"
)
def test_memory_stays_flat(root):
  with _pipeline(root, canvas_size=128) as pipeline:
    resident = []
    for step in range(1000):
      pipeline.inputs(step, 1)
      if step % 100 == 99:
        gc.collect()
        resident.append(_resident_bytes())
  # A batch and its supports hold 0.7 MB: 900 of them would be 600 MB.
  assert resident[-1] - resident[0] < 40e6
