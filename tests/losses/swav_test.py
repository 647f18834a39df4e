"""SwAV's loss and Sinkhorn: golden numbers of the public code, properties."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import PartitionSpec as P

from paws_jax import losses
from paws_jax.losses import swav
from paws_jax.parallel import mesh as mesh_lib
from tests import golden_reference
from tests import golden_ssl

pytestmark = pytest.mark.unoptimized

X64 = pytest.mark.parametrize("x64", [True, False], ids=["x64", "float32"])
SINKHORN = [
  name
  for name in golden_reference.names("ssl/swav_sinkhorn_*")
  if not name.endswith(("_w2", "_w4"))
]
LOSSES = golden_reference.names("ssl/swav_loss_*")


def _sinkhorn(config):
  return functools.partial(
    losses.sinkhorn,
    epsilon=config["epsilon"],
    num_iterations=config["iterations"],
  )


def _over_devices(function, num_devices, specs, out_specs):
  mesh = mesh_lib.make_mesh(jax.devices()[:num_devices])
  return jax.jit(
    mesh_lib.shard_map(function, mesh, in_specs=specs, out_specs=out_specs)
  )


@X64
@pytest.mark.parametrize("name", SINKHORN)
def test_assignments_equal_the_reference(name, x64):
  arrays, config = golden_ssl.load(f"ssl/{name}")
  with jax.enable_x64(x64):
    (scores,) = golden_ssl.floats(arrays, ("scores",), x64)
    assignments = jax.jit(_sinkhorn(config))(scores)
  golden_ssl.assert_near({"assignments": assignments}, arrays, x64)
  np.testing.assert_allclose(np.asarray(assignments).sum(axis=-1), 1, rtol=1e-5)


@X64
@pytest.mark.parametrize("num_devices", [2, 4])
def test_assignments_over_devices_equal_the_references_ranks(num_devices, x64):
  arrays, config = golden_ssl.load(f"ssl/swav_sinkhorn_w{num_devices}")
  with jax.enable_x64(x64):
    (scores,) = golden_ssl.floats(arrays, ("scores",), x64)
    rows = scores.reshape(-1, scores.shape[-1])
    assignments = _over_devices(
      functools.partial(_sinkhorn(config), axis_name=mesh_lib.AXES),
      num_devices,
      (mesh_lib.BATCH,),
      mesh_lib.BATCH,
    )(rows)
  golden_ssl.assert_near(
    {"assignments": assignments.reshape(scores.shape)}, arrays, x64
  )


def test_sinkhorn_does_not_depend_on_order_or_on_a_constant():
  rng = np.random.default_rng(0)
  scores = rng.uniform(-1, 1, size=(12, 7))
  samples, prototypes = rng.permutation(12), rng.permutation(7)
  with jax.enable_x64(True):
    expected = losses.sinkhorn(scores, epsilon=0.05, num_iterations=3)
    permuted = losses.sinkhorn(
      scores[samples][:, prototypes] + 3, epsilon=0.05, num_iterations=3
    )
  np.testing.assert_allclose(
    permuted, expected[samples][:, prototypes], rtol=1e-9
  )


@pytest.mark.parametrize("epsilon", [1e-3, 1e-2, 1.0, 100.0])
def test_sinkhorn_is_finite_in_float32_for_any_epsilon(epsilon):
  scores = jnp.asarray(
    np.random.default_rng(1).uniform(-1, 1, (16, 5)), jnp.float32
  )
  assignments = losses.sinkhorn(scores, epsilon=epsilon, num_iterations=3)
  np.testing.assert_allclose(np.asarray(assignments).sum(axis=-1), 1, rtol=1e-3)


def test_samples_that_do_not_take_part_change_nothing():
  scores = np.random.default_rng(2).uniform(-1, 1, size=(2, 9, 4))
  valid = jnp.arange(9) < 6
  with jax.enable_x64(True):
    some = losses.sinkhorn(scores, epsilon=0.1, num_iterations=3, valid=valid)
    alone = losses.sinkhorn(scores[:, :6], epsilon=0.1, num_iterations=3)
  np.testing.assert_allclose(np.asarray(some)[:, :6], alone, rtol=1e-12)


def _loss(config, **options):
  def loss(embeddings, prototypes, queue):
    return losses.swav_loss(
      embeddings,
      prototypes,
      num_crops=2 + config["M"],
      temperature=config["temperature"],
      epsilon=config["epsilon"],
      num_iterations=config["iterations"],
      queue=queue,
      assigned=config.get("assign", (0, 1)),
      **options,
    )

  return loss


@X64
@pytest.mark.parametrize("name", LOSSES)
def test_loss_and_gradients_equal_the_reference(name, x64):
  arrays, config = golden_ssl.load(f"ssl/{name}")
  # A queue whose last row is zero is being filled, and not used.
  used = "queue" in arrays and np.any(arrays["queue"][0, -1])
  with jax.enable_x64(x64):
    (embeddings,) = golden_ssl.floats(arrays, ("embeddings",), x64)
    prototypes = golden_ssl.unit(arrays["prototypes"]).astype(float)
    queue = jnp.asarray(arrays["queue"], float) if used else None
    value, grads = jax.jit(jax.value_and_grad(_loss(config), argnums=(0, 1)))(
      embeddings, prototypes, queue
    )
    scores = swav.crop_scores(embeddings, prototypes, num_crops=2 + config["M"])
  golden_ssl.assert_near(
    {
      "loss": value,
      "grad_embeddings": grads[0],
      "grad_prototypes": grads[1],
      "scores": scores.reshape(-1, scores.shape[-1]),
    },
    arrays,
    x64,
  )


def test_a_queue_that_is_not_full_does_not_take_part():
  arrays, config = golden_ssl.load("ssl/swav_loss_queue_filling")
  with jax.enable_x64(True):
    prototypes = golden_ssl.unit(arrays["prototypes"])
    scores = swav.crop_scores(
      jnp.asarray(arrays["embeddings"], float),
      prototypes,
      num_crops=2 + config["M"],
    )
    assignments = swav.swav_assignments(
      scores,
      prototypes,
      epsilon=config["epsilon"],
      num_iterations=config["iterations"],
      queue=jnp.asarray(arrays["queue"], float),
      assigned=(0, 1),
      axis_name=None,
      queue_is_full=jnp.asarray(False),
    )
  golden_ssl.assert_near({"assignments": assignments}, arrays, True)


@X64
def test_four_devices_equal_the_mean_of_the_references_ranks(x64):
  arrays, config = golden_ssl.load("ssl/dist_swav_w4")
  local = _loss(config, axis_name=mesh_lib.AXES)
  with jax.enable_x64(x64):
    embeddings, queue = golden_ssl.floats(arrays, ("embeddings", "queue"), x64)
    shape = embeddings.shape
    prototypes = golden_ssl.unit(arrays["prototypes"]).astype(float)
    over_devices = _over_devices(
      lambda e, p, q: local(e, p, q[0]),
      4,
      (mesh_lib.BATCH, P(), mesh_lib.BATCH),
      P(),
    )
    value, grads = jax.value_and_grad(over_devices, argnums=(0, 1))(
      embeddings.reshape(-1, shape[-1]), prototypes, queue
    )
  golden_ssl.assert_near(
    {
      "world_mean_loss": value,
      "world_mean_grad_embeddings": grads[0].reshape(shape),
      "world_mean_grad_prototypes": grads[1],
    },
    arrays,
    x64,
  )


@X64
def test_suncet_beside_it_equals_the_sum_of_the_references(x64):
  arrays, config = golden_ssl.load("ssl/swav_suncet_loss")
  with jax.enable_x64(x64):
    embeddings, labelled, label_rows = golden_ssl.floats(
      arrays, ("embeddings", "labelled", "label_rows"), x64
    )
    prototypes = golden_ssl.unit(arrays["prototypes"]).astype(float)

    def loss(embeddings, prototypes, labelled):
      return _loss(config)(embeddings, prototypes, None) + losses.suncet_loss(
        labelled, label_rows, temperature=config["suncet_temperature"]
      )

    value, grads = jax.jit(jax.value_and_grad(loss, argnums=(0, 1, 2)))(
      embeddings, prototypes, labelled
    )
  names = ("grad_embeddings", "grad_prototypes", "grad_labelled")
  golden_ssl.assert_near(
    {"loss": value, **dict(zip(names, grads, strict=True))}, arrays, x64
  )


@pytest.mark.parametrize(
  ("options", "message"),
  [
    ({"num_crops": 4}, "num_crops = 4"),
    ({"num_crops": 1}, "at least 2"),
    ({"assigned": (0, 3)}, "crops 0 to 2"),
    ({"assigned": ()}, "crops 0 to 2"),
    ({"queue": jnp.ones((1, 4, 5))}, "one list for each assigned crop"),
    ({"epsilon": 0.0}, "epsilon > 0"),
    ({"num_iterations": 0}, "num_iterations >= 1"),
    ({"prototypes": jnp.ones((4, 3))}, "embeddings and prototypes"),
  ],
)
def test_wrong_arguments_are_refused(options, message):
  arguments = {
    "embeddings": jnp.ones((6, 5)),
    "prototypes": jnp.eye(5),
    "num_crops": 3,
    "temperature": 0.1,
    "epsilon": 0.05,
  } | options
  with pytest.raises(ValueError, match=message):
    losses.swav_loss(**arguments)
