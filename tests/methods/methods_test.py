"""Methods: what they ask for, and their losses.

What padding and devices must not change is in `laws_test`, for all methods.
"""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from paws_jax import config as config_lib
from paws_jax import losses
from paws_jax import methods
from paws_jax import models
from paws_jax.parallel import mesh
from tests import toy_method

pytestmark = pytest.mark.unoptimized


@functools.cache
def _reference(name="paws"):
  """One device, no padding, nothing recomputed."""
  views = toy_method.make_views()
  if name == "supervised":
    views = toy_method.without_unlabelled(views)
  return toy_method.evaluate(toy_method.create(name=name), views)


# --- Views and refusals ------------------------------------------------------


def _section(**counts):
  """Section `views` with so many crops of each name."""
  section = config_lib.base().views
  for name, count in counts.items():
    section[name] = section.get(name, config_lib.view_spec())
    section[name].count = count
  return config_lib.build_views(section)


def test_paws_takes_all_crops_of_the_recipe():
  section = _section(large=2, small=6)
  crops = toy_method.create().views(section)
  assert crops == dict(section.specs)
  assert list(crops) == ["large", "small"]
  crops = toy_method.create().views(_section(large=3, small=0))
  assert {name: spec.count for name, spec in crops.items()} == {"large": 3}


@pytest.mark.parametrize("count", [0, 1])
def test_paws_refuses_a_single_large_crop(count):
  message = rf"views\.large\.count is {count}: .* at least 2"
  with pytest.raises(ValueError, match=message):
    toy_method.create().views(_section(large=count))


@pytest.mark.parametrize("name", ["paws", "simclr"])
def test_crops_that_a_method_would_leave_out_are_refused(name):
  section = _section(small=0, strong=1)
  message = rf"views\.strong\.count is 1 but .*'{name}', which cuts large and"
  with pytest.raises(ValueError, match=message):
    toy_method.create(name=name).views(section)
  # Supports may have crops of their own.
  toy_method.create(name=name).views(_section(small=0, support=1))


def test_supervised_takes_no_crops_of_unlabelled_images():
  assert toy_method.create(name="supervised").views(_section()) == {}


def test_unknown_methods_are_refused():
  known = "paws, ropaws, simclr, suncet, supervised"
  with pytest.raises(
    ValueError, match=rf"method\.name is 'nonesuch'; known are {known}"
  ):
    toy_method.create(name="nonesuch")


def test_an_unknown_field_is_refused_and_a_missing_one_has_its_default():
  with pytest.raises(TypeError, match=r"method\.queue is no field of method p"):
    toy_method.create(queue=1)
  created = methods.create({"name": "paws"}, encoder=None, label_smoothing=0.0)
  assert created.config == config_lib.Recipe().method


# --- PAWS --------------------------------------------------------------------


def _by_hand(method, weights, views):
  """PAWS from its parts: two passes, embeddings view by view, `paws_loss`."""
  params, state = weights

  def encode(images, state):
    (h, z), state = method.encoder.apply(
      {"params": params, "batch_stats": state},
      images,
      train=True,
      mutable=["batch_stats"],
    )
    return h, z, state["batch_stats"]

  num_large = views.crops["large"].shape[1]
  supports = [views.support[:, v] for v in range(views.support.shape[1])]
  large = [views.crops["large"][:, v] for v in range(num_large)]
  h, z, state = encode(jnp.concatenate(supports + large), state)
  num_supports = len(views.support) * len(supports)
  h_support, z_support = h[:num_supports], z[:num_supports]
  h, z = h[num_supports:], z[num_supports:]
  if num_large == 2:
    first, second = jnp.split(h, 2)
    h = jnp.concatenate([second, first])
  num_small = 0
  if "small" in views.crops:
    num_small = views.crops["small"].shape[1]
    small = [views.crops["small"][:, v] for v in range(num_small)]
    _, z_small, state = encode(jnp.concatenate(small), state)
    z = jnp.concatenate([z, z_small])
  rows = losses.label_rows(
    jnp.tile(views.support_labels, len(supports)),
    views.class_ids,
    smoothing=method.label_smoothing,
  )
  terms = losses.paws_loss(
    z,
    z_support,
    rows,
    h,
    h_support,
    num_small_crops=num_small,
    num_large_crops=num_large,
    temperature=method.config.temperature,
    sharpen_temperature=method.config.sharpen_temperature,
    me_max=method.config.me_max,
  )
  loss = sum(terms)
  if method.config.entropy_loss_weight:
    probs = losses.soft_nearest_neighbours(
      z, z_support, rows, temperature=method.config.temperature
    )
    entropy = -jnp.mean(losses.negative_entropy(probs))
    loss += method.config.entropy_loss_weight * entropy
  if method.config.support_loss_weight:
    loss += method.config.support_loss_weight * losses.suncet_loss(
      z_support, rows, temperature=method.config.temperature
    )
  return loss, (terms, state)


@pytest.mark.parametrize(
  ("crops", "fields"),
  [
    pytest.param({}, {}, id="small"),
    pytest.param(
      {"num_small": 0},
      {"prediction": False, "me_max": False},
      id="no_small_no_head_no_me_max",
      marks=pytest.mark.slow,
    ),
    pytest.param(
      {"num_small": 2},
      {"prediction": False, "label_smoothing": 0.0},
      id="no_head_hard_labels",
      marks=pytest.mark.slow,
    ),
    pytest.param(
      {"num_large": 3},
      {"support_loss_weight": 0.5, "entropy_loss_weight": 0.25},
      id="three_and_more_losses",
      marks=pytest.mark.slow,
    ),
  ],
)
def test_paws_is_the_loss_of_its_embeddings(crops, fields):
  method = toy_method.create(**fields)
  views = toy_method.make_views(**crops)
  result = toy_method.evaluate(method, views)
  with jax.enable_x64(True):
    by_hand = functools.partial(_by_hand, method)
    (loss, (terms, state)), grads = jax.jit(
      jax.value_and_grad(
        lambda params, state, views: by_hand((params, state), views),
        has_aux=True,
      )
    )(*toy_method.init(method, views), views)
  toy_method.assert_same(result["loss"], loss)
  toy_method.assert_same(result["metrics"]["cross_entropy"], terms[0])
  toy_method.assert_same(result["batch_stats"], state)
  toy_method.assert_same(result["grads"], grads)


def test_metrics_are_in_their_ranges():
  result = _reference()
  metrics = result["metrics"]
  assert set(metrics) == {
    "loss",
    "cross_entropy",
    "me_max_kl",
    "target_confidence",
    "nt_xent",
    "suncet",
    "view_agreement",
    "max_similarity",
    "classes_used",
    "feature_rank",
  }
  assert set(toy_method.create().shown_losses) <= set(metrics)
  assert metrics["loss"] == result["loss"]
  assert metrics["cross_entropy"] > 0
  assert 0 <= metrics["me_max_kl"] <= np.log(toy_method.NUM_CLASSES)
  assert 1 / toy_method.NUM_CLASSES <= metrics["target_confidence"] <= 1
  # KL to the uniform distribution: log C above the regulariser.
  regularizer = metrics["me_max_kl"] - np.log(toy_method.NUM_CLASSES)
  toy_method.assert_same(
    metrics["loss"], metrics["cross_entropy"] + regularizer
  )


def test_without_me_max_the_loss_is_the_cross_entropy_and_kl_is_reported():
  result = toy_method.evaluate(
    toy_method.create(me_max=False), toy_method.make_views()
  )
  metrics = result["metrics"]
  assert metrics["loss"] == metrics["cross_entropy"]
  toy_method.assert_same(
    metrics["me_max_kl"], _reference()["metrics"]["me_max_kl"]
  )
  differs = jax.tree.map(
    lambda a, b: np.abs(a - b).max() > 1e-6,
    result["grads"],
    _reference()["grads"],
  )
  assert any(jax.tree.leaves(differs))


def test_a_prior_moves_the_mean_prediction_and_is_what_kl_is_from():
  views = toy_method.make_views()
  counts = (9, 9, 9, 9, 9, 1, 2, 5)
  result = toy_method.measure(
    toy_method.create(prior="labels", class_counts=counts), views
  )
  uniform = _reference()["metrics"]
  assert result["cross_entropy"] == pytest.approx(
    uniform["cross_entropy"], rel=1e-12
  )
  # The classes of the step, 5 to 7, as often as their labels: 1/8, 2/8, 5/8.
  # With KL(p̄ ‖ prior) - KL(p̄ ‖ uniform) = -Σ p̄ log(3 prior).
  given = (0.1,) * 5 + (1 / 16, 1 / 8, 5 / 16)
  same = toy_method.measure(
    toy_method.create(prior="given", prior_probs=given), views
  )
  toy_method.assert_same(same, result)
  difference = result["me_max_kl"] - uniform["me_max_kl"]
  log_ratios = -np.log(3 * np.array([1, 2, 5]) / 8)
  assert log_ratios.min() <= difference <= log_ratios.max()
  assert abs(difference) > 1e-3
  assert result["loss"] - uniform["loss"] == pytest.approx(difference)


def test_health_metrics_change_no_gradient_and_can_be_left_out():
  result = toy_method.evaluate(
    toy_method.create(health_metrics=False), toy_method.make_views()
  )
  names = {"loss", "cross_entropy", "me_max_kl", "target_confidence"}
  assert set(result["metrics"]) == names
  expected = _reference()
  toy_method.assert_same(result["grads"], expected["grads"])
  toy_method.assert_same(
    result["metrics"], {name: expected["metrics"][name] for name in names}
  )


def test_order_of_supports_and_columns_does_not_matter():
  views = toy_method.make_views()
  order = np.array([4, 0, 5, 1, 3, 2])
  moved = views._replace(
    support=views.support[order],
    support_labels=views.support_labels[order],
    class_ids=views.class_ids[::-1],
  )
  toy_method.assert_same(
    toy_method.evaluate(toy_method.create(), moved), _reference()
  )


@pytest.mark.parametrize(
  "remat", ["dots", pytest.param("all", marks=pytest.mark.slow)]
)
def test_recomputing_activations_changes_nothing(remat):
  toy_method.assert_same(
    toy_method.evaluate(
      toy_method.create(remat=remat), toy_method.make_views()
    ),
    _reference(),
  )


# --- Supervised --------------------------------------------------------------


def test_supervised_is_the_suncet_loss_of_the_supports():
  method = toy_method.create(name="supervised")
  views = toy_method.without_unlabelled(toy_method.make_views())
  result = _reference("supervised")
  with jax.enable_x64(True):
    params, state = toy_method.init(method, views)
    (_, z), _ = method.encoder.apply(
      {"params": params, "batch_stats": state},
      jnp.concatenate([views.support[:, 0], views.support[:, 1]]),
      train=True,
      mutable=["batch_stats"],
    )
    rows = losses.label_rows(
      jnp.tile(views.support_labels, 2),
      views.class_ids,
      smoothing=toy_method.SMOOTHING,
    )
    expected = losses.suncet_loss(z, rows, temperature=0.2)
  toy_method.assert_same(result["loss"], expected)
  assert set(result["metrics"]) == {"loss", "cross_entropy"}
  supervised = toy_method.create(name="supervised")
  assert supervised.shown_losses == ("cross_entropy",)
  assert result["metrics"]["cross_entropy"] == result["loss"] > 0


def test_label_smoothing_reaches_the_labels():
  views = toy_method.without_unlabelled(toy_method.make_views())
  hard = toy_method.measure(
    toy_method.create(name="supervised", label_smoothing=0.0), views
  )
  assert abs(hard["loss"] - _reference("supervised")["loss"]) > 1e-3


# --- A real encoder ----------------------------------------------------------


@pytest.mark.slow
def test_a_resnet_with_small_crops_trains_the_same_on_four_devices():
  def method(axis_name):
    encoder = models.create(
      {
        "name": "resnet_tiny",
        "width": 1,
        "projection_hidden_dim": 0,
        "output_dim": 8,
        "prediction_head": True,
        "zero_init_residual": False,
        "bn_momentum": 0.9,
        "final_bn_momentum": 0.9,
        "freeze_bn": False,
        "init_from": "",
        "dtype": "float32",
      },
      axis_name=axis_name,
      dtype=jnp.float64,
    )
    # Two supports a class: each has another one to vote for it.
    method = toy_method.create(axis_name=axis_name, support_loss_weight=0.5)
    return dataclasses.replace(method, encoder=encoder)

  # Six supports on four devices: the last one holds nothing but padding.
  views = toy_method.padded(toy_method.make_views(), 8)
  one = toy_method.evaluate(method(None), views)
  four = toy_method.evaluate(method(mesh.AXES), views, num_devices=4)
  toy_method.assert_same(four, one, atol=1e-10)
