"""SimSiam: a trajectory of the public code."""

import jax
import pytest

from tests import golden_ssl
from tests import ssl_trajectory

pytestmark = pytest.mark.unoptimized

PREFIXES = {
  "trunk": "encoder",
  "projection": "encoder.fc",
  "prediction": "predictor",
}


# At first running means, which shift the sums of a batch, are far from its
# means, and many of its standard deviations much smaller than these: float32
# loses digits of the variance.
FLOAT32 = {"float32": 5e-3}


@ssl_trajectory.each_dtype
def test_five_steps_equal_those_of_the_reference(x64, monkeypatch):
  arrays, config = golden_ssl.load("ssl/trajectory_simsiam_tiny")
  with jax.enable_x64(x64):
    encoder = ssl_trajectory.encoder(
      config,
      x64,
      projection={
        "hidden_dim": config["w2"],
        "num_layers": 3,
        "bias": "none",
        "final_norm": True,
      },
      prediction={"hidden_dim": config["P"], "num_layers": 2, "bias": "last"},
    )
    method = ssl_trajectory.make("simsiam", {}, encoder)
    batch = ssl_trajectory.views(arrays, 0, x64)
    params, stats = ssl_trajectory.initial(method, batch)
    run = ssl_trajectory.Run(monkeypatch, method, arrays, config, name="sgd")
    run.start(
      ssl_trajectory.formula(params, PREFIXES),
      ssl_trajectory.formula(stats, PREFIXES),
      {},
    )
    for step in range(config["steps"]):
      loss, _ = run.step(step, ssl_trajectory.views(arrays, step, x64))
      ssl_trajectory.assert_loss(loss, arrays, step, x64, **FLOAT32)
      ssl_trajectory.assert_checksums(
        run.params, arrays, step, PREFIXES, x64, **FLOAT32
      )
      # The reference has a frozen bias before its last BatchNorm, which is in
      # the running mean.
      ssl_trajectory.assert_checksums(
        run.batch_stats,
        arrays,
        step,
        PREFIXES,
        x64,
        without=("encoder.fc.7.running_mean",),
        **FLOAT32,
      )
