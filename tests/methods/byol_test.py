"""BYOL: a trajectory of the public code, the momentum, asymmetric views."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests import golden_ssl
from tests import ssl_trajectory

pytestmark = pytest.mark.unoptimized


def _prefixes(network):
  return {
    "trunk": f"{network}.encoder",
    "projection": f"{network}.projector",
    "prediction": f"{network}.predictor",
  }


def _method(config, x64):
  head = {"hidden_dim": config["H"], "num_layers": 2, "bias": "hidden"}
  encoder = ssl_trajectory.encoder(
    config, x64, projection=head, prediction=head
  )
  return ssl_trajectory.make(
    "byol",
    {"momentum": config["base"]},
    encoder,
    total_steps=config["total_steps"],
  )


@ssl_trajectory.each_dtype
def test_five_steps_equal_those_of_the_reference(x64, monkeypatch):
  arrays, config = golden_ssl.load("ssl/trajectory_byol_tiny")
  online, target = _prefixes("online"), _prefixes("target")
  # Gradients of biases that a BatchNorm cancels are noise.
  noise = [f"{n}.projector.0.bias" for n in ("online", "target")]
  noise.append("online.predictor.0.bias")
  with jax.enable_x64(x64):
    method = _method(config, x64)
    batch = ssl_trajectory.views(arrays, 0, x64)
    params, stats = ssl_trajectory.initial(method, batch)
    extra = method.init_extra(jax.random.key(0), params, stats, method.facts)
    target_stats = stats.pop("target")
    run = ssl_trajectory.Run(
      monkeypatch,
      method,
      arrays,
      config,
      name="lars",
      lars_norm="decayed",
      decayed="kernels",
      trust_coefficient=config["eta"],
    )
    run.start(
      ssl_trajectory.formula(params, online),
      {
        **ssl_trajectory.formula(stats, online),
        "target": ssl_trajectory.formula(target_stats, target),
      },
      {"target": ssl_trajectory.formula(extra["target"], target)},
    )
    for step in range(config["steps"]):
      loss, _ = run.step(step, ssl_trajectory.views(arrays, step, x64))
      ssl_trajectory.assert_loss(loss, arrays, step, x64)
      stats = dict(run.batch_stats)
      target_stats = stats.pop("target")
      for variables, prefixes in (
        (run.params, online),
        (stats, online),
        (run.extra["target"], target),
        (target_stats, target),
      ):
        ssl_trajectory.assert_checksums(
          variables, arrays, step, prefixes, x64, skip=noise
        )


def test_the_momentum_rises_to_one():
  _, config = golden_ssl.load("ssl/trajectory_byol_tiny")
  arrays, _ = golden_ssl.load("ssl/trajectory_byol_tiny")
  method = _method(config, False)
  taus = [method.momentum(jnp.int32(step)) for step in range(5)]
  np.testing.assert_allclose(taus, arrays["taus"], rtol=1e-6)
  assert method.momentum(jnp.int32(8)) == 1
  # A run that is trained longer than planned keeps the last average.
  assert method.momentum(jnp.int32(9)) == 1
