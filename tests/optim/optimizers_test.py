"""Optimizers: golden numbers, masks by rank, refusals.

The golden numbers may change only if tests/golden is made anew.
"""

import functools
import json

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from paws_jax import config as config_lib
from paws_jax import models
from paws_jax import optim
from tests import golden_reference

pytestmark = pytest.mark.unoptimized

SECTION = {
  "name": "lars",
  "start_lr": 0.1,
  "peak_lr": 0.4,
  "final_lr": 0.02,
  "warmup_epochs": 1.5,
  "weight_decay": 1e-2,
  "momentum": 0.9,
  "b2": 0.999,
  "nesterov": False,
  "trust_coefficient": 1e-3,
}
ENCODERS = json.loads(
  (golden_reference.DIRECTORY / "param_lists.json").read_text()
)

# --- LARS --------------------------------------------------------------------


@functools.cache
def _lars_arrays():
  with np.load(golden_reference.DIRECTORY / "lars_sgd.npz") as file:
    return dict(file)


def _lars_run(run, config):
  """Yields (parameters, optimizer state, learning rate) after each step."""
  arrays = _lars_arrays()
  names = config["adapted"] + config["excluded"]
  schedule = optim.warmup_cosine(
    start_lr=config["start_lr"],
    peak_lr=config["lr"],
    final_lr=config["final_lr"],
    warmup_steps=config["warmup"] * config["ipe"],
    total_steps=config["epochs"] * config["ipe"],
  )
  optimizer = optim.lars(
    schedule,
    weight_decay=config["wd"],
    momentum=config["momentum"],
    nesterov=config["nesterov"],
    trust_coefficient=config["trust_coefficient"],
    # The reference's exclusion goes by name and misses downsample.1.weight.
    mask={name: name in config["adapted"] for name in names},
  )
  params = {n: jnp.asarray(arrays[f"init.{n}"], float) for n in names}
  state = optimizer.init(params)

  @jax.jit
  def step(params, state, grads):
    updates, state = optimizer.update(grads, state, params)
    return optax.apply_updates(params, updates), state

  for t in range(config["steps"]):
    grads = {n: jnp.asarray(arrays[f"grad.{t}.{n}"], float) for n in names}
    params, state = step(params, state, grads)
    yield params, state, schedule(t)


@pytest.mark.parametrize(
  "run",
  ["wd1e-6_plain", "wd1e-6_nesterov", "wd1e-4_plain", "wd1e-4_nesterov"],
)
def test_lars_equals_the_reference_after_every_step(run):
  arrays = _lars_arrays()
  config = json.loads(str(arrays[f"{run}/config"]))
  with jax.enable_x64(True):
    steps = list(_lars_run(run, config))
  assert len(steps) == 6
  for t, (params, _, learning_rate) in enumerate(steps):
    np.testing.assert_allclose(learning_rate, arrays[f"{run}/lr"][t], rtol=1e-9)
    for name, value in params.items():
      _assert_close(value, arrays[f"{run}/param.{t}.{name}_f64"], name)
  momentum = optax.tree_utils.tree_get(steps[-1][1], "trace")
  assert set(momentum) == set(config["adapted"] + config["excluded"])
  for name, value in momentum.items():
    _assert_close(value, arrays[f"{run}/momentum.{name}_f64"], name)


def _assert_close(actual, expected, name):
  assert actual.dtype == np.float64
  np.testing.assert_allclose(
    actual, expected, rtol=0, atol=1e-9 * np.abs(expected).max(), err_msg=name
  )


def test_lars_moves_a_kernel_by_the_trust_coefficient_times_its_norm():
  weights = {"kernel": jnp.full((3, 4), 2.0)}
  for scale in (1e-3, 1.0, 1e3):
    grads = {"kernel": jnp.full((3, 4), scale)}
    updates = _first_update(
      optim.lars(
        1.0,
        weight_decay=0.0,
        momentum=0.9,
        nesterov=False,
        trust_coefficient=1e-3,
      ),
      grads,
      weights,
    )
    np.testing.assert_allclose(updates["kernel"], -2e-3, rtol=1e-4)


def _first_update(optimizer, grads, params):
  updates, _ = jax.jit(optimizer.update)(grads, optimizer.init(params), params)
  return updates


# --- Which parameters --------------------------------------------------------


def _encoder_params(case):
  name, _, widening = case["model_name"].partition("w")
  if name == "":  # wide_resnet28w2 begins with the separator.
    name, widening = "wide_resnet28", "2"
  encoder = models.create(
    {
      "name": name,
      "width": int(widening or 1),
      "projection_hidden_dim": 0,
      "output_dim": case["output_dim"],
      "prediction_head": case["use_pred"],
      "zero_init_residual": False,
      "bn_momentum": 0.9,
      "final_bn_momentum": 0.9,
      "freeze_bn": False,
      "init_from": "",
      "dtype": "float32",
    }
  )
  return jax.eval_shape(
    lambda key: encoder.init(key, jnp.zeros((1, 32, 32, 3)), train=False),
    jax.random.key(0),
  )["params"]


@pytest.mark.parametrize("name", ["resnet50_imgnt", "wide_resnet28w2_cifar"])
def test_kernels_are_adapted_and_nothing_else(name):
  case = ENCODERS[name]
  params = _encoder_params(case)
  leaves = jax.tree_util.tree_leaves_with_path(params)
  marks = jax.tree.leaves(optim.is_kernel(params))
  adapted = 0
  for (path, leaf), mark in zip(leaves, marks, strict=True):
    assert mark == (path[-1].key == "kernel"), jax.tree_util.keystr(path)
    adapted += leaf.size * mark
  # The reference goes by name ("bn", "bias") and so adapts the BatchNorm
  # scales of down-sampling shortcuts too. By kind they are left out, like all
  # other scales.
  shapes = {tensor: shape for tensor, shape, _ in case["tensors"]}
  scales = sum(np.prod(shapes[n]) for n in case["lars_adapted_1d"])
  assert scales == (3840 if name == "resnet50_imgnt" else 0)
  assert adapted == case["n_lars_adapted"] - scales
  total = sum(leaf.size for _, leaf in leaves)
  assert total - adapted == case["n_lars_excluded"] + scales


# --- From a recipe -----------------------------------------------------------


def _create(*, total_steps=20, **fields):
  return optim.create(
    SECTION | fields, steps_per_epoch=4, total_steps=total_steps
  )


def _params_and_grads():
  rng = np.random.default_rng(0)
  params, grads = (
    {
      "kernel": jnp.asarray(rng.normal(size=(3, 4)), jnp.float32),
      "bias": jnp.asarray(rng.normal(size=4), jnp.float32),
      "scale": jnp.asarray(rng.normal(size=4), jnp.float32),
    }
    for _ in range(2)
  )
  return params, grads


def test_create_turns_warmup_epochs_into_steps():
  _, schedule = _create()
  # 1.5 epochs of 4 steps.
  for step, expected in ((0, 0.1), (3, 0.25), (6, 0.4), (20, 0.02)):
    np.testing.assert_allclose(schedule(step), expected, rtol=1e-5)


@pytest.mark.parametrize("name", optim.OPTIMIZERS)
@pytest.mark.parametrize("nesterov", [False, True])
def test_every_optimizer_runs_jitted_and_follows_the_schedule(name, nesterov):
  optimizer, schedule = _create(name=name, nesterov=nesterov)
  params, grads = _params_and_grads()
  updates = _first_update(optimizer, grads, params)
  slow, _ = _create(name=name, nesterov=nesterov, start_lr=0.05)
  half = _first_update(slow, grads, params)
  assert schedule(0) == np.float32(0.1)
  jax.tree.map(
    lambda a, b: np.testing.assert_allclose(a, 2 * b, rtol=1e-4), updates, half
  )


@pytest.mark.parametrize("name", optim.OPTIMIZERS)
def test_only_kernels_decay(name):
  params, grads = _params_and_grads()
  with_decay = _first_update(_create(name=name)[0], grads, params)
  without = _first_update(
    _create(name=name, weight_decay=0.0)[0], grads, params
  )
  for leaf in ("bias", "scale"):
    np.testing.assert_array_equal(with_decay[leaf], without[leaf])
  assert np.abs(with_decay["kernel"] - without["kernel"]).max() > 1e-8


@pytest.mark.parametrize("nesterov", [False, True])
def test_sgd_keeps_old_gradients_at_the_rate_they_were_taken_with(nesterov):
  optimizer, schedule = _create(name="sgd", nesterov=nesterov, weight_decay=0.0)
  params, grads = _params_and_grads()
  state = optimizer.init(params)
  update = jax.jit(optimizer.update)
  buffer = 0
  for t in range(3):
    updates, state = update(grads, state, params)
    step = -schedule(t) * grads["kernel"]
    buffer = 0.9 * buffer + step
    expected = step + 0.9 * buffer if nesterov else buffer
    np.testing.assert_allclose(updates["kernel"], expected, rtol=1e-5)


def test_sgd_adds_the_decay_to_the_gradient():
  optimizer, _ = _create(name="sgd")
  params, grads = _params_and_grads()
  updates = _first_update(optimizer, grads, params)
  expected = -0.1 * (grads["kernel"] + 1e-2 * params["kernel"])
  np.testing.assert_allclose(updates["kernel"], expected, rtol=1e-5)
  np.testing.assert_allclose(updates["bias"], -0.1 * grads["bias"], rtol=1e-5)


def test_adamw_decouples_the_decay():
  optimizer, _ = _create(name="adamw")
  params, grads = _params_and_grads()
  updates = _first_update(optimizer, grads, params)
  # The first step has the size of the learning rate, whatever the gradient.
  expected = -0.1 * (np.sign(grads["kernel"]) + 1e-2 * params["kernel"])
  np.testing.assert_allclose(updates["kernel"], expected, rtol=1e-4, atol=1e-6)
  expected = -0.1 * np.sign(grads["bias"])
  np.testing.assert_allclose(updates["bias"], expected, rtol=1e-4)


def test_trust_ratios_are_what_gradients_are_multiplied_by():
  rng = np.random.default_rng(0)
  shapes = {"a": (3, 4), "b": (4, 4), "c": (2, 2, 3), "d": (5, 5), "bias": (4,)}
  params = {k: jnp.asarray(rng.normal(size=v)) for k, v in shapes.items()}
  grads = {k: jnp.asarray(rng.normal(size=v)) for k, v in shapes.items()}
  # A bias counts for nothing, and a kernel without gradient as 1.
  grads["bias"] *= 1e9
  grads["d"] *= 0
  found = optim.observer(SECTION | {"weight_decay": 0.0})(grads, params)
  scale = optim.scale_by_lars(
    weight_decay=0.0, trust_coefficient=SECTION["trust_coefficient"]
  )
  scaled, _ = scale.update(grads, scale.init(params), params)
  ratios = sorted(
    float(jnp.linalg.norm(scaled[k]) / jnp.linalg.norm(grads[k])) for k in "abc"
  )
  np.testing.assert_allclose(found["trust_ratio_min"], ratios[0], rtol=1e-5)
  middle = (ratios[1] + ratios[2]) / 2
  np.testing.assert_allclose(found["trust_ratio_median"], middle, rtol=1e-5)
  assert found["trust_ratio_max"] == 1


def test_trust_ratios_count_the_decay():
  params = {"kernel": jnp.full((2, 2), 3.0)}
  grads = {"kernel": jnp.full((2, 2), 1.0)}
  found = optim.observer(SECTION)(grads, params)
  # tc |w| / (|g| + wd |w|) = 1e-3 * 6 / (2 + 1e-2 * 6)
  for name in ("min", "median", "max"):
    np.testing.assert_allclose(
      found[f"trust_ratio_{name}"], 6e-3 / 2.06, rtol=1e-6
    )


@pytest.mark.parametrize("name", ["sgd", "adamw"])
def test_other_optimizers_have_no_trust_ratios(name):
  assert optim.observer(SECTION | {"name": name}) is None


def test_unknown_optimizers_are_refused():
  with pytest.raises(
    ValueError, match=r"optim\.name is 'adam'; known are lars, sgd, adamw"
  ):
    _create(name="adam")


def test_an_unknown_field_is_refused_and_a_missing_one_has_its_default():
  with pytest.raises(
    TypeError,
    match=r"optim\.lr is no field of section optim; its fields are name,",
  ):
    _create(lr=0.1)
  section = {key: SECTION[key] for key in SECTION if key != "momentum"}
  for without in (section, config_lib.Optim(**section)):
    created, _ = optim.create(without, steps_per_epoch=4, total_steps=20)
    assert created.init({"w": jnp.ones(2)})


def test_create_refuses_a_warmup_longer_than_the_training():
  with pytest.raises(ValueError, match=r"warmup_steps = 6 .* total_steps = 5"):
    _create(total_steps=5)


# --- Forms of other methods --------------------------------------------------

FORMS = {
  "sgd": {"name": "sgd", "decayed": "all"},
  "sgd_nesterov": {"name": "sgd", "weight_decay": 0.0, "nesterov": True},
  "larc": {"name": "lars", "decayed": "all"},
  "byol_lars": {"name": "lars", "lars_norm": "decayed"},
}


@functools.cache
def _form_arrays():
  return golden_reference.load("ssl/ssl_optimisers")


def _with_rates(form, config, monkeypatch):
  """The optimizer of a form, with the learning rates of the golden file."""
  section = SECTION | {
    "weight_decay": config["wd"],
    "momentum": config["momentum"],
    "trust_coefficient": config["trust_coefficient"],
    "warmup_epochs": 0.0,
    "lr_in_momentum": False,
  }
  rates = jnp.asarray(config["lrs"])
  monkeypatch.setattr(
    optim.schedules, "warmup_cosine", lambda **_: lambda step: rates[step]
  )
  optimizer, _ = optim.create(
    section | form, steps_per_epoch=1, total_steps=len(rates)
  )
  return optimizer


def _steps(optimizer, arrays, names, params):
  """Yields the parameters after each step of a golden file."""
  state = optimizer.init(params)
  for step in range(6):
    grads = {
      name: jnp.asarray(arrays[f"grad.{step}.{name}"], float) for name in names
    }
    updates, state = optimizer.update(grads, state, params)
    params = optax.apply_updates(params, updates)
    yield step, params


def _initial(arrays):
  names = [key[5:] for key in arrays if key.startswith("init.")]
  params = {name: jnp.asarray(arrays[f"init.{name}"], float) for name in names}
  return names, params


@pytest.mark.parametrize("run", FORMS)
def test_forms_equal_those_of_the_references(run, monkeypatch):
  arrays, config = _form_arrays()
  with jax.enable_x64(True):
    names, params = _initial(arrays)
    optimizer = _with_rates(FORMS[run], config, monkeypatch)
    for step, after in _steps(optimizer, arrays, names, params):
      for name in names:
        expected = arrays[f"{run}/param.{step}.{name}_f64"]
        np.testing.assert_allclose(
          after[name], expected, rtol=1e-9, atol=1e-12, err_msg=name
        )


@pytest.mark.parametrize(
  "form", [FORMS["larc"], FORMS["sgd"], FORMS["byol_lars"]]
)
def test_a_delayed_parameter_starts_as_if_it_were_new(form, monkeypatch):
  arrays, config = _form_arrays()
  with jax.enable_x64(True):
    names, params = _initial(arrays)
    optimizer = optim.start_at(_with_rates(form, config, monkeypatch), 2)
    # The rates of the steps from the third on.
    monkeypatch.setattr(
      optim.schedules,
      "warmup_cosine",
      lambda **_: lambda step: jnp.asarray(config["lrs"])[step + 2],
    )
    late, _ = optim.create(
      SECTION
      | {
        "weight_decay": config["wd"],
        "momentum": config["momentum"],
        "warmup_epochs": 0.0,
        "lr_in_momentum": False,
      }
      | form,
      steps_per_epoch=1,
      total_steps=9,
    )
    state, expected = late.init(params), params
    for step, after in _steps(optimizer, arrays, names, params):
      if step >= 2:
        grads = {
          name: jnp.asarray(arrays[f"grad.{step}.{name}"], float)
          for name in names
        }
        updates, state = late.update(grads, state, expected)
        expected = optax.apply_updates(expected, updates)
      for name in names:
        np.testing.assert_allclose(
          after[name], expected[name], rtol=1e-12, err_msg=name
        )


def test_frozen_prototypes_of_swav_equal_the_reference(monkeypatch):
  arrays, config = _form_arrays()
  with jax.enable_x64(True):
    names, params = _initial(arrays)
    form = _with_rates(FORMS["larc"], config, monkeypatch)
    optimizer = optax.partition(
      {"default": form, "delayed": optim.start_at(form, 2)},
      {n: "delayed" if "prototypes" in n else "default" for n in names},
    )
    for step, after in _steps(optimizer, arrays, names, params):
      for name in names:
        np.testing.assert_allclose(
          after[name],
          arrays[f"larc_frozen/param.{step}.{name}_f64"],
          rtol=1e-9,
          atol=1e-12,
          err_msg=name,
        )
