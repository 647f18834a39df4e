"""Optimisers as optax chains, the learning-rate schedule, parameter kinds.

Sources: You et al., Large Batch Training of Convolutional Networks, 2017
(LARS); PAWS, section 5 (2021), whose public reference fixes the details that
`lars` documents.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import optax

from paws_jax import config as config_lib
from paws_jax import errors
from paws_jax.config import fields

LARS_EPSILON = 1e-8


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
    total_steps: length of warm-up and cosine together.

  Returns:
    A function from the step (integer, from 0) to the learning rate.

  Raises:
    ValueError: when the warm-up is negative or longer than the total.
  """
  if not 0 <= warmup_steps <= total_steps:
    raise errors.InputError(
      f"warmup_steps = {warmup_steps} must lie in [0, total_steps = "
      f"{total_steps}]: lower the warm-up or train longer."
    )

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


def is_kernel(params: Any) -> Any:
  """Marks the leaves that weight decay and LARS act on.

  Kernels of convolutions and dense layers have two or more axes; biases and
  the scales of normalisation have one. So the kind of a parameter decides, not
  its name.

  Args:
    params: pytree of arrays.

  Returns:
    Pytree of bools of the same structure.
  """
  return jax.tree.map(lambda leaf: leaf.ndim > 1, params)


def scale_by_lars(
  *, weight_decay: float, trust_coefficient: float, mask: Any = is_kernel
) -> optax.GradientTransformation:
  """Adds weight decay and rescales each kernel's gradient to its norm.

  `g ← (g + wd·w) · tc·|w| / (|g| + wd·|w| + 1e-8)`, with |g| before the decay
  is added. Where |w| or |g| is 0 the gradient passes unchanged, without decay.

  Args:
    weight_decay: wd ≥ 0.
    trust_coefficient: tc > 0.
    mask: pytree of bools, or a function from params to one; True where decay
      and adaptation apply.
  """

  def rescale(gradient: jax.Array, weights: jax.Array) -> jax.Array:
    ratio, applies = _trust_ratio(
      gradient,
      weights,
      weight_decay=weight_decay,
      trust_coefficient=trust_coefficient,
    )
    adapted = (gradient + weight_decay * weights) * ratio
    return jnp.where(applies, adapted, gradient)

  def update(updates: Any, params: Any) -> Any:
    return jax.tree.map(rescale, updates, params)

  return optax.masked(optax.stateless(update), mask)


def _trust_ratio(
  gradient: jax.Array,
  weights: jax.Array,
  *,
  weight_decay: float,
  trust_coefficient: float,
) -> tuple[jax.Array, jax.Array]:
  """What LARS multiplies a kernel's gradient by, and whether it does."""
  weight_norm = jnp.linalg.norm(weights)
  gradient_norm = jnp.linalg.norm(gradient)
  ratio = trust_coefficient * weight_norm
  ratio /= gradient_norm + weight_decay * weight_norm + LARS_EPSILON
  return ratio, (weight_norm > 0) & (gradient_norm > 0)


def trust_ratios(
  gradients: Any,
  params: Any,
  *,
  weight_decay: float,
  trust_coefficient: float,
) -> dict[str, jax.Array]:
  """Smallest, middle and largest trust ratio of LARS over the kernels.

  The norms are those of `scale_by_lars`, which the compiler takes once; nothing
  moves between devices, since gradients are summed over them already.

  Args:
    gradients: pytree of arrays.
    params: pytree of the same structure, with at least one kernel.
    weight_decay: as of `lars`.
    trust_coefficient: as of `lars`.

  Returns:
    Scalars trust_ratio_min, trust_ratio_median and trust_ratio_max; a kernel
    whose gradient passes unchanged counts as 1.
  """
  ratios = []
  for gradient, weights in zip(
    jax.tree.leaves(gradients), jax.tree.leaves(params), strict=True
  ):
    if is_kernel(weights):
      ratio, applies = _trust_ratio(
        gradient,
        weights,
        weight_decay=weight_decay,
        trust_coefficient=trust_coefficient,
      )
      ratios.append(jnp.where(applies, ratio, 1))
  ratios = jnp.stack(ratios)
  return {
    "trust_ratio_min": jnp.min(ratios),
    "trust_ratio_median": jnp.median(ratios),
    "trust_ratio_max": jnp.max(ratios),
  }


def observer(
  section: config_lib.Optim | Mapping[str, Any],
) -> Callable[[Any, Any], dict[str, jax.Array]] | None:
  """What a recipe's optimiser can tell of a step besides the usual norms.

  Args:
    section: the recipe's `optim`.

  Returns:
    A function of (gradients, params) that gives scalar metrics: the trust
    ratios of LARS. None for other optimisers, which have nothing like it.

  Raises:
    TypeError: for an unknown field, by name.
  """
  config = fields.build(config_lib.Optim, section, "optim")
  if config.name != "lars":
    return None
  return functools.partial(
    trust_ratios,
    weight_decay=config.weight_decay,
    trust_coefficient=config.trust_coefficient,
  )


def lars(
  learning_rate: optax.ScalarOrSchedule,
  *,
  weight_decay: float,
  momentum: float,
  nesterov: bool,
  trust_coefficient: float,
  mask: Any = is_kernel,
) -> optax.GradientTransformation:
  """LARS with momentum, as the public PAWS reference has it.

  Use it for large batches. It differs from `optax.lars` in three ways: the
  denominator is |g| + wd·|w| (not |g + wd·w|), a zero norm also skips the
  decay, and the learning rate enters the momentum buffer: `buf ← m·buf − lr·g;
  w ← w + buf`, so that old gradients keep the rate they were taken with.

  Args:
    learning_rate: a number or a schedule.
    weight_decay: wd ≥ 0, on masked parameters.
    momentum: m in [0, 1).
    nesterov: `w ← w − lr·g + m·buf` instead.
    trust_coefficient: ratio of a kernel's update to its norm, at lr = 1.
    mask: True where decay and adaptation apply; default `is_kernel`.

  Returns:
    The optax transformation; its update needs `params`.

  References:
    You et al., Large Batch Training of Convolutional Networks, 2017.
  """
  return optax.chain(
    scale_by_lars(
      weight_decay=weight_decay,
      trust_coefficient=trust_coefficient,
      mask=mask,
    ),
    _momentum_sgd(learning_rate, momentum=momentum, nesterov=nesterov),
  )


def sgd(
  learning_rate: optax.ScalarOrSchedule,
  *,
  weight_decay: float,
  momentum: float,
  nesterov: bool,
  mask: Any = is_kernel,
) -> optax.GradientTransformation:
  """SGD with the learning rate inside the momentum buffer, as in `lars`."""
  return optax.chain(
    optax.add_decayed_weights(weight_decay, mask),
    _momentum_sgd(learning_rate, momentum=momentum, nesterov=nesterov),
  )


def _momentum_sgd(
  learning_rate: optax.ScalarOrSchedule, *, momentum: float, nesterov: bool
) -> optax.GradientTransformation:
  return optax.chain(
    optax.scale_by_learning_rate(learning_rate),
    optax.trace(decay=momentum, nesterov=nesterov),
  )


OPTIMISERS = ("lars", "sgd", "adamw")


def create(
  section: config_lib.Optim | Mapping[str, Any],
  *,
  steps_per_epoch: int,
  total_steps: int,
) -> tuple[optax.GradientTransformation, optax.Schedule]:
  """Builds the optimiser and the schedule of a recipe.

  Args:
    section: the recipe's `optim`.
    steps_per_epoch: turns `warmup_epochs` into steps.
    total_steps: length of the schedule.

  Returns:
    The optax transformation, and its schedule for reporting.

  Raises:
    TypeError: for an unknown field, by name.
    ValueError: for an unknown optimiser.
  """
  config = fields.build(config_lib.Optim, section, "optim")
  schedule = warmup_cosine(
    start_lr=config.start_lr,
    peak_lr=config.peak_lr,
    final_lr=config.final_lr,
    warmup_steps=round(config.warmup_epochs * steps_per_epoch),
    total_steps=total_steps,
  )
  shared = {"momentum": config.momentum, "nesterov": config.nesterov}
  if config.name == "lars":
    optimizer = lars(
      schedule,
      weight_decay=config.weight_decay,
      trust_coefficient=config.trust_coefficient,
      **shared,
    )
  elif config.name == "sgd":
    optimizer = sgd(schedule, weight_decay=config.weight_decay, **shared)
  elif config.name == "adamw":
    optimizer = optax.adamw(
      schedule,
      b1=config.momentum,
      b2=config.b2,
      weight_decay=config.weight_decay,
      mask=is_kernel,
      nesterov=config.nesterov,
    )
  else:
    raise errors.InputError(
      f"optim.name is {config.name!r}; known are {', '.join(OPTIMISERS)}."
    )
  return optimizer, schedule
