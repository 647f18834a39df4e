"""The learning-rate schedule: golden numbers and refusals.

The golden numbers may change only if tests/golden is made anew.
"""

import json

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from paws_jax import optim
from tests import golden_reference

pytestmark = pytest.mark.unoptimized

SCHEDULES = json.loads(
  (golden_reference.DIRECTORY / "schedule.json").read_text()
)


def _golden_schedule(case):
  return optim.warmup_cosine(
    start_lr=case["config"]["start_lr"],
    peak_lr=case["config"]["lr"],
    final_lr=case["config"]["final_lr"],
    warmup_steps=case["warmup_steps"],
    total_steps=case["total_steps"],
  )


@pytest.mark.parametrize("name", SCHEDULES)
@pytest.mark.parametrize("x64", [True, False], ids=["x64", "float32"])
def test_schedule_equals_the_reference_up_to_its_end(name, x64):
  case = SCHEDULES[name]
  steps, expected = np.array(case["step_lr"]).T
  # Beyond the total the reference's cosine rises again; ours stays.
  within = steps <= case["total_steps"]
  assert within.sum() >= 4
  expected = np.where(within, expected, case["config"]["final_lr"])
  with jax.enable_x64(x64):
    actual = jax.jit(jax.vmap(_golden_schedule(case)))(steps.astype(np.int32))
  assert actual.dtype == (np.float64 if x64 else np.float32)
  rtol, atol = (1e-9, 0) if x64 else (1e-5, 1e-6)
  np.testing.assert_allclose(actual, expected, rtol=rtol, atol=atol)


def test_fixmatch_s_cosine_ends_before_a_quarter_turn():
  path = golden_reference.DIRECTORY / "semi" / "schedules.json"
  case = json.loads(path.read_text(encoding="utf-8"))["fixmatch_cosine"]
  schedule = optim.warmup_part_of_cosine(
    start_lr=0.0,
    peak_lr=case["base"],
    share=7 / 16,
    warmup_steps=0,
    total_steps=case["total"],
  )
  steps = jnp.arange(case["total"] + 1)
  np.testing.assert_allclose(schedule(steps), case["values"], rtol=1e-5)


def test_a_constant_rate_follows_a_warm_up():
  schedule = optim.warmup_part_of_cosine(
    start_lr=0.1, peak_lr=0.5, share=0.0, warmup_steps=2, total_steps=9
  )
  actual = [float(schedule(step)) for step in range(5)]
  np.testing.assert_allclose(actual, [0.1, 0.3, 0.5, 0.5, 0.5], rtol=1e-6)


@pytest.mark.parametrize("name", SCHEDULES)
def test_schedule_is_that_of_optax_up_to_rounding(name):
  """docs/decisions.md says what differs."""
  case = SCHEDULES[name]
  config = case["config"]
  theirs = optax.warmup_cosine_decay_schedule(
    config["start_lr"],
    config["lr"],
    case["warmup_steps"],
    case["total_steps"],
    config["final_lr"],
  )
  with jax.enable_x64(True):
    steps = jnp.arange(case["total_steps"] + 2, dtype=float)
    expected = jax.vmap(theirs)(steps)
    actual = jax.vmap(_golden_schedule(case))(steps)
  np.testing.assert_allclose(actual, expected, rtol=1e-13)


def test_schedule_passes_through_its_corners_and_stays_at_the_end():
  schedule = optim.warmup_cosine(
    start_lr=0.3, peak_lr=6.4, final_lr=0.064, warmup_steps=10, total_steps=50
  )
  for step, expected in (
    (0, 0.3),
    (5, 3.35),
    (10, 6.4),
    (30, 3.232),
    (50, 0.064),
    (51, 0.064),
    (10_000, 0.064),
  ):
    np.testing.assert_allclose(schedule(step), expected, rtol=1e-5)


def test_schedule_without_warmup_starts_at_the_peak():
  schedule = optim.warmup_cosine(
    start_lr=0.0, peak_lr=1.0, final_lr=0.0, warmup_steps=0, total_steps=4
  )
  assert schedule(0) == 1
  assert schedule(4) == 0


def test_schedule_of_warmup_alone_ends_at_the_final_rate():
  schedule = optim.warmup_cosine(
    start_lr=0.1, peak_lr=1.0, final_lr=0.5, warmup_steps=4, total_steps=4
  )
  np.testing.assert_allclose(schedule(3), 0.775, rtol=1e-6)
  np.testing.assert_allclose(schedule(5), 0.5, rtol=1e-6)


@pytest.mark.parametrize("warmup_steps", [-1, 11])
def test_a_warmup_that_does_not_fit_is_refused(warmup_steps):
  with pytest.raises(
    ValueError, match=rf"warmup_steps = {warmup_steps} must .*total_steps = 10"
  ):
    optim.warmup_cosine(
      start_lr=0.0,
      peak_lr=1.0,
      final_lr=0.0,
      warmup_steps=warmup_steps,
      total_steps=10,
    )
