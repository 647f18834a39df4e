"""The supervised yardstick: mixing of labelled images."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from paws_jax.methods import strong_supervised
from paws_jax.parallel import mesh as mesh_lib
from tests import toy_method

pytestmark = pytest.mark.unoptimized


def _create(axis_name=None, **fields):
  return toy_method.create(
    name="strong_supervised", axis_name=axis_name, **fields
  )


def _views():
  views = toy_method.make_views(num_small=0)
  views = toy_method.without_unlabelled(views)
  return toy_method.views_of(_create(), views)


@pytest.mark.parametrize(
  "fields",
  [pytest.param({"mixup": 0.4}, marks=pytest.mark.slow), {"mixup": 0.0}],
)
def test_mixed_images_are_the_same_on_any_number_of_devices(fields):
  expected = toy_method.evaluate(_create(**fields), _views())
  actual = toy_method.evaluate(
    _create(mesh_lib.AXES, **fields),
    toy_method.padded(_views(), 8),
    num_devices=2,
  )
  toy_method.assert_same(actual, expected)


@pytest.mark.slow
def test_mixing_changes_the_loss():
  plain = toy_method.measure(_create(mixup=0.0, cutmix=0.0), _views())
  for fields in ({"cutmix": 0.0, "mixup": 1.0}, {"mixup": 0.0}):
    mixed = toy_method.measure(_create(**fields), _views())
    assert mixed["cross_entropy"] != plain["cross_entropy"]


@pytest.mark.parametrize("fields", [{"cutmix": 0.0}, {"mixup": 0.0}])
def test_an_image_is_mixed_with_another_one_not_with_its_other_view(fields):
  method, views = _create(label_smoothing=0.0, **fields), _views()
  count, num_views = views.support.shape[:2]
  assert num_views == 2
  numbers = np.arange(count, dtype=float)
  own = np.broadcast_to(numbers[:, None, None, None, None], views.support.shape)
  with jax.enable_x64(True):
    batch = views._replace(support=jnp.asarray(own))
    mixed, shares = method._mix(batch, jax.random.key(0))
    labels = jnp.asarray(np.roll(views.support_labels, -1).repeat(num_views))
    # Nothing is left of the image itself.
    loss = method._mixed_loss(
      100.0 * jax.nn.one_hot(labels, 3), batch, jnp.zeros(len(labels))
    )
  left = np.asarray(shares).reshape(count, num_views)
  step = np.roll(numbers, -1) - numbers
  np.testing.assert_allclose(
    np.asarray(mixed.support).mean((2, 3, 4)) - numbers[:, None],
    (1 - left) * step[:, None],
    atol=1e-6,
  )
  assert (left < 0.99).any()
  assert float(loss) < 1e-6


def test_a_rectangle_has_its_share_of_the_area():
  inside = strong_supervised._rectangles(
    np.array([0.75, 0.0, 1.0], np.float32),
    np.array([[0.5, 0.5], [0.5, 0.5], [0.2, 0.9]], np.float32),
    16,
    16,
  )
  np.testing.assert_allclose(inside.mean((1, 2)), [0.25, 1.0, 0.0])
  assert inside[0, 4:12, 4:12].all()
