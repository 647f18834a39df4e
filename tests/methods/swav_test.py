"""SwAV, alone and with SuNCEt: trajectories of the public code."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from paws_jax import losses
from paws_jax.methods import encoding
from paws_jax.methods import swav
from tests import golden_reference
from tests import golden_ssl
from tests import ssl_trajectory

pytestmark = pytest.mark.unoptimized

PREFIXES = {"trunk": "", "projection": "projection_head"}
# The gradient of a bias that a BatchNorm cancels is noise.
NOISE = ("projection_head.0.bias",)


def _start(name, arrays, config, x64, monkeypatch, **fields):
  encoder = ssl_trajectory.encoder(
    config, x64, projection={"hidden_dim": config["H"], "num_layers": 2}
  )
  method = ssl_trajectory.make(
    name,
    {
      "num_prototypes": config["K"],
      "temperature": config["temperature"],
      "epsilon": config["epsilon"],
      "num_iterations": config["iterations"],
      "freeze_steps": config["freeze"],
    }
    | fields,
    encoder,
    steps_per_epoch=config.get("steps_per_epoch", 1),
    batch_size=config["B"],
  )
  batch = _batch(arrays, 0, x64)
  params, stats = ssl_trajectory.initial(method, batch)
  prototypes = golden_reference.fill(
    "prototypes.weight", params.pop("prototypes").shape
  )
  params = ssl_trajectory.formula(params, PREFIXES)
  prototypes = losses.normalize(jnp.asarray(prototypes, float))
  run = ssl_trajectory.Run(
    monkeypatch,
    method,
    arrays,
    config,
    name="lars",
    trust_coefficient=config["trust_coefficient"],
  )
  params = {**params, "prototypes": prototypes}
  run.start(
    params,
    ssl_trajectory.formula(stats, PREFIXES),
    method.init_extra(jax.random.key(0), params, stats, method.facts),
  )
  return run


def _batch(arrays, step, x64):
  batch = ssl_trajectory.views(arrays, step, x64, names=("views", "small"))
  if "labelled.0" not in arrays:
    return batch
  dtype = jnp.float64 if x64 else jnp.float32
  images = golden_reference.normalise(arrays[f"labelled.{step}"], "cifar")
  labels = jnp.asarray(arrays["labels"])
  return batch._replace(
    support=jnp.asarray(images[:, None], dtype),
    support_labels=labels,
    class_ids=jnp.arange(arrays["label_rows"].shape[1]),
  )


def _assert_step(run, loss, arrays, step, x64):
  ssl_trajectory.assert_loss(loss, arrays, step, x64)
  params = {k: v for k, v in run.params.items() if k != "prototypes"}
  for variables in (params, run.batch_stats):
    ssl_trajectory.assert_checksums(
      variables, arrays, step, PREFIXES, x64, skip=NOISE
    )


def _assert_prototypes(run, arrays, x64):
  """The reference normalizes them at the start of the next step."""
  golden_ssl.assert_array(
    run.params["prototypes"],
    np.asarray(golden_ssl.unit(arrays["final.prototypes.weight_f64"])),
    x64,
  )


@ssl_trajectory.each_dtype
def test_six_steps_equal_those_of_the_reference(x64, monkeypatch):
  arrays, config = golden_ssl.load("ssl/trajectory_swav_tiny")
  with jax.enable_x64(x64):
    run = _start(
      "swav",
      arrays,
      config,
      x64,
      monkeypatch,
      queue_size=config["L"],
      queue_from_epochs=float(config["queue_epoch"]),
    )
    for step in range(config["steps"]):
      loss, _ = run.step(step, _batch(arrays, step, x64))
      _assert_step(run, loss, arrays, step, x64)
    _assert_prototypes(run, arrays, x64)
    # Ours is a ring; theirs has the newest rows first.
    queue = jnp.roll(run.extra["queue"], -(step + 1), axis=0)[::-1]
    queue = jnp.moveaxis(queue, 2, 0).reshape(2, config["L"], -1)
  golden_ssl.assert_near({"final.queue": queue}, arrays, x64)


@ssl_trajectory.each_dtype
def test_five_steps_with_labels_equal_the_composition(x64, monkeypatch):
  arrays, config = golden_ssl.load("ssl/trajectory_swav_suncet_tiny")
  # Their rows are rounded to float32.
  rows = np.asarray(arrays["label_rows"], np.float64)
  monkeypatch.setattr(
    encoding, "support_rows", lambda *_, **__: jnp.asarray(rows, float)
  )
  with jax.enable_x64(x64):
    run = _start(
      "swav_suncet",
      arrays,
      config,
      x64,
      monkeypatch,
      supervised_until=config["supervised_until"],
      support_temperature=config["suncet_temperature"],
      label_smoothing=config["smoothing"],
    )
    for step in range(config["steps"]):
      loss, _ = run.step(step, _batch(arrays, step, x64))
      _assert_step(run, loss, arrays, step, x64)
    _assert_prototypes(run, arrays, x64)


def test_the_shares_of_prototypes_become_the_share_that_is_used():
  metrics = swav.finished(
    {"loss": jnp.ones(()), "prototype_shares": jnp.array([0.5, 0.0, 0.5, 0.0])}
  )
  assert metrics == {"loss": 1, "prototypes_used": 0.5}


@pytest.mark.parametrize(("epochs", "first"), [(0.25, 4), (1e30, 2**31 - 1)])
def test_the_step_from_which_on_a_queue_is_full_has_32_bits(epochs, first):
  method = ssl_trajectory.make(
    "swav",
    {"num_prototypes": 5, "queue_from_epochs": epochs},
    None,
    steps_per_epoch=8,
    batch_size=4,
  )
  assert method._full_from(2) == first
  # Comparing a step with a larger number is an error of JAX.
  assert bool(jnp.int32(7) >= method._full_from(2)) is (first < 7)
