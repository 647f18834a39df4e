"""Views: each is a function of its image's id and its number alone."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from paws_jax import config as config_lib
from paws_jax import data
from paws_jax.training import views
from tests import quick_compile

PLAIN = config_lib.ViewSpec(
  size=8,
  scale=(0.3, 1.0),
  flip_probability=0.0,
  jitter_probability=0.0,
  grey_probability=0.0,
  blur_probability=0.0,
)
LARGE = dataclasses.replace(PLAIN, count=2)
SMALL = dataclasses.replace(PLAIN, count=1, size=6, scale=(0.05, 0.14))
VIEWS = views.StepViews(
  crops={"large": LARGE, "small": SMALL},
  support=LARGE,
  mean=(0.5,),
  std=(0.25,),
)
NUM_SUPPORT_VIEWS = 2


def _canvases(ids):
  """Canvases [n, 12, 12, 1], image `id` drawn with that seed."""
  images = [np.random.default_rng(i).integers(0, 256, (12, 12, 1)) for i in ids]
  return data.Canvases(
    image=jnp.asarray(np.stack(images), jnp.uint8),
    size=jnp.full((len(ids), 2), 12, jnp.int32),
    id=jnp.asarray(ids, jnp.int32),
  )


def _batch(unlabelled, support, slots):
  return data.HostBatch(
    unlabelled=_canvases(unlabelled),
    support=_canvases(support),
    support_slot=jnp.asarray(slots, jnp.int32),
    support_mask=jnp.asarray([True] * (len(support) - 1) + [False]),
    support_labels=jnp.asarray([1, 0], jnp.int32),
    class_ids=jnp.asarray([0, 1], jnp.int32),
  )


_make_views = functools.partial(
  jax.jit(views.make_views, static_argnames=("views", "num_support_views")),
  num_support_views=NUM_SUPPORT_VIEWS,
)


@functools.cache
def _views(unlabelled, support, slots, *, seed=0, step=0, views=VIEWS):
  batch = _batch(unlabelled, support, slots)
  with quick_compile.quick_compile():
    return jax.device_get(_make_views(batch, seed=seed, step=step, views=views))


def _crops(views):
  return views.crops | {"support": views.support}


def _first():
  return _views((3, 9, 4), (7, 7, 2), (0, 1, 0))


def test_shapes_and_dtypes_are_those_of_the_contract():
  result = _first()
  assert result.crops["large"].shape == (3, 2, 8, 8, 1)
  assert result.crops["small"].shape == (3, 1, 6, 6, 1)
  assert result.support.shape == (3, NUM_SUPPORT_VIEWS, 8, 8, 1)
  for crops in (result.crops["large"], result.crops["small"], result.support):
    assert crops.dtype == np.float32
    # Normalised: 0 and 255 become -2 and 2.
    assert crops.min() >= -2.001
    assert crops.max() <= 2.001
    assert crops.std() > 0.3


def test_labels_and_masks_pass_through():
  result = _first()
  np.testing.assert_array_equal(result.support_mask, [True, True, False])
  np.testing.assert_array_equal(result.support_labels, [1, 0])
  np.testing.assert_array_equal(result.class_ids, [0, 1])


def test_views_carry_the_ids_of_their_images():
  result = _first()
  np.testing.assert_array_equal(result.ids, [3, 9, 4])
  np.testing.assert_array_equal(result.support_ids, [7, 7, 2])


def test_a_crop_does_not_depend_on_the_rest_of_the_batch():
  first = _first()
  other = _views((4, 11, 3), (2, 5, 7), (0, 0, 1))
  for ours, theirs in ((0, 2), (2, 0)):
    for name in ("large", "small"):
      np.testing.assert_array_equal(
        first.crops[name][ours], other.crops[name][theirs]
      )
  np.testing.assert_array_equal(first.support[1], other.support[2])
  np.testing.assert_array_equal(first.support[2], other.support[0])


def test_every_view_of_an_image_is_another():
  # Image 7 is drawn twice as a support, with two views each.
  result = _first()
  of_seven = result.support[:2].reshape(4, -1)
  for i in range(4):
    for j in range(i):
      assert np.abs(of_seven[i] - of_seven[j]).max() > 0.1
  assert (
    np.abs(result.crops["large"][:, 0] - result.crops["large"][:, 1]).max()
    > 0.1
  )


def test_an_image_is_cut_differently_as_support_and_unlabelled():
  both = _views((7, 9, 4), (7, 7, 2), (0, 1, 0))
  for view in both.crops["large"][0]:
    for support in both.support[0]:
      assert np.abs(view - support).max() > 0.1


@pytest.mark.parametrize("change", [{"seed": 1}, {"step": 1}])
def test_seed_and_step_change_every_crop(change):
  first = _first()
  other = _views((3, 9, 4), (7, 7, 2), (0, 1, 0), **change)
  for name in ("large", "small", "support"):
    ours, theirs = _crops(first)[name], _crops(other)[name]
    changed = np.abs(ours - theirs).max(axis=(2, 3, 4))
    assert np.all(changed > 0.1)


def _shapes(batch, **changes):
  step_views = dataclasses.replace(VIEWS, **changes)
  return jax.eval_shape(
    lambda batch: views.make_views(
      batch, seed=0, step=0, views=step_views, num_support_views=1
    ),
    batch,
  )


def test_no_small_crops_are_none():
  batch = _batch((3, 9, 4), (7, 7, 2), (0, 1, 0))
  shapes = _shapes(batch, crops={"large": LARGE})
  assert "small" not in shapes.crops
  assert shapes.crops["large"].shape == (3, 2, 8, 8, 1)
  assert shapes.support.shape == (3, 1, 8, 8, 1)


def test_without_unlabelled_images_only_supports_are_cut():
  batch = _batch((3, 9, 4), (7, 7, 2), (0, 1, 0))._replace(unlabelled=None)
  shapes = _shapes(batch, crops={})
  assert shapes.crops == {}
  assert shapes.ids is None
  assert shapes.support.shape == (3, 1, 8, 8, 1)


def test_without_labelled_images_only_crops_are_cut():
  whole = _batch((3, 9, 4), (7, 7, 2), (0, 1, 0))
  batch = data.HostBatch(whole.unlabelled, *[None] * 5)
  shapes = _shapes(batch)
  assert sorted(shapes.crops) == ["large", "small"]
  assert shapes.ids.shape == (3,)
  assert shapes[2:] == (None,) * 5


def test_more_large_crops_than_two_are_cut():
  batch = _batch((3, 9, 4), (7, 7, 2), (0, 1, 0))
  three = dataclasses.replace(LARGE, count=3)
  shapes = _shapes(batch, crops={"large": three})
  assert shapes.crops["large"].shape == (3, 3, 8, 8, 1)


def test_views_are_numbered_through_the_names_in_order():
  # The crops of a second name go on where those of the first end.
  images = ((3, 9, 4), (7, 7, 2), (0, 1, 0))
  together = _views(*images, views=_with_crops(three=3)).crops["three"]
  apart = _views(*images, views=_with_crops(weak=1, strong=2)).crops
  # The two programs may round differently; other draws differ by far more.
  expected = {"weak": together[:, :1], "strong": together[:, 1:]}
  for name, crops in expected.items():
    np.testing.assert_allclose(apart[name], crops, rtol=0, atol=1e-6)


def _with_crops(**counts):
  crops = {
    name: dataclasses.replace(PLAIN, count=count)
    for name, count in counts.items()
  }
  return dataclasses.replace(VIEWS, crops=crops)


def test_each_name_has_its_own_augmentation():
  crops = {"weak": PLAIN, "strong": dataclasses.replace(PLAIN, size=5)}
  batch = _batch((3, 9, 4), (7, 7, 2), (0, 1, 0))
  shapes = _shapes(batch, crops=crops, support=SMALL)
  assert shapes.crops["weak"].shape == (3, 1, 8, 8, 1)
  assert shapes.crops["strong"].shape == (3, 1, 5, 5, 1)
  assert shapes.support.shape == (3, 1, 6, 6, 1)
