"""RoPAWS: its fixed point, its limits, and the method on toy images."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import PartitionSpec as P

from paws_jax import losses
from paws_jax.losses import ropaws
from paws_jax.parallel import mesh as mesh_lib
from tests import toy_method

pytestmark = pytest.mark.unoptimized

CLASSES = 3


def _normal(seed, *shape):
  return np.random.default_rng(seed).normal(size=shape)


def _rows(num_supports=6):
  labels = jnp.arange(num_supports) % CLASSES
  return losses.label_rows(labels, jnp.arange(CLASSES), smoothing=0.1)


def _kernel(views, all_views, supports, *, first=0, **settings):
  defaults = {"temperature": 0.1, "prior_temperature": 3.0, "label_weight": 7.0}
  return ropaws.kernel(
    views, all_views, supports, first=first, **(defaults | settings)
  )


def _problem(seed=0, num_views=8):
  """Two views' kernels, stacked, as the method makes them."""
  supports = _normal(seed, 6, 5)
  views = _normal(seed + 1, 2, num_views, 5)
  kernels = [_kernel(view, view, supports) for view in views]
  return jax.tree.map(lambda *parts: jnp.stack(parts), *kernels)


@pytest.mark.parametrize("prior_temperature", [0.1, 3.0])
def test_the_iteration_reaches_the_linear_solve(prior_temperature):
  with jax.enable_x64(True):
    views, supports, rows = _normal(1, 8, 5), _normal(0, 6, 5), _rows()
    kernel = _kernel(
      views, views, supports, prior_temperature=prior_temperature
    )
    stacked = jax.tree.map(lambda x: x[None], kernel)
    found = [
      np.asarray(ropaws.posteriors(stacked, rows, num_iterations=n)[0])
      for n in (0, 1, 200)
    ]
  kernel = jax.device_get(kernel)
  prior = np.diag(kernel.in_domain)
  inside = prior @ kernel.unlabelled
  assert inside.sum(-1).max() < 1
  assert (inside >= 0).all()
  base = prior @ kernel.labelled @ np.asarray(rows)
  exact = np.linalg.solve(np.eye(8) - inside, base)
  np.testing.assert_allclose(found[0], base, rtol=1e-12)
  np.testing.assert_allclose(found[1], base + inside @ base, rtol=1e-12)
  np.testing.assert_allclose(found[2], exact, rtol=1e-12)
  # From below, and sub-stochastic all the way.
  assert (found[0] <= found[1] + 1e-15).all()
  assert (found[1] <= exact + 1e-15).all()
  assert (exact.sum(-1) < 1).all()
  assert (found[0] > 0).all()


def test_weights_of_a_row_add_up_to_one_and_leave_itself_out():
  kernels = _problem()
  total = kernels.labelled.sum(-1) + kernels.unlabelled.sum(-1)
  np.testing.assert_allclose(total, 1, rtol=1e-5)
  itself = np.diagonal(kernels.unlabelled, axis1=-2, axis2=-1)
  np.testing.assert_array_equal(itself, 0)
  assert kernels.unlabelled.sum() > 0


def test_the_ratio_is_that_of_the_labels_mass():
  # All equally near: 4 supports weigh 5 times as much as 10 unlabelled images.
  views, supports = np.ones((10, 5)), np.ones((4, 5))
  weight = ropaws.label_weight(5.0, num_unlabelled=10, num_supports=4)
  kernel = _kernel(views, views, supports, label_weight=weight)
  # An image is not its own neighbor: 9 of the 10.
  np.testing.assert_allclose(kernel.labelled.sum(-1), 5 / (5 + 0.9), rtol=1e-5)


@pytest.mark.parametrize(
  ("unlabelled", "supports", "expected"),
  [(4096, 6720, 3.05), (64, 7, 45.7), (256, 64, 20.0), (64, 5, 64.0)],
)
def test_the_weights_of_the_published_recipes(unlabelled, supports, expected):
  weight = ropaws.label_weight(
    5.0, num_unlabelled=unlabelled, num_supports=supports
  )
  assert weight == pytest.approx(expected, rel=1e-3)


def test_the_in_domain_probability():
  found = losses.in_domain_probability(
    jnp.array([1.0, 1.0 + 1e-6, 0.0, -1.0]), temperature=0.5
  )
  np.testing.assert_allclose(found, np.exp([0, 0, -2, -4]), rtol=1e-6)


@pytest.mark.parametrize("rows", [np.zeros((6, 5)), np.ones((6, 5))])
def test_collapsed_embeddings_give_finite_targets(rows):
  kernel = _kernel(rows, rows, rows, prior_temperature=0.1)
  stacked = jax.tree.map(lambda x: x[None], kernel)
  found = ropaws.posteriors(stacked, _rows(), num_iterations=20)
  assert np.isfinite(found).all()
  completed = ropaws.spread_missing(found)
  np.testing.assert_allclose(completed, 1 / CLASSES, rtol=1e-5)


def test_what_is_missing_goes_to_all_classes():
  found = ropaws.spread_missing(jnp.array([[0.1, 0.2, 0.1]]))
  np.testing.assert_allclose(found, [[0.3, 0.4, 0.3]], rtol=1e-6)


def test_posteriors_on_four_devices_equal_one():
  views, supports = _normal(1, 8, 5), _normal(0, 6, 5)

  def local(views, supports, rows):
    axis = mesh_lib.AXES
    everything = jax.lax.all_gather(views, axis, tiled=True)
    first = jax.lax.axis_index(axis) * len(views)
    kernel = _kernel(views, everything, supports, first=first)
    stacked = jax.tree.map(lambda x: x[None], kernel)
    return ropaws.posteriors(stacked, rows, num_iterations=3, axis_name=axis)[0]

  mesh = mesh_lib.make_mesh(jax.devices()[:4])
  specs = {"in_specs": (mesh_lib.BATCH, P(), P()), "out_specs": mesh_lib.BATCH}
  with jax.enable_x64(True):
    rows = _rows()
    sharded = jax.jit(mesh_lib.shard_map(local, mesh, **specs))(
      views, supports, rows
    )
    kernel = jax.tree.map(lambda x: x[None], _kernel(views, views, supports))
    one = ropaws.posteriors(kernel, rows, num_iterations=3)[0]
  np.testing.assert_allclose(sharded, one, rtol=1e-12)


# --- The method --------------------------------------------------------------


@functools.cache
def _reference():
  method = toy_method.create(name="ropaws")
  return toy_method.evaluate(method, toy_method.make_views())


def test_with_weightless_unlabelled_images_of_known_classes_it_is_paws():
  views = toy_method.make_views()
  paws = toy_method.evaluate(toy_method.create(name="paws"), views)
  limit = toy_method.evaluate(
    toy_method.create(
      name="ropaws", label_mass_ratio=1e15, in_domain_temperature=1e15
    ),
    views,
  )
  assert limit["metrics"].pop("in_domain") == pytest.approx(1)
  toy_method.assert_same(limit, paws, atol=1e-10)
  # And elsewhere it is not.
  assert abs(_reference()["loss"] - paws["loss"]) > 1e-3


def test_four_devices_equal_one():
  views = toy_method.padded(toy_method.make_views(), 8)
  method = toy_method.create(name="ropaws", axis_name=mesh_lib.AXES)
  result = toy_method.evaluate(method, views, num_devices=4)
  toy_method.assert_same(result, _reference())


def test_order_of_supports_and_columns_does_not_matter():
  views = toy_method.make_views()
  order = np.array([4, 0, 5, 1, 3, 2])
  moved = views._replace(
    support=views.support[order],
    support_labels=views.support_labels[order],
    class_ids=views.class_ids[::-1],
  )
  method = toy_method.create(name="ropaws")
  toy_method.assert_same(toy_method.evaluate(method, moved), _reference())


def test_images_that_are_of_no_known_class_count_less():
  views = toy_method.make_views()

  def measure(**fields):
    return toy_method.measure(toy_method.create(name="ropaws", **fields), views)

  metrics = _reference()["metrics"]
  strict = measure(in_domain_temperature=0.05)
  even = measure(in_domain_temperature=0.05, in_domain_power=0.0)
  assert 0 < strict["in_domain"] < metrics["in_domain"] < 1
  assert even["in_domain"] == pytest.approx(strict["in_domain"])
  assert strict["cross_entropy"] < 0.9 * even["cross_entropy"]


def test_the_two_meanings_of_the_ratio():
  views = toy_method.make_views()
  fields = {"name": "ropaws", "label_mass_ratio": 4.0}
  clean = toy_method.create(**fields)
  # 8 images, and 2 views each of 6 supports.
  supports = np.zeros((12, 8))
  assert clean._label_weight(8, supports, views) == pytest.approx(4 * 8 / 12)
  released = toy_method.create(
    **fields, as_released=True, released_batch_size=64
  )
  # 2 images of each class.
  assert released._label_weight(8, supports, views) == pytest.approx(4 * 64 / 2)


def test_more_than_two_large_crops_and_no_head():
  views = toy_method.make_views(num_large=3)
  method = toy_method.create(name="ropaws", prediction=False)
  result = toy_method.measure(method, views)
  assert all(np.isfinite(number) for number in result.values())
  # Every view is held to what is found for the others: their order is nothing.
  moved = views._replace(
    crops=views.crops | {"large": views.crops["large"][:, [2, 0, 1]]}
  )
  assert toy_method.measure(method, moved)["loss"] == pytest.approx(
    result["loss"], rel=1e-9
  )
