"""Learning-rate schedules."""

from __future__ import annotations

import math
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import optax

from paws_jax import errors


def warmup_cosine(
  *,
  start_lr: float,
  peak_lr: float,
  final_lr: float,
  warmup_steps: int,
  total_steps: int,
) -> optax.Schedule:
  """Linear warm-up, then half a cosine; constant after the last step.

  lr(0) = start_lr, lr(warmup_steps) = peak_lr, lr(t ≥ total_steps) = final_lr
  (PAWS, section 5, 2021).

  Args:
    start_lr: learning rate of the first step.
    peak_lr: learning rate after the warm-up.
    final_lr: learning rate at and after `total_steps`.
    warmup_steps: length of the warm-up in steps; 0 starts at the peak.
    total_steps: length of warm-up and cosine together, in steps.

  Returns:
    A function from the step (integer, from 0) to the learning rate.

  Raises:
    InputError: the warm-up is negative or longer than the total.
  """
  _check_warmup(warmup_steps, total_steps)

  def schedule(step: jax.Array | int) -> jax.Array:
    step = jnp.asarray(step, dtype=float)
    warmup = start_lr + (peak_lr - start_lr) * step / max(warmup_steps, 1)
    rest = max(total_steps - warmup_steps, 1)
    progress = jnp.clip((step - warmup_steps) / rest, 0, 1)
    cosine = final_lr + (peak_lr - final_lr) * (
      0.5 * (1 + jnp.cos(math.pi * progress))
    )
    return jnp.where(step < warmup_steps, warmup, cosine)

  return schedule


def warmup_part_of_cosine(
  *,
  start_lr: float,
  peak_lr: float,
  share: float,
  warmup_steps: int,
  total_steps: int,
) -> optax.Schedule:
  """Linear warm-up, then the first part of a cosine.

  lr(t) = peak_lr · cos(share · π · t / total_steps) where there is no warm-up
  (FixMatch, 2020, with a share of 7/16).

  Args:
    start_lr: learning rate of the first step of the warm-up.
    peak_lr: learning rate after the warm-up.
    share: of a half turn, that the cosine has done at the end; 0: constant.
    warmup_steps: length of the warm-up in steps.
    total_steps: length of warm-up and cosine together, in steps.

  Returns:
    A function from the step (integer, from 0) to the learning rate.

  Raises:
    InputError: the warm-up is negative or longer than the total.
  """
  _check_warmup(warmup_steps, total_steps)

  def schedule(step: jax.Array | int) -> jax.Array:
    step = jnp.asarray(step, dtype=float)
    warmup = start_lr + (peak_lr - start_lr) * step / max(warmup_steps, 1)
    rest = max(total_steps - warmup_steps, 1)
    progress = jnp.clip((step - warmup_steps) / rest, 0, 1)
    cosine = peak_lr * jnp.cos(share * math.pi * progress)
    return jnp.where(step < warmup_steps, warmup, cosine)

  return schedule


def delayed_cosine(
  *, peak_lr: float, wait_steps: int, warmup_steps: int, total_steps: int
) -> optax.Schedule:
  """Zero for some steps, then a warm-up and half a cosine down to zero.

  Args:
    peak_lr: learning rate after the warm-up.
    wait_steps: steps with a rate of 0.
    warmup_steps: length of the warm-up, whose first rate is above 0.
    total_steps: length of all together.

  Returns:
    A function from the step (integer, from 0) to the learning rate.

  Raises:
    InputError: waiting and warm-up are longer than the total.
  """
  _check_warmup(wait_steps + warmup_steps, total_steps)

  def schedule(step: jax.Array | int) -> jax.Array:
    since = jnp.asarray(step, dtype=float) - wait_steps
    warmup = peak_lr * jnp.clip((since + 1) / max(warmup_steps, 1), 0, 1)
    rest = max(total_steps - wait_steps - warmup_steps, 1)
    progress = jnp.clip((since - warmup_steps) / rest, 0, 1)
    cosine = peak_lr * 0.5 * (1 + jnp.cos(math.pi * progress))
    return jnp.where(since < warmup_steps, warmup, cosine) * (since >= 0)

  return schedule


def _check_warmup(warmup_steps: int, total_steps: int) -> None:
  """Refuses a warm-up that is negative or longer than the total."""
  if not 0 <= warmup_steps <= total_steps:
    raise errors.InputError(
      f"warmup_steps = {warmup_steps} must lie in [0, total_steps = "
      f"{total_steps}]: lower the warm-up or train longer."
    )


def epoch_drops(
  *,
  peak_lr: float,
  factor: float,
  drops: Sequence[int],
  of_epochs: int,
  epochs: int,
  steps_per_epoch: int,
) -> optax.Schedule:
  """Constant rates that are multiplied by a factor after some epochs.

  Args:
    peak_lr: learning rate of the first step.
    factor: of every drop.
    drops: epochs after which the rate drops, in a training of `of_epochs`.
    of_epochs: length that `drops` are given for.
    epochs: length; drops move in proportion, rounded up to an epoch.
    steps_per_epoch: steps of an epoch.

  Returns:
    A function from the step (integer, from 0) to the learning rate.
  """
  starts = [-(-drop * epochs // of_epochs) for drop in drops]

  def schedule(step: jax.Array | int) -> jax.Array:
    epoch = jnp.asarray(step) // steps_per_epoch
    count = sum((epoch >= start).astype(int) for start in starts)
    return peak_lr * jnp.asarray(factor, dtype=float) ** count

  return schedule
