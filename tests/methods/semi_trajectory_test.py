"""Entire steps of FixMatch and Mean Teacher beside the public code."""

import jax
import numpy as np
import pytest

from paws_jax.methods import class_head
from tests import golden_reference
from tests import semi_trajectory

pytestmark = pytest.mark.unoptimized
X64 = pytest.mark.parametrize("x64", [True, False], ids=["x64", "float32"])


def _start(run, weights):
  params, batch_stats = weights
  extra = run.method.init_extra(None, params, batch_stats, run.method.facts)
  run.start(params, batch_stats, extra)


def _scalar(value, arrays, key, step, x64):
  np.testing.assert_allclose(
    value, arrays[f"{key}_f64"][step], rtol=1e-9 if x64 else 5e-5, err_msg=key
  )


@X64
def test_fixmatch_takes_the_steps_of_the_public_code(x64):
  arrays, config = golden_reference.load("semi/fixmatch_trajectory")
  fields = {"threshold": config["threshold"], "ema_decay": config["ema"]}
  with jax.enable_x64(x64):
    method = semi_trajectory.make("fixmatch", fields, config, x64)
    optimizer = semi_trajectory.optimizer(
      config, schedule="cosine_7_16", total_steps=config["total_steps"]
    )
    run = semi_trajectory.Run(method, optimizer)
    _start(run, semi_trajectory.weights(method, config, x64, config["prefix"]))
    crops = {"weak": ["x_weak"], "strong": ["x_strong"]}
    for step in range(config["steps"]):
      views = semi_trajectory.views(arrays, step, x64, crops)
      loss, _ = run.step(step, views)
      expected = arrays["loss_x_f64"][step] + (
        config["lambda_u"] * arrays["loss_u_f64"][step]
      )
      np.testing.assert_allclose(loss, expected, rtol=1e-9 if x64 else 5e-5)
      average = run.extra[class_head.AVERAGE]
      for prefix, params in (
        (config["prefix"], run.params),
        (config["ema_prefix"], average),
      ):
        semi_trajectory.assert_network(
          semi_trajectory.network(params, run.batch_stats),
          arrays,
          step,
          prefix,
          x64,
        )


@X64
def test_mean_teacher_takes_the_steps_of_the_reference(x64):
  arrays, config = golden_reference.load("semi/mean_teacher_trajectory")
  fields = {
    "unlabelled_weight": config["consistency_weight"],
    "ramp": "exp",
    "ramp_share": 0.5,
    "ema_decay": 0.8,
    "ema_warmup": True,
  }
  with jax.enable_x64(x64):
    method = semi_trajectory.make(
      "mean_teacher", fields, config, x64, total_steps=8
    )
    optimizer = semi_trajectory.optimizer(
      config, schedule="constant", total_steps=8
    )
    run = semi_trajectory.Run(method, optimizer)
    params, own = semi_trajectory.weights(method, config, x64, config["prefix"])
    _start(run, (params, {**own, "teacher": own}))
    crops = {"weak": ["x_student", "x_teacher"]}
    for step in range(config["steps"]):
      views = semi_trajectory.views(arrays, step, x64, crops)
      loss, _ = run.step(step, views)
      weight = config["consistency_weight"] * arrays["ramp_f64"][step]
      expected = (
        arrays["loss_x_f64"][step] + weight * arrays["loss_u_f64"][step]
      )
      np.testing.assert_allclose(loss, expected, rtol=1e-9 if x64 else 5e-5)
      _scalar(method.ema_decay(np.int32(step)), arrays, "ema", step, x64)
      _scalar(
        method.ramp(step),
        {"w_f64": weight + 0 * arrays["ema_f64"]},
        "w",
        0,
        x64,
      )
      average = run.extra[class_head.AVERAGE]
      for prefix, weights, stats in (
        (config["prefix"], run.params, run.batch_stats),
        (config["teacher_prefix"], average, run.batch_stats["teacher"]),
      ):
        semi_trajectory.assert_network(
          semi_trajectory.network(weights, stats), arrays, step, prefix, x64
        )
