"""Methods: what they ask for, their losses on one device and on four."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn
from jax.sharding import PartitionSpec as P

from paws_jax import augment
from paws_jax import config as config_lib
from paws_jax import data
from paws_jax import losses
from paws_jax import methods
from paws_jax import models
from paws_jax import sharding
from paws_jax.models import heads
from paws_jax.models import norm

SECTION = config_lib.base().method.to_dict() | {
  "temperature": 0.2,
  "sharpen_temperature": 0.5,
}
NUM_CLASSES = 3
SMOOTHING = 0.1


class _Trunk(nn.Module):
  """One convolution: enough of an encoder, and quick to compile."""

  settings: norm.LayerSettings

  @nn.compact
  def __call__(self, images, *, train, mask=None):
    dtype = self.settings.dtype
    x = nn.Conv(6, (3, 3), dtype=dtype, param_dtype=dtype)(images)
    x = self.settings.batch_norm("bn")(x, train=train, mask=mask)
    return nn.relu(x).mean((1, 2))


def _encoder(*, prediction, axis_name):
  settings = norm.LayerSettings(
    momentum=0.9,
    dtype=jnp.float64,
    param_dtype=jnp.float64,
    axis_name=axis_name,
  )
  return models.Encoder(
    trunk=_Trunk(settings),
    projection=heads.ProjectionHead(8, 8, settings),
    prediction=heads.PredictionHead(8, settings) if prediction else None,
  )


def _method(*, prediction=True, axis_name=None, remat="none", **fields):
  smoothing = fields.pop("label_smoothing", SMOOTHING)
  return methods.create(
    SECTION | fields,
    encoder=_encoder(prediction=prediction, axis_name=axis_name),
    label_smoothing=smoothing,
    remat=remat,
    axis_name=axis_name,
  )


def _views(*, num_large=2, num_small=1, num_supports=6, seed=0):
  """Eight images and two views each of the supports, float64."""
  rng = np.random.default_rng(seed)

  def images(*shape):
    return rng.normal(size=(*shape, 3))

  return data.Views(
    large=images(8, num_large, 6, 6),
    small=images(8, num_small, 4, 4) if num_small else None,
    support=images(num_supports, 2, 6, 6),
    support_mask=None,
    support_labels=np.arange(num_supports) % NUM_CLASSES + 5,
    class_ids=np.arange(NUM_CLASSES) + 5,
  )


def _without_unlabelled(views):
  return views._replace(large=None, small=None)


def _padded(views, num_rows, seed=9):
  """Supports padded to `num_rows` with images that must not matter."""
  missing = num_rows - len(views.support)
  rng = np.random.default_rng(seed)
  padding = 3 + 5 * rng.normal(size=(missing, *views.support.shape[1:]))
  return views._replace(
    support=np.concatenate([views.support, padding]),
    support_mask=np.arange(num_rows) < len(views.support),
  )


@functools.partial(jax.jit, static_argnums=0)
def _init(method, views):
  """Weights in general position, running statistics too."""
  params, model_state = method.init(jax.random.key(0), views)
  leaves, tree = jax.tree.flatten((params, model_state))
  rng = np.random.default_rng(1)
  leaves = [x + 0.1 * np.abs(rng.normal(size=x.shape)) for x in leaves]
  return jax.tree.unflatten(tree, leaves)


def _loss(method, params, model_state, views, num_devices=1):
  local = functools.partial(method.loss, step=None, key=None)
  if num_devices > 1:
    whole, state = P(), method.state_specs
    local = sharding.shard_map(
      local,
      sharding.make_mesh(jax.devices()[:num_devices]),
      in_specs=(whole, state, data.batch_specs(views)),
      out_specs=(whole, (whole, state)),
    )
  return local(params, model_state, views)


@functools.partial(jax.jit, static_argnums=(0, 4))
def _loss_and_grads(method, params, model_state, views, num_devices):
  loss = jax.value_and_grad(functools.partial(_loss, method), has_aux=True)
  return loss(params, model_state, views, num_devices)


def _evaluate(method, views, *, num_devices=1):
  """Returns loss, metrics, updated statistics and gradients."""
  with jax.enable_x64(True):
    params, state = _init(_single_device(method), views)
    (value, (metrics, state)), grads = _loss_and_grads(
      method, params, state, views, num_devices
    )
  return jax.device_get(
    {
      "loss": value,
      "metrics": metrics,
      "model_state": state,
      "grads": grads,
    }
  )


def _single_device(method):
  """For initialisation, which knows nothing of devices."""
  return dataclasses.replace(method, axis_name=None)


def _assert_same(actual, expected, atol=1e-12):
  jax.tree.map(
    lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-9, atol=atol),
    actual,
    expected,
  )


@functools.cache
def _reference(name="paws"):
  """One device, no padding, nothing recomputed."""
  views = _views()
  if name == "supervised":
    views = _without_unlabelled(views)
  return _evaluate(_method(name=name), views)


# --- Views and refusals ------------------------------------------------------


def _views_config(**fields):
  return augment.ViewsConfig(**(config_lib.base().views.to_dict() | fields))


def test_paws_takes_all_crops_of_the_recipe():
  config = _views_config(num_large=2, num_small=6)
  assert _method().views(config) == config


def test_paws_refuses_a_single_large_crop():
  with pytest.raises(ValueError, match=r"views\.num_large is 1: .* at least 2"):
    _method().views(_views_config(num_large=1))


def test_supervised_takes_no_crops_of_unlabelled_images():
  config = _method(name="supervised").views(_views_config(large_size=24))
  assert (config.num_large, config.num_small) == (0, 0)
  assert config.large_size == 24


def test_unknown_methods_are_refused():
  with pytest.raises(
    ValueError, match=r"method\.name is 'simclr'; known are paws, supervised"
  ):
    _method(name="simclr")


def test_unknown_and_missing_fields_are_refused_by_name():
  with pytest.raises(TypeError, match="'queue'"):
    _method(queue=1)
  section = {key: SECTION[key] for key in SECTION if key != "temperature"}
  with pytest.raises(TypeError, match="'temperature'"):
    methods.create(section, encoder=None, label_smoothing=0.0)


# --- PAWS --------------------------------------------------------------------


def _by_hand(method, weights, views):
  """PAWS from its parts: two passes, embeddings view by view, `paws_loss`."""
  params, state = weights

  def encode(images, state):
    (h, z), state = method.encoder.apply(
      {"params": params, **state}, images, train=True, mutable=["batch_stats"]
    )
    return h, z, state

  num_large = views.large.shape[1]
  supports = [views.support[:, v] for v in range(views.support.shape[1])]
  large = [views.large[:, v] for v in range(num_large)]
  h, z, state = encode(jnp.concatenate(supports + large), state)
  num_supports = len(views.support) * len(supports)
  h_support, z_support = h[:num_supports], z[:num_supports]
  h, z = h[num_supports:], z[num_supports:]
  if num_large == 2:
    first, second = jnp.split(h, 2)
    h = jnp.concatenate([second, first])
  num_small = 0
  if views.small is not None:
    num_small = views.small.shape[1]
    small = [views.small[:, v] for v in range(num_small)]
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
  if method.config.support_loss_weight:
    loss += method.config.support_loss_weight * losses.suncet_loss(
      z_support, rows, temperature=method.config.temperature
    )
  return loss, (terms, state)


@pytest.mark.parametrize(
  ("crops", "fields"),
  [
    ({}, {}),
    ({"num_small": 0}, {"prediction": False, "me_max": False}),
    ({"num_small": 2}, {"prediction": False, "label_smoothing": 0.0}),
    ({"num_large": 3}, {"support_loss_weight": 0.5}),
  ],
  ids=[
    "small",
    "no_small_no_head_no_me_max",
    "no_head_hard_labels",
    "three_and_support_loss",
  ],
)
def test_paws_is_the_loss_of_its_embeddings(crops, fields):
  method = _method(**fields)
  views = _views(**crops)
  result = _evaluate(method, views)
  with jax.enable_x64(True):
    by_hand = functools.partial(_by_hand, method)
    (loss, (terms, state)), grads = jax.jit(
      jax.value_and_grad(
        lambda params, state, views: by_hand((params, state), views),
        has_aux=True,
      )
    )(*_init(method, views), views)
  _assert_same(result["loss"], loss)
  _assert_same(result["metrics"]["cross_entropy"], terms[0])
  _assert_same(result["model_state"], state)
  _assert_same(result["grads"], grads)


def test_metrics_are_in_their_ranges():
  result = _reference()
  metrics = result["metrics"]
  assert set(metrics) == {
    "loss",
    "cross_entropy",
    "me_max_kl",
    "target_confidence",
  }
  assert metrics["loss"] == result["loss"]
  assert metrics["cross_entropy"] > 0
  assert 0 <= metrics["me_max_kl"] <= np.log(NUM_CLASSES)
  assert 1 / NUM_CLASSES <= metrics["target_confidence"] <= 1
  # KL to the uniform distribution: log C above the regulariser.
  regularizer = metrics["me_max_kl"] - np.log(NUM_CLASSES)
  _assert_same(metrics["loss"], metrics["cross_entropy"] + regularizer)


def test_without_me_max_the_loss_is_the_cross_entropy_and_kl_is_reported():
  result = _evaluate(_method(me_max=False), _views())
  metrics = result["metrics"]
  assert metrics["loss"] == metrics["cross_entropy"]
  _assert_same(metrics["me_max_kl"], _reference()["metrics"]["me_max_kl"])
  differs = jax.tree.map(
    lambda a, b: np.abs(a - b).max() > 1e-6,
    result["grads"],
    _reference()["grads"],
  )
  assert any(jax.tree.leaves(differs))


def test_order_of_supports_and_columns_does_not_matter():
  views = _views()
  order = np.array([4, 0, 5, 1, 3, 2])
  moved = views._replace(
    support=views.support[order],
    support_labels=views.support_labels[order],
    class_ids=views.class_ids[::-1],
  )
  _assert_same(_evaluate(_method(), moved), _reference())


@pytest.mark.parametrize("remat", ["dots", "all"])
def test_recomputing_activations_changes_nothing(remat):
  _assert_same(_evaluate(_method(remat=remat), _views()), _reference())


# --- Devices and padding -----------------------------------------------------


def _without_unlabelled_if(name, views):
  return _without_unlabelled(views) if name == "supervised" else views


@pytest.mark.parametrize("name", ["paws", "supervised"])
def test_padding_of_supports_changes_nothing(name):
  views = _without_unlabelled_if(name, _padded(_views(), 8))
  _assert_same(_evaluate(_method(name=name), views), _reference(name))


@pytest.mark.parametrize("name", ["paws", "supervised"])
def test_four_devices_equal_one(name):
  # Six supports on four devices: the last one holds nothing but padding.
  views = _without_unlabelled_if(name, _padded(_views(), 8))
  method = _method(name=name, axis_name=sharding.AXES)
  result = _evaluate(method, views, num_devices=4)
  _assert_same(result, _reference(name))


# --- Supervised --------------------------------------------------------------


def test_supervised_is_the_suncet_loss_of_the_supports():
  method = _method(name="supervised")
  views = _without_unlabelled(_views())
  result = _reference("supervised")
  with jax.enable_x64(True):
    params, state = _init(method, views)
    (_, z), _ = method.encoder.apply(
      {"params": params, **state},
      jnp.concatenate([views.support[:, 0], views.support[:, 1]]),
      train=True,
      mutable=["batch_stats"],
    )
    rows = losses.label_rows(
      jnp.tile(views.support_labels, 2), views.class_ids, smoothing=SMOOTHING
    )
    expected = losses.suncet_loss(z, rows, temperature=0.2)
  _assert_same(result["loss"], expected)
  assert set(result["metrics"]) == {"loss", "cross_entropy"}
  assert result["metrics"]["cross_entropy"] == result["loss"] > 0


def test_label_smoothing_reaches_the_labels():
  views = _without_unlabelled(_views())
  hard = _evaluate(_method(name="supervised", label_smoothing=0.0), views)
  assert abs(hard["loss"] - _reference("supervised")["loss"]) > 1e-3


# --- A real encoder ----------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("name", ["paws", "supervised"])
def test_methods_train_a_resnet_on_four_devices(name):
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
        "dtype": "float32",
      },
      axis_name=axis_name,
      dtype=jnp.float64,
    )
    # Two supports a class: each has another one to vote for it.
    method = _method(name=name, axis_name=axis_name, support_loss_weight=0.5)
    return dataclasses.replace(method, encoder=encoder)

  views = _without_unlabelled_if(name, _padded(_views(), 8))
  one = _evaluate(method(None), views)
  four = _evaluate(method(sharding.AXES), views, num_devices=4)
  _assert_same(four, one, atol=1e-10)
