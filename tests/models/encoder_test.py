"""Whole encoders: several devices, dtypes, features, configuration."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import PartitionSpec as P

from paws_jax import config
from paws_jax import models

pytestmark = pytest.mark.unoptimized

SECTION = {
  "name": "wide_resnet10",
  "width": 1,
  "projection_hidden_dim": 0,
  "output_dim": 16,
  "prediction_head": True,
  "zero_init_residual": False,
  "bn_momentum": 0.9,
  "final_bn_momentum": 0.01,
  "freeze_bn": False,
  "init_from": "",
  "dtype": "float32",
}


def _from_section(dtype, **fields):
  return models.create(SECTION | fields, dtype=dtype)


@pytest.mark.slow
@pytest.mark.parametrize("masked", [False, True])
def test_eight_devices_equal_one(masked):
  rng = np.random.default_rng(0)
  images = rng.normal(size=(16, 8, 8, 3))
  mask = np.arange(16) % 5 != 3
  mask[2:4] = False  # All that the second device holds.
  mask |= not masked
  weights = rng.normal(size=(16, 16)) * mask[:, None]
  mesh = jax.make_mesh(
    (8,), ("data",), axis_types=(jax.sharding.AxisType.Auto,)
  )

  def value_and_grad(encoder, variables, wrap):
    def forward(variables, images, mask):
      return encoder.apply(
        variables,
        images,
        train=True,
        mask=mask if masked else None,
        mutable=["batch_stats"],
      )

    def loss(params, stats, images, mask):
      (h, z), updates = wrap(forward)(
        {"params": params, "batch_stats": stats}, images, mask
      )
      return jnp.sum(jnp.sin(h + z) * weights), (
        jnp.where(mask[:, None], z, 0),
        updates["batch_stats"],
      )

    return jax.jit(jax.value_and_grad(loss, has_aux=True))(
      variables["params"], variables["batch_stats"], images, mask
    )

  with jax.enable_x64(True):
    alone = _from_section(jnp.float64)
    variables = jax.jit(
      lambda key: alone.init(key, jnp.asarray(images), train=False)
    )(jax.random.key(0))
    expected = value_and_grad(alone, variables, lambda forward: forward)
    actual = value_and_grad(
      models.create(SECTION, axis_name="data", dtype=jnp.float64),
      variables,
      lambda forward: jax.shard_map(
        forward,
        mesh=mesh,
        in_specs=(P(), P("data"), P("data")),
        out_specs=((P("data"), P("data")), P()),
      ),
    )
  # Conv biases before a BatchNorm have rounding noise for a gradient.
  jax.tree.map(
    lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-10, atol=1e-11),
    actual,
    expected,
  )


def test_bfloat16_everywhere_between_images_and_embeddings():
  encoder = models.create(SECTION | {"name": "resnet_tiny"}, dtype="bfloat16")
  images = jax.ShapeDtypeStruct((2, 32, 32, 3), jnp.float32)

  def apply(key, images):
    variables = encoder.init(key, images, train=False)
    return variables, encoder.apply(
      variables, images, train=True, capture_intermediates=True, mutable=True
    )

  variables, ((h, z), state) = jax.eval_shape(apply, jax.random.key(0), images)
  assert h.dtype == z.dtype == jnp.float32
  assert {v.dtype for v in jax.tree.leaves(variables)} == {np.dtype("float32")}
  maps = [v for v in jax.tree.leaves(state["intermediates"]) if v.ndim == 4]
  assert len(maps) > 20
  assert {v.dtype for v in maps} == {jnp.dtype("bfloat16")}


def test_features_stop_at_the_trunk_or_in_the_projection_head():
  encoder = _from_section(jnp.float32, projection_hidden_dim=24)
  rng = np.random.default_rng(0)
  images = rng.normal(size=(3, 8, 8, 3)).astype(np.float32)
  template = jax.eval_shape(
    lambda key: encoder.init(key, images, train=False), jax.random.key(0)
  )
  variables = jax.tree.map(
    lambda leaf: rng.uniform(-0.1, 0.2, leaf.shape).astype(np.float32), template
  )
  variables["batch_stats"] = jax.tree.map(
    np.ones_like, variables["batch_stats"]
  )

  @jax.jit
  def outputs(variables, images):
    apply = functools.partial(encoder.apply, variables, images, train=False)
    return apply()[0], *(
      apply(num_projection_layers=layers, method="features")
      for layers in (0, 1, 2)
    )

  h, *features = outputs(variables, images)
  assert [f.shape for f in features] == [(3, 64), (3, 24), (3, 24)]
  params = variables["params"]["projection"]
  fc1, bn1, fc3 = params["fc1"], params["bn1"], params["fc3"]
  hidden = features[0] @ fc1["kernel"] + fc1["bias"][None]
  hidden = (hidden - 1) / (1 + 1e-5) ** 0.5 * bn1["scale"][None]
  hidden = hidden + bn1["bias"][None]
  np.testing.assert_allclose(
    features[1], np.maximum(hidden, 0), rtol=1e-5, atol=1e-6
  )
  last = features[2] @ fc3["kernel"] + fc3["bias"][None]
  np.testing.assert_allclose(h, last, rtol=1e-5, atol=1e-6)


def test_without_prediction_head_z_is_h():
  encoder = _from_section(jnp.float32, prediction_head=False)
  images = jnp.ones((2, 8, 8, 3))
  variables = jax.eval_shape(
    lambda key: encoder.init(key, images, train=False), jax.random.key(0)
  )
  assert set(variables["params"]) == {"trunk", "projection"}


def test_frozen_batch_norm_trains_on_running_statistics_and_leaves_them():
  rng = np.random.default_rng(0)
  images = rng.normal(size=(4, 8, 8, 3)).astype(np.float32)
  frozen = _from_section(jnp.float32, name="small_resnet", freeze_bn=True)
  template = jax.eval_shape(
    lambda key: frozen.init(key, images, train=True), jax.random.key(0)
  )
  variables = jax.tree.map(
    lambda leaf: rng.uniform(0.1, 0.3, leaf.shape).astype(np.float32), template
  )

  @functools.partial(jax.jit, static_argnums=0, static_argnames="train")
  def outputs(encoder, images, train):
    embeddings, updates = encoder.apply(
      variables, images, train=train, mutable=["batch_stats"]
    )
    hidden, _ = encoder.apply(
      variables,
      images,
      train=train,
      num_projection_layers=1,
      method="features",
      mutable=["batch_stats"],
    )
    return (*embeddings, hidden), updates["batch_stats"]

  trained, stats = outputs(frozen, images, train=True)
  expected, _ = outputs(frozen, images, train=False)
  jax.tree.map(np.testing.assert_array_equal, trained, expected)
  jax.tree.map(np.testing.assert_array_equal, stats, variables["batch_stats"])
  free = _from_section(jnp.float32, name="small_resnet")
  others, moved = outputs(free, images, train=True)
  for a, b in zip(others, trained, strict=True):
    assert np.max(np.abs(a - b)) > 0.01
  assert all(
    not np.array_equal(a, b)
    for a, b in zip(jax.tree.leaves(moved), jax.tree.leaves(stats), strict=True)
  )


def test_images_must_have_four_axes():
  with pytest.raises(ValueError, match=r"\(8, 8, 3\)"):
    _from_section(jnp.float32).init(
      jax.random.key(0), jnp.ones((8, 8, 3)), train=False
    )


def test_the_default_recipe_builds_and_auto_is_float32_on_cpu():
  encoder = models.create(config.base().model)
  assert encoder.trunk.settings.dtype == jnp.float32
  assert encoder.trunk.num_features == encoder.projection.hidden_dim == 2048
  assert encoder == models.create(config.base().model)
  assert hash(encoder) == hash(models.create(config.base().model))


@pytest.mark.parametrize(
  ("dtype", "param_dtype"),
  [("bfloat16", "float32"), (jnp.float64, "float64"), ("float32", "float32")],
)
def test_parameters_are_float32_or_float64(dtype, param_dtype):
  settings = models.create(SECTION, dtype=dtype).trunk.settings
  assert settings.dtype == jnp.dtype(dtype)
  assert settings.param_dtype == jnp.dtype(param_dtype)


def test_fields_reach_the_layers():
  encoder = models.create(
    SECTION | {"bn_momentum": 0.7, "width": 3, "projection_hidden_dim": 5},
    axis_name="data",
    group_axis_name="group",
  )
  settings = encoder.projection.settings
  assert settings == encoder.trunk.settings == encoder.prediction.settings
  assert settings.momentum == 0.7
  assert (settings.axis_name, settings.group_axis_name) == ("data", "group")
  assert encoder.trunk.final_momentum == 0.01
  assert encoder.trunk.num_features == 192
  assert encoder.projection.hidden_dim == 5
  zero = SECTION | {"name": "resnet_tiny", "zero_init_residual": True}
  assert models.create(zero).trunk.zero_init_residual


@pytest.mark.parametrize(
  ("field", "value"),
  [
    ("width", 0),
    ("width", 1.5),
    ("width", True),
    ("projection_hidden_dim", -1),
    ("output_dim", 3),
    ("prediction_head", 1),
    ("zero_init_residual", True),
    ("bn_momentum", 1.0),
    ("bn_momentum", -0.1),
    ("final_bn_momentum", float("nan")),
    ("freeze_bn", 1),
    ("init_from", None),
    ("dtype", "float16"),
  ],
)
def test_values_out_of_range_are_refused(field, value):
  with pytest.raises(ValueError, match=rf"^model\.{field} is {value!r}"):
    models.create(SECTION | {field: value})


def test_an_unknown_encoder_is_refused_with_the_list():
  with pytest.raises(ValueError, match=r"'resnet51'; known are resnet50"):
    models.create(SECTION | {"name": "resnet51"})


def test_an_unknown_field_is_named_and_a_missing_one_has_its_default():
  with pytest.raises(TypeError, match="widht"):
    models.create(SECTION | {"widht": 2})
  without = {k: v for k, v in SECTION.items() if k != "bn_momentum"}
  default = SECTION | {"bn_momentum": config.Model().bn_momentum}
  assert models.create(without) == models.create(default)
