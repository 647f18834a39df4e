"""The loss of PAWS: golden numbers of the public code, properties, refusals.

The golden numbers may change only if tests/golden is made anew.
"""

import doctest
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import PartitionSpec as P

from paws_jax import losses
from paws_jax.losses import feature_rank
from paws_jax.losses import ropaws
from paws_jax.losses import similarity
from paws_jax.parallel import mesh as mesh_lib
from tests import golden_reference

pytestmark = pytest.mark.unoptimized

PAWS_INPUTS = (
  "anchor_views",
  "anchor_supports",
  "labels",
  "target_views",
  "target_supports",
)
X64 = pytest.mark.parametrize("x64", [True, False], ids=["x64", "float32"])


# --- PAWS, one process -------------------------------------------------------


@functools.partial(jax.jit, static_argnums=5, static_argnames="settings")
def _paws(*inputs, settings):
  """All that the golden files list of one PAWS loss."""
  settings = dict(settings)
  me_max = settings.pop("me_max")

  def total(anchor_views, anchor_supports, *rest):
    terms = losses.paws_loss(
      anchor_views, anchor_supports, *rest, me_max=me_max, **settings
    )
    return sum(terms), terms

  grads, (ploss, rloss) = jax.grad(total, argnums=(0, 1), has_aux=True)(*inputs)
  probs, targets = losses.paws_predictions(*inputs, **settings)
  sharpened = losses.sharpen(probs, temperature=settings["sharpen_temperature"])
  result = {
    "ploss": ploss,
    "rloss": rloss,
    "grad_anchor_views": grads[0],
    "grad_anchor_supports": grads[1],
    "probs": probs,
    "targets": targets,
  }
  return result | ({"avg_probs": sharpened.mean(0)} if me_max else {})


@X64
@pytest.mark.parametrize("name", golden_reference.names("paws_loss_*"))
def test_paws_loss_and_gradients_equal_the_reference(name, x64):
  arrays, config = golden_reference.load(name)
  with jax.enable_x64(x64):
    result = _paws(
      *golden_reference.cast(arrays, PAWS_INPUTS, x64),
      settings=(
        ("num_small_crops", config["multicrop"]),
        ("temperature", config["tau"]),
        ("sharpen_temperature", config["T"]),
        ("me_max", config["me_max"]),
      ),
    )
  if not x64 and name.endswith(("_subnormal", "_zero")):
    # Probabilities that float32 does not hold.
    assert all(np.isfinite(value).all() for value in result.values())
  else:
    golden_reference.assert_near(result, arrays, x64=x64)


# --- PAWS, four devices ------------------------------------------------------


def _four_devices(group_size=0):
  return mesh_lib.make_mesh(jax.devices()[:4], bn_group_size=group_size)


def _toy_net(weights, x):
  h = x @ weights["fc.weight"].T + weights["fc.bias"][None]
  z = jnp.tanh(h) @ weights["pred.weight"].T + weights["pred.bias"][None]
  return h, z


def _sharded_paws(mesh, config):
  """The golden files' toy training step as a function of the global arrays."""
  num_supports = config["s"] * config["K"] * config["sv"]

  def local(weights, delta, x, labels):
    h, z = _toy_net(weights, x[0])
    z = z + delta[0]
    h_support, z_support = (
      jax.lax.all_gather(e[:num_supports], mesh_lib.AXES, tiled=True)
      for e in (h, z)
    )
    first, second = h[num_supports:][: 2 * config["B"]].reshape(
      2, config["B"], -1
    )
    return losses.paws_loss(
      z[num_supports:],
      z_support,
      labels,
      jnp.concatenate([second, first]),
      h_support,
      num_small_crops=config["mc"],
      temperature=config["tau"],
      sharpen_temperature=config["T"],
      me_max=config["me"],
      axis_name=mesh_lib.AXES,
    )

  return mesh_lib.shard_map(
    local,
    mesh,
    in_specs=(P(), mesh_lib.BATCH, mesh_lib.BATCH, P()),
    out_specs=(P(), P()),
  )


@X64
@pytest.mark.parametrize("name", golden_reference.names("dist_paws_w4_*"))
def test_paws_on_four_devices_is_the_mean_of_the_references_ranks(name, x64):
  arrays, config = golden_reference.load(name)
  x, labels = arrays["x"], arrays["labels"]
  loss = _sharded_paws(_four_devices(group_size=2), config)
  dim, dim_in = config["D"], x.shape[-1]
  shapes = {
    "fc.weight": (dim, dim_in),
    "fc.bias": (dim,),
    "pred.weight": (dim, dim),
    "pred.bias": (dim,),
  }
  weights = {n: golden_reference.fill(n, s) for n, s in shapes.items()}
  dtype = np.float64 if x64 else np.float32
  with jax.enable_x64(x64):

    def total(*args):
      terms = loss(*args)
      return sum(terms), terms

    # The gradient is taken outside shard_map: that of the global mean.
    grads, (ploss, rloss) = jax.jit(
      jax.grad(total, argnums=(0, 1), has_aux=True)
    )(
      {n: w.astype(dtype) for n, w in weights.items()},
      np.zeros((*x.shape[:2], dim), dtype),
      x.astype(dtype),
      labels.astype(dtype),
    )
  result = {
    "world_mean_ploss": ploss,
    "world_mean_rloss": rloss,
    "world_mean_grad_z": grads[1],
  } | {f"ddp_grad.{n}": grad for n, grad in grads[0].items()}
  golden_reference.assert_near(result, arrays, x64=x64)
  # The regulariser is that of all ranks' anchors, not a mean of four.
  assert np.ptp(arrays["rloss_f64"]) < 1e-12


# --- Properties --------------------------------------------------------------


def _normal(seed, *shape):
  """Float64 under x64, else float32."""
  return jnp.asarray(np.random.default_rng(seed).normal(size=shape))


def _problem(*, num_images=5, num_small=3, num_large=2, classes=4, seed=0):
  """Random arguments of `paws_loss`."""
  labels = jnp.tile(jnp.arange(classes), 3)
  rows = losses.label_rows(labels, jnp.arange(classes), smoothing=0.1)
  return dict(
    zip(
      PAWS_INPUTS,
      (
        _normal(seed, (num_large + num_small) * num_images, 6),
        _normal(seed + 1, 3 * classes, 6),
        rows,
        _normal(seed + 2, num_large * num_images, 6),
        _normal(seed + 3, 3 * classes, 6),
      ),
      strict=True,
    )
  )


SETTINGS = {"temperature": 0.3, "sharpen_temperature": 0.5}


@functools.partial(
  jax.jit,
  static_argnames=("num_small", "me_max", "num_large_crops"),
)
def _loss(problem, *, num_small=3, me_max=True, **settings):
  return losses.paws_loss(
    *(problem[key] for key in PAWS_INPUTS),
    num_small_crops=num_small,
    me_max=me_max,
    **(SETTINGS | settings),
  )


@jax.jit
def _gradient(problem):
  return jax.grad(lambda p: sum(_loss(p)))(problem)


def test_the_order_of_supports_does_not_matter():
  with jax.enable_x64(True):
    problem = _problem()
    order = np.random.default_rng(9).permutation(12)
    moved = {
      key: value[order] if key == "labels" or "supports" in key else value
      for key, value in problem.items()
    }
    np.testing.assert_allclose(_loss(moved), _loss(problem), rtol=1e-13)
    # But labels go with them.
    wrong = moved | {"labels": problem["labels"]}
    assert abs(_loss(wrong)[0] - _loss(problem)[0]) > 1e-3


def test_the_order_of_views_and_images_does_not_matter():
  with jax.enable_x64(True):
    problem = _problem()
    anchors = problem["anchor_views"].reshape(5, 5, 6)  # [views, images, D]
    targets = problem["target_views"].reshape(2, 5, 6)
    gradient = _gradient(problem)["anchor_views"].reshape(anchors.shape)
    views = np.array([1, 0, 3, 4, 2])
    images = np.random.default_rng(9).permutation(5)
    moved = problem | {
      "anchor_views": anchors[views][:, images].reshape(25, 6),
      "target_views": targets[::-1][:, images].reshape(10, 6),
    }
    np.testing.assert_allclose(_loss(moved), _loss(problem), rtol=1e-13)
    moved_gradient = _gradient(moved)["anchor_views"].reshape(anchors.shape)
    np.testing.assert_allclose(
      moved_gradient, gradient[views][:, images], atol=1e-14
    )
    # Only the anchors swapped: each view is then held to its own prediction.
    wrong = moved | {"target_views": problem["target_views"]}
    assert abs(_loss(wrong)[0] - _loss(problem)[0]) > 1e-3


def test_no_gradient_reaches_the_targets():
  with jax.enable_x64(True):
    problem = _problem()
    grads = _gradient(problem)
  assert not np.any(grads["target_views"])
  assert not np.any(grads["target_supports"])
  assert np.any(grads["anchor_views"])
  assert np.any(grads["anchor_supports"])


def test_length_of_embeddings_does_not_matter():
  with jax.enable_x64(True):
    problem = _problem()
    longer = {k: v if k == "labels" else 7 * v for k, v in problem.items()}
    np.testing.assert_allclose(_loss(longer), _loss(problem), rtol=1e-12)


def test_low_similarity_temperature_takes_the_nearest_supports_label():
  queries, supports = _normal(0, 9, 6), _normal(1, 12, 6)
  labels = jnp.eye(12)[:, :7]
  probs = losses.soft_nearest_neighbours(
    queries, supports, labels, temperature=1e-5
  )
  nearest = jnp.argmax(losses.cosine_similarities(queries, supports), -1)
  np.testing.assert_allclose(probs, labels[nearest], atol=1e-6)


def test_high_similarity_temperature_takes_the_mean_label():
  labels = losses.label_rows(
    jnp.array([0, 0, 0, 1, 2, 2]), jnp.arange(3), smoothing=0.1
  )
  probs = losses.soft_nearest_neighbours(
    _normal(0, 9, 6), _normal(1, 6, 6), labels, temperature=1e6
  )
  expected = np.tile(np.mean(labels, 0), (9, 1))
  np.testing.assert_allclose(probs, expected, atol=1e-5)


def test_two_large_crops_are_held_to_the_opposite_ones_prediction():
  with jax.enable_x64(True):
    problem = _problem()
    _, targets = _predictions(problem, 2, 3)
    sharp = _sharp_targets(problem)
    np.testing.assert_allclose(targets[:10], sharp, rtol=1e-13)
    # Rows of target_views are swapped by the caller; the mean is symmetric.
    mean = sharp.reshape(2, 5, 4).mean(0)
    np.testing.assert_allclose(targets[10:], np.tile(mean, (3, 1)), rtol=1e-13)


def test_more_large_crops_are_held_to_the_mean_of_the_others():
  with jax.enable_x64(True):
    problem = _problem(num_large=3)
    probs, targets = _predictions(problem, 3, 3)
    one, two, three = _sharp_targets(problem).reshape(3, 5, 4)
    expected = [(two + three) / 2, (one + three) / 2, (one + two) / 2]
    expected += [(one + two + three) / 3] * 3
    np.testing.assert_allclose(targets, np.concatenate(expected), rtol=1e-12)
    ploss, _ = _loss(problem, num_large_crops=3)
    by_hand = -np.mean(np.sum(np.concatenate(expected) * np.log(probs), -1))
    np.testing.assert_allclose(ploss, by_hand, rtol=1e-12)


@functools.partial(jax.jit, static_argnums=(1, 2))
def _predictions(problem, num_large, num_small):
  return losses.paws_predictions(
    *(problem[key] for key in PAWS_INPUTS),
    num_small_crops=num_small,
    num_large_crops=num_large,
    **SETTINGS,
  )


def _sharp_targets(problem):
  """Sharpened predictions of the targets, in numpy; none is below 1e-4."""
  unit = [
    np.asarray(e) / np.linalg.norm(e, axis=-1, keepdims=True)
    for e in (problem["target_views"], problem["target_supports"])
  ]
  weights = np.exp(unit[0] @ unit[1].T / SETTINGS["temperature"])
  probs = (
    weights / weights.sum(-1, keepdims=True) @ np.asarray(problem["labels"])
  )
  powers = probs ** (1 / SETTINGS["sharpen_temperature"])
  return powers / powers.sum(-1, keepdims=True)


def test_small_targets_become_zero_without_renormalising():
  # Axes as supports: predictions follow from the similarities.
  supports, labels = jnp.eye(3), jnp.eye(3)
  _, targets = losses.paws_predictions(
    supports[:2],
    supports,
    labels,
    supports[:2],
    supports,
    num_small_crops=0,
    temperature=0.1,
    sharpen_temperature=1.0,
  )
  off = np.exp(-10) / (1 + 2 * np.exp(-10))
  assert off < losses.TARGET_THRESHOLD
  expected = (1 - 2 * off) * np.eye(3)[:2]
  np.testing.assert_allclose(targets, expected, rtol=1e-6)


def test_me_max_off_leaves_the_cross_entropy_alone():
  problem = _problem()
  with_me_max, regularizer = _loss(problem)
  without, zero = _loss(problem, me_max=False)
  assert with_me_max == without
  assert zero == 0
  assert -np.log(4) <= regularizer < 0


def test_me_max_with_a_prior_is_the_divergence_from_it():
  with jax.enable_x64(True):
    probs = jax.nn.softmax(_normal(0, 6, 4), axis=-1)
    targets = jax.nn.softmax(_normal(1, 6, 4), axis=-1)
    prior = np.array([0.1, 0.2, 0.3, 0.4])
    objective = functools.partial(
      losses.paws_objective, probs, targets, sharpen_temperature=0.5
    )
    plain, uniform = objective(me_max=True)
    same, regularizer = objective(me_max=True, prior=jnp.asarray(prior))
    mean = np.asarray(losses.sharpen(probs, temperature=0.5)).mean(0)
  np.testing.assert_array_equal(same, plain)
  divergence = np.sum(mean * np.log(mean / prior))
  np.testing.assert_allclose(regularizer, divergence - np.log(4), rtol=1e-12)
  np.testing.assert_allclose(uniform, np.sum(mean * np.log(mean)), rtol=1e-12)


def test_weights_of_anchors_weigh_their_cross_entropies():
  with jax.enable_x64(True):
    probs = jax.nn.softmax(_normal(0, 6, 4), axis=-1)
    targets = jax.nn.softmax(_normal(1, 6, 4), axis=-1)
    weights = np.linspace(0, 1, 6)
    found, _ = losses.paws_objective(
      probs,
      targets,
      sharpen_temperature=0.5,
      me_max=False,
      weights=jnp.asarray(weights),
    )
    each = np.asarray(losses.cross_entropy(targets, probs))
  np.testing.assert_allclose(found, np.mean(weights * each), rtol=1e-12)


# --- Proposition 1 -----------------------------------------------------------


def _collapsed_gradient(monkeypatch, target):
  """d cross-entropy / d similarities where all similarities are the same."""
  # Queries stand for their similarities to the supports.
  monkeypatch.setattr(similarity, "cosine_similarities", lambda q, keys: q)
  labels = losses.label_rows(
    jnp.tile(jnp.arange(4), 2), jnp.arange(4), smoothing=0.1
  )

  def loss(similarities):
    probs = losses.soft_nearest_neighbours(
      similarities, jnp.eye(8), labels, temperature=0.1
    )
    return losses.cross_entropy(jnp.asarray(target)[None], probs)[0], probs

  grad, probs = jax.grad(loss, has_aux=True)(jnp.ones((1, 8)))
  np.testing.assert_allclose(probs, 0.25, rtol=1e-6)
  return grad


def test_at_collapse_a_target_that_is_not_uniform_pulls(monkeypatch):
  grad = _collapsed_gradient(monkeypatch, [0.4, 0.3, 0.2, 0.1])
  assert np.linalg.norm(grad) > 0.1
  # Towards supports of classes above 1/4, away from the others.
  expected = np.tile(np.sign([-1, -1, 1, 1]), 2)
  np.testing.assert_array_equal(np.sign(grad[0]), expected)


def test_at_collapse_a_uniform_target_does_not_pull(monkeypatch):
  grad = _collapsed_gradient(monkeypatch, [0.25] * 4)
  np.testing.assert_allclose(grad, 0, atol=1e-6)


def test_collapsed_predictions_are_uniform_only_with_balanced_supports():
  query, same = jnp.ones((1, 6)), jnp.ones((6, 6))
  balanced = losses.label_rows(jnp.array([0, 1, 2] * 2), jnp.arange(3))
  probs = losses.soft_nearest_neighbours(query, same, balanced, temperature=0.1)
  np.testing.assert_allclose(probs, 1 / 3, rtol=1e-6)
  np.testing.assert_allclose(
    losses.sharpen(probs, temperature=0.25), 1 / 3, rtol=1e-6
  )
  unbalanced = losses.label_rows(jnp.array([0, 0, 0, 0, 1, 2]), jnp.arange(3))
  probs = losses.soft_nearest_neighbours(
    query, same, unbalanced, temperature=0.1
  )
  np.testing.assert_allclose(probs, [[4 / 6, 1 / 6, 1 / 6]], rtol=1e-6)


# --- Numerical edges ---------------------------------------------------------


def test_zero_times_log_of_zero_is_zero_with_zero_gradient():
  targets = jnp.array([[1.0, 0.0, 0.0]])
  probs = jnp.array([[0.5, 0.0, 0.5]])
  value, grad = jax.value_and_grad(
    lambda p: losses.cross_entropy(targets, p).sum()
  )(probs)
  np.testing.assert_allclose(value, np.log(2), rtol=1e-6)
  np.testing.assert_array_equal(grad, [[-2.0, 0.0, 0.0]])
  value, grad = jax.value_and_grad(losses.negative_entropy)(probs[0])
  np.testing.assert_allclose(value, -np.log(2), rtol=1e-6)
  np.testing.assert_allclose(grad, [1 - np.log(2), 0, 1 - np.log(2)])


def test_impossible_targets_cost_a_finite_amount():
  loss = losses.cross_entropy(jnp.array([[0.0, 1.0]]), jnp.array([[1.0, 0.0]]))
  np.testing.assert_allclose(loss, -np.log(np.finfo(np.float32).tiny))


def test_columns_that_no_support_names_stay_finite():
  problem = _problem()
  labels = jnp.tile(jnp.arange(4), 3)
  problem["labels"] = losses.label_rows(labels, jnp.arange(6))
  assert np.isfinite(_loss(problem)).all()
  assert all(np.isfinite(grad).all() for grad in _gradient(problem).values())


def test_bfloat16_embeddings_are_compared_in_float32():
  x = _normal(0, 3, 8).astype(jnp.bfloat16)
  probs = losses.soft_nearest_neighbours(x, x, jnp.eye(3), temperature=0.1)
  expected = losses.soft_nearest_neighbours(
    x.astype(jnp.float32), x.astype(jnp.float32), jnp.eye(3), temperature=0.1
  )
  assert probs.dtype == jnp.float32
  np.testing.assert_array_equal(probs, expected)


# --- Refusals and documentation ----------------------------------------------


@pytest.mark.parametrize(
  ("num_large", "num_small", "targets", "message"),
  [
    (1, 3, 10, "num_large_crops is 1: PAWS needs at least 2"),
    (2, 3, 9, "target_views has 9 rows, not a multiple of num_large_crops = 2"),
    (2, 2, 10, "anchor_views has 25 rows; 10 target_views .* ask for 20"),
    (2, 3, 8, "num_small_crops = 3 ask for 20"),
  ],
)
def test_views_that_do_not_fit_are_refused(
  num_large, num_small, targets, message
):
  problem = _problem()
  problem["target_views"] = problem["target_views"][:targets]
  with pytest.raises(ValueError, match=message):
    _loss(problem, num_small=num_small, num_large_crops=num_large)


def test_examples_of_the_documentation_hold():
  modules = [similarity, ropaws, feature_rank]
  results = [doctest.testmod(module) for module in modules]
  assert all(result.attempted >= 2 for result in results)
  assert not any(result.failed for result in results)
