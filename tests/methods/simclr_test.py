"""SimCLR, with and without SuNCEt: losses, devices, what they ask for."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from paws_jax import config as config_lib
from paws_jax import losses
from paws_jax import methods
from paws_jax.parallel import mesh
from tests import toy_method

pytestmark = pytest.mark.unoptimized

# Keys that are gathered with a gradient, and without.
VARIANTS = pytest.mark.parametrize(
  ("name", "detached"),
  [("simclr", True), ("simclr", False), ("suncet", False)],
)


def _views():
  return toy_method.make_views(num_small=0)


def _create(name, **fields):
  weight = {"support_loss_weight": 0.5} if name == "suncet" else {}
  return toy_method.create(name=name, **(weight | fields))


@functools.cache
def _reference(name, **fields):
  return toy_method.evaluate(_create(name, **fields), _views())


def _by_hand(method, weights, views):
  """Loss and its terms from embeddings taken view by view."""
  params, state = weights
  labelled = method.config.name == "suncet"
  supports = [views.support[:, 0], views.support[:, 1]] if labelled else []
  large = views.crops["large"]
  images = jnp.concatenate([*supports, large[:, 0], large[:, 1]])
  (_, z), state = method.encoder.apply(
    {"params": params, "batch_stats": state},
    images,
    train=True,
    mutable=["batch_stats"],
  )
  state = state["batch_stats"]
  first, second = jnp.split(z[-16:], 2)
  loss = nt_xent = losses.nt_xent_loss(
    first,
    second,
    temperature=method.config.temperature,
    detached_keys=method.config.detached_keys,
  )
  if labelled:
    rows = losses.label_rows(
      jnp.tile(views.support_labels, 2),
      views.class_ids,
      smoothing=method.label_smoothing,
    )
    loss += 0.5 * losses.suncet_loss(
      z[:12], rows, temperature=method.config.temperature
    )
  return loss, (nt_xent, state)


@VARIANTS
def test_the_loss_is_that_of_its_embeddings(name, detached):
  method = _create(name, detached_keys=detached)
  result = _reference(name, detached_keys=detached)
  with jax.enable_x64(True):
    weights, views = toy_method.init(method, _views()), _views()
    (loss, (nt_xent, state)), grads = jax.jit(
      jax.value_and_grad(
        lambda params, state: _by_hand(method, (params, state), views),
        has_aux=True,
      )
    )(*weights)
  toy_method.assert_same(result["loss"], loss)
  toy_method.assert_same(result["metrics"]["nt_xent"], nt_xent)
  toy_method.assert_same(result["batch_stats"], state)
  toy_method.assert_same(result["grads"], grads)


@VARIANTS
def test_four_devices_equal_one(name, detached):
  views = toy_method.padded(_views(), 8)
  fields = {"detached_keys": detached}
  method = _create(name, axis_name=mesh.AXES, **fields)
  result = toy_method.evaluate(method, views, num_devices=4)
  toy_method.assert_same(result, _reference(name, **fields))


def test_the_order_of_supports_does_not_matter():
  views = _views()
  order = np.array([4, 0, 5, 1, 3, 2])
  moved = views._replace(
    support=views.support[order],
    support_labels=views.support_labels[order],
    class_ids=views.class_ids[::-1],
  )
  result = toy_method.evaluate(_create("suncet"), moved)
  toy_method.assert_same(result, _reference("suncet", detached_keys=False))


def test_labels_play_no_part_in_simclr():
  views = _views()
  other = views._replace(support=1 + 3 * views.support)
  result = toy_method.evaluate(_create("simclr", detached_keys=True), other)
  toy_method.assert_same(result, _reference("simclr", detached_keys=True))


@pytest.mark.parametrize(
  "until", [{"supervised_until": 7}, {"supervised_until_epochs": 2.4}]
)
def test_the_labels_term_ends_at_its_step(until):
  method = methods.in_steps(_create("suncet", **until), steps_per_epoch=3)
  last, after = (
    toy_method.evaluate(method, _views(), step=step) for step in (6, 7)
  )
  toy_method.assert_same(last, _reference("suncet", detached_keys=False))
  assert after["loss"] == pytest.approx(after["metrics"]["nt_xent"])
  # It is still reported.
  assert after["metrics"]["suncet"] == pytest.approx(last["metrics"]["suncet"])
  assert last["loss"] > after["loss"] + 0.1


def test_an_end_in_epochs_is_one_in_steps():
  def end(**fields):
    method = methods.in_steps(_create("suncet", **fields), steps_per_epoch=10)
    assert not method.config.supervised_until_epochs
    return method.config.supervised_until

  assert end(supervised_until_epochs=2.5) == 25
  assert end(supervised_until=7) == 7
  assert end() == 0
  # 0 would be: to the end.
  assert end(supervised_until_epochs=0.01) == 1
  other = object()
  assert methods.in_steps(other, steps_per_epoch=10) is other


def test_metrics():
  metrics = _reference("suncet", detached_keys=False)["metrics"]
  assert set(metrics) == {"loss", "nt_xent", "suncet", "feature_rank"}
  assert set(_create("suncet").shown_losses) == {"nt_xent", "suncet"}
  assert 1 < metrics["feature_rank"] <= 8
  quiet = toy_method.measure(_create("simclr", health_metrics=False), _views())
  assert set(quiet) == {"loss", "nt_xent"}
  assert _create("simclr").shown_losses == ("nt_xent",)


@pytest.mark.parametrize(
  ("crops", "message"),
  [
    (
      {"large.count": 3},
      r"views\.large\.count is 3 .*'simclr'.* set it to 2",
    ),
    ({"small.count": 6}, r"views\.small\.count is 6 .* set it to 0"),
  ],
)
def test_other_crops_are_refused(crops, message):
  section = config_lib.base().views
  section.small.count = 0
  taken = config_lib.build_views(section)
  assert _create("simclr").views(taken) == taken.crops
  section.update_from_flattened_dict(crops)
  with pytest.raises(ValueError, match=message):
    _create("simclr").views(config_lib.build_views(section))
