"""MoCo: a trajectory of the public code, the queue, groups of BatchNorm."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from paws_jax import losses
from paws_jax.methods import tables
from tests import golden_ssl
from tests import ssl_trajectory

pytestmark = pytest.mark.unoptimized

ONLINE = {"trunk": "encoder_q", "projection": "encoder_q.fc"}
TARGET = {"trunk": "encoder_k", "projection": "encoder_k.fc"}


@ssl_trajectory.each_dtype
def test_five_steps_equal_those_of_the_reference(x64, monkeypatch):
  arrays, config = golden_ssl.load("ssl/trajectory_moco_tiny")
  prefixes = [names | {"projection_stride": 2} for names in (ONLINE, TARGET)]
  with jax.enable_x64(x64):
    encoder = ssl_trajectory.encoder(
      config,
      x64,
      projection={
        "hidden_dim": config["w2"],
        "num_layers": 2,
        "norm": False,
      },
    )
    fields = {
      "temperature": config["T"],
      "momentum": config["m"],
      "queue_size": config["K"],
    }
    method = ssl_trajectory.make("moco", fields, encoder)
    batch = ssl_trajectory.views(arrays, 0, x64)
    params, stats = ssl_trajectory.initial(method, batch)
    target_stats = stats.pop("target")
    params = ssl_trajectory.formula(params, prefixes[0])
    stats = ssl_trajectory.formula(stats, prefixes[0])
    assert jax.tree.structure(stats) == jax.tree.structure(target_stats)
    run = ssl_trajectory.Run(monkeypatch, method, arrays, config, name="sgd")
    (queue,) = golden_ssl.floats(arrays, ("queue0",), x64)
    run.start(
      params,
      {**stats, "target": stats},
      {"target": params, "queue": queue, "position": jnp.int32(0)},
    )
    for step in range(config["steps"]):
      loss, _ = run.step(step, ssl_trajectory.views(arrays, step, x64))
      ssl_trajectory.assert_loss(loss, arrays, step, x64)
      online = {k: v for k, v in run.batch_stats.items() if k != "target"}
      for variables in (run.params, online):
        ssl_trajectory.assert_checksums(
          variables, arrays, step, prefixes[0], x64
        )
      ssl_trajectory.assert_checksums(
        run.batch_stats["target"], arrays, step, prefixes[1], x64
      )
  golden_ssl.assert_near({"final.queue": run.extra["queue"]}, arrays, x64)
  assert run.extra["position"] == arrays["ptr_after"]


@pytest.mark.parametrize("name", ["moco_queue", "moco_queue_ragged"])
def test_the_queue_equals_the_references(name):
  arrays, config = golden_ssl.load(f"ssl/{name}")
  with jax.enable_x64(True):
    queue = jnp.asarray(arrays["queue0"], float)
    position = jnp.int32(config["ptr0"])
    for t in range(3):
      keys = losses.normalize(jnp.asarray(arrays[f"keys.{t}"], float))
      queue, position = tables.enqueue(
        queue, position, keys, finite=jnp.asarray(True)
      )
      np.testing.assert_allclose(queue, arrays[f"queue.{t}_f64"], rtol=1e-12)
      assert position == arrays[f"ptr.{t}"]
