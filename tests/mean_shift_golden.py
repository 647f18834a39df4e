"""Runs mean shift methods beside tests/golden/cmsf."""

import types

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from paws_jax import models
from paws_jax.models import batch_norm
from paws_jax.models import heads
from tests import golden_reference
from tests import golden_ssl
from tests import ssl_trajectory

ONLINE = {
  "trunk": "encoder_q",
  "projection": "encoder_q.fc",
  "prediction": "predict_q",
}
TARGET = {"trunk": "encoder_t", "projection": "encoder_t.fc"}
# Gradients of biases that a BatchNorm cancels are noise.
NOISE = ("encoder_q.fc.0.bias", "encoder_t.fc.0.bias", "predict_q.0.bias")


class Trunk(nn.Module):
  """The trunk of the trajectories."""

  width: int
  settings: batch_norm.LayerSettings

  @property
  def num_features(self):
    return self.width

  @nn.compact
  def __call__(self, x, *, train, mask=None):
    dtype = self.settings.dtype
    x = nn.Conv(
      self.width,
      (3, 3),
      padding=1,
      use_bias=False,
      dtype=dtype,
      param_dtype=dtype,
      name="conv1",
    )(x)
    x = self.settings.batch_norm("bn1")(x, train=train, mask=mask)
    return nn.relu(x).mean((1, 2))


def encoder(config, x64, *, output_dim=None):
  """The encoder of a trajectory."""
  dtype = jnp.float64 if x64 else jnp.float32
  settings = batch_norm.LayerSettings(
    momentum=0.9, dtype=dtype, param_dtype=dtype
  )
  head = {
    "hidden_dim": config.get("hidden", 4),
    "output_dim": output_dim or config["output"],
    "settings": settings,
    "num_layers": 2,
  }
  return models.Encoder(
    trunk=Trunk(config.get("feature", 2), settings),
    projection=heads.ProjectionHead(**head),
    prediction=heads.ProjectionHead(**head),
  )


class Trajectory:
  """Five steps of a method, compared with those of the public code."""

  def __init__(self, monkeypatch, name, x64, *, method, fields, **facts):
    self.arrays, config = golden_ssl.load(f"cmsf/{name}")
    self.x64 = x64
    config = {**config, "lrs": self.arrays["lr"], "wd": config["weight_decay"]}
    self.config = config
    (bank,) = golden_ssl.floats(self.arrays, ("bank",), x64)
    size, width = bank.shape
    batch_size = self.arrays["index"].shape[1]
    fields = {"k": config["k"], "bank_size": size} | fields
    self.method = ssl_trajectory.make(
      method,
      fields,
      encoder(config, x64),
      batch_size=batch_size,
      steps_per_epoch=config["steps_per_epoch"],
      **facts,
    )
    self.run = ssl_trajectory.Run(
      monkeypatch, self.method, self.arrays, config, name="sgd"
    )
    self.first = int(self.arrays["pointer"]) // batch_size
    shape = (-1, batch_size)
    self.bank = {
      "rows": bank.reshape(*shape, width),
      "index": jnp.asarray(self.arrays["bank_index"]).reshape(shape),
    }

  def start(self, extra=lambda extra: extra):
    """Sets the state at step 0; `extra` changes what the method has made."""
    method, key = self.method, jax.random.key(0)
    params, stats = ssl_trajectory.initial(method, self.batch(0))
    target_stats = stats.pop("target")
    made = method.init_extra(key, params, stats, method.facts)
    # The target network starts as a copy.
    target = {k: v for k, v in ONLINE.items() if k != "prediction"}
    formula = ssl_trajectory.formula
    bank = {**made["bank"], **self.bank}
    assert jax.tree.map(jnp.shape, bank) == jax.tree.map(
      jnp.shape, made["bank"]
    )
    self.run.start(
      formula(params, ONLINE),
      {**formula(stats, ONLINE), "target": formula(target_stats, target)},
      extra({**made, "target": formula(made["target"], target), "bank": bank}),
    )

  def batch(self, step):
    """The two views of a step, and their images."""
    crops = {
      name: golden_reference.normalise(self.arrays[f"{key}_u8"][step], "cifar")
      for name, key in (("large", "query"), ("second", "target"))
    }
    views = ssl_trajectory.views(
      {"views.0": self.arrays["query_u8"][step][None]}, 0, self.x64
    )
    dtype = views.crops["large"].dtype
    return views._replace(
      crops={k: jnp.asarray(v[:, None], dtype) for k, v in crops.items()},
      ids=jnp.asarray(self.arrays["index"][step]),
    )

  def step(self, step):
    """Takes a step and compares loss, weights and statistics.

    The reference moves its average before the targets of a step, from the
    weights that ours moves it to after the step before.
    """
    average = self.run.extra["target"]
    loss, _ = self.run.step(step + self.first, self.batch(step))
    ssl_trajectory.assert_loss(loss, self.arrays, step, self.x64, float32=1e-5)
    stats = dict(self.run.batch_stats)
    target_stats = stats.pop("target")
    for variables, prefixes in (
      (self.run.params, ONLINE),
      (stats, ONLINE),
      (average, TARGET),
      (target_stats, TARGET),
    ):
      ssl_trajectory.assert_checksums(
        variables,
        self.arrays,
        step,
        prefixes,
        self.x64,
        skip=NOISE,
        float32=1e-5,
      )

  def assert_bank(self):
    """Compares the bank at the end."""
    bank = self.run.extra["bank"]
    rows = bank["rows"].reshape(-1, bank["rows"].shape[-1])
    golden_ssl.assert_near({"bank_after": rows}, self.arrays, self.x64)
    np.testing.assert_array_equal(
      bank["index"].reshape(-1), self.arrays["bank_index_after"]
    )

  def act(self, step):
    """Lets the method act after so many steps."""
    run = self.run
    state = types.SimpleNamespace(extra=run.extra)
    state.replace = lambda extra: types.SimpleNamespace(extra=extra)
    run.extra = self.method.on_epoch_end(state, None, step=step).extra
