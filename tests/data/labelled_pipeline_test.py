"""Epochs over labelled images: each once, with its own label."""

import jax
import numpy as np
import pytest
from PIL import Image

from paws_jax import config as config_lib
from paws_jax.data import labelled_pipeline
from paws_jax.data import load_dataset
from paws_jax.data import memory_pipeline
from paws_jax.data import sampling
from paws_jax.data.host import pipeline as pipeline_lib
from paws_jax.data.host import row_plan
from paws_jax.parallel import mesh as mesh_lib

pytestmark = pytest.mark.unoptimized

NUM_IMAGES = 60
# Labels of all training images; those to train on have odd numbers.
LABELS = np.arange(NUM_IMAGES, dtype=np.int32) * 7 % 5
IMAGES = np.zeros((NUM_IMAGES, 4, 4, 1), np.uint8)
IMAGES[..., 0] = np.arange(NUM_IMAGES)[:, None, None]


def _make_pipeline(*, labelled_ids, **options):
  index = sampling.label_index(labelled_ids, LABELS, class_names=tuple("abcde"))
  return memory_pipeline.InMemory(IMAGES, index, **options)


def _epochs(num_images, batch_size, num_devices=2, seed=3):
  ids = np.arange(1, 2 * num_images, 2, dtype=np.int32)
  mesh = mesh_lib.make_mesh(jax.devices()[:num_devices])
  return ids, labelled_pipeline.LabelledEpochs(
    _make_pipeline,
    ids=ids,
    labels=LABELS[ids],
    num_classes=5,
    batch_size=batch_size,
    seed=seed,
    mesh=mesh,
  )


def _batches(pipeline, steps):
  batch = jax.jit(pipeline.batch)
  for step in steps:
    yield jax.device_get(batch(pipeline.inputs(step, 1), step))


@pytest.mark.parametrize(
  ("num_images", "batch_size", "rows", "steps"),
  [(24, 8, 8, 3), (21, 8, 8, 3), (25, 8, 8, 4), (11, 1024, 12, 1)],
)
def test_every_image_comes_once_an_epoch(num_images, batch_size, rows, steps):
  ids, pipeline = _epochs(num_images, batch_size)
  assert (pipeline.batch_size, pipeline.steps_per_epoch) == (rows, steps)
  orders = []
  for epoch in (0, 1):
    seen = []
    first = epoch * steps
    for batch in _batches(pipeline, range(first, first + steps)):
      counts = batch.support_labels >= 0
      assert batch.unlabelled is None
      assert batch.support.image.shape == (rows, 4, 4, 1)
      if batch.support_mask is None:
        assert counts.all()
      else:
        np.testing.assert_array_equal(batch.support_mask, counts)
      assert counts.any()
      chosen = batch.support.id[counts]
      # The label is that of the image, and so are the pixels.
      np.testing.assert_array_equal(
        batch.support_labels[counts], LABELS[chosen]
      )
      np.testing.assert_array_equal(
        batch.support.image[counts][:, 0, 0, 0], chosen
      )
      np.testing.assert_array_equal(batch.class_ids, np.arange(5))
      seen += chosen.tolist()
    assert sorted(seen) == ids.tolist()
    orders.append(seen)
  if steps > 1:
    assert orders[0] != orders[1]


def test_batches_do_not_depend_on_the_devices():
  few = list(_batches(_epochs(21, 8, num_devices=1)[1], range(4)))
  many = list(_batches(_epochs(21, 8, num_devices=8)[1], range(4)))
  for one, other in zip(few, many, strict=True):
    jax.tree.map(np.testing.assert_array_equal, one, other)


def test_a_batch_that_the_devices_do_not_divide_is_refused():
  with pytest.raises(
    ValueError, match=r"finetune\.batch_size is 12, which 8 devices do not"
  ):
    _epochs(30, 12, num_devices=8)
  # Of 11 images it would be filled up to 12.
  with pytest.raises(ValueError, match="batch_size is 12"):
    _epochs(11, 12, num_devices=8)


def test_a_batch_that_is_never_filled_need_not_be_divided():
  _, pipeline = _epochs(5, 12, num_devices=8)
  assert (pipeline.batch_size, pipeline.steps_per_epoch) == (8, 1)


def test_the_pipeline_that_reads_on_the_host_takes_the_same_rows():
  ids, _ = _epochs(21, 8)
  given = {}

  def keep(*, labelled_ids, **options):
    given.update(options, labelled_ids=labelled_ids)
    return _make_pipeline(labelled_ids=labelled_ids, **options)

  pipeline = labelled_pipeline.LabelledEpochs(
    keep,
    ids=ids,
    labels=LABELS[ids],
    num_classes=5,
    batch_size=8,
    seed=3,
    mesh=mesh_lib.make_mesh(jax.devices()[:2]),
  )
  plan = row_plan.RowPlan(
    sampling.label_index(
      given["labelled_ids"], LABELS, class_names=tuple("abcde")
    ),
    num_images=NUM_IMAGES,
    pool=given["pool"],
    support=given["support"],
    batch_size=given["batch_size"],
    seed=given["seed"],
    mesh=given["mesh"],
  )
  assert plan.steps_per_epoch == pipeline.steps_per_epoch
  for step, batch in enumerate(_batches(pipeline, range(6))):
    np.testing.assert_array_equal(batch.support.id, plan.unlabelled(step))


def test_on_disk_no_image_stands_in_for_another(tmp_path, monkeypatch):
  for name in ("cat", "dog"):
    (tmp_path / name).mkdir()
    for i in range(3):
      Image.new("RGB", (8, 8)).save(tmp_path / name / f"{i}.png")
  config = config_lib.base()
  config.data.update(
    source="folder",
    pipeline="host",
    dir=str(tmp_path),
    labels_per_class=0,
    on_bad_image="skip",
  )
  dataset = load_dataset.load(
    config_lib.Data(**config.data), config_lib.build_views(config.views)
  )
  asked = []
  monkeypatch.setattr(
    pipeline_lib,
    "HostPipeline",
    lambda *unused, **options: asked.append(options),
  )
  support = labelled_pipeline._FEWEST_SUPPORTS
  dataset.make_pipeline(support=support)
  dataset.make_pipeline(support=support, pool=np.array([1, 4]))
  # With the pool go labels, which another image would not have.
  assert [each["on_bad_image"] for each in asked] == ["skip", "error"]
  assert [each["pool"].tolist() for each in asked] == [list(range(6)), [1, 4]]
