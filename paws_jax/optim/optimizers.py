"""Optimizers as optax chains.

Sources: You et al., Large Batch Training of Convolutional Networks, 2017
(LARS); PAWS, section 5 (2021), whose public reference fixes the details that
`lars` documents.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import optax

LARS_EPSILON = 1e-8


def is_kernel(params: Any) -> Any:
  """Marks the parameters that weight decay and LARS act on.

  Kernels of convolutions and dense layers have two or more axes; biases and the
  scales of normalization have one. So the rank of a parameter decides, not its
  name.

  Args:
    params: pytree of arrays.

  Returns:
    Pytree of bools of the same structure.
  """
  return jax.tree.map(lambda leaf: leaf.ndim > 1, params)


def lars(
  learning_rate: optax.ScalarOrSchedule,
  *,
  weight_decay: float,
  momentum: float,
  nesterov: bool,
  trust_coefficient: float,
  mask: Any = is_kernel,
  lr_in_momentum: bool = True,
  norm: str = "sum",
) -> optax.GradientTransformation:
  """LARS with momentum, as in the public PAWS reference.

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
    lr_in_momentum: False: `buf ← m·buf + g; w ← w − lr·buf`, as in PyTorch.
    norm: "decayed" for the denominator |g + wd·w|, as in the public code of
      BYOL, where a zero gradient still decays.

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
      norm=norm,
    ),
    _momentum_sgd(
      learning_rate,
      momentum=momentum,
      nesterov=nesterov,
      lr_in_momentum=lr_in_momentum,
    ),
  )


def sgd(
  learning_rate: optax.ScalarOrSchedule,
  *,
  weight_decay: float,
  momentum: float,
  nesterov: bool,
  mask: Any = is_kernel,
  lr_in_momentum: bool = True,
) -> optax.GradientTransformation:
  """SGD with weight decay and momentum; arguments as of `lars`."""
  return optax.chain(
    optax.add_decayed_weights(weight_decay, mask),
    _momentum_sgd(
      learning_rate,
      momentum=momentum,
      nesterov=nesterov,
      lr_in_momentum=lr_in_momentum,
    ),
  )


def every_parameter(params: Any) -> Any:
  """Marks all parameters, as `is_kernel` marks kernels."""
  return jax.tree.map(lambda _: True, params)


def _momentum_sgd(
  learning_rate: optax.ScalarOrSchedule,
  *,
  momentum: float,
  nesterov: bool,
  lr_in_momentum: bool,
) -> optax.GradientTransformation:
  scale = optax.scale_by_learning_rate(learning_rate)
  trace = optax.trace(decay=momentum, nesterov=nesterov)
  return optax.chain(*((scale, trace) if lr_in_momentum else (trace, scale)))


def start_at(
  optimizer: optax.GradientTransformation, first_step: int
) -> optax.GradientTransformation:
  """Leaves parameters, momentum and decay alone before a step.

  Counts of steps advance, so that schedules are those of the other parameters.

  Args:
    optimizer: from `first_step` on.
    first_step: number of steps without an update.

  Returns:
    The optax transformation; its state is (step, state of the optimizer).
  """

  def init(params: Any) -> Any:
    return jnp.zeros((), jnp.int32), optimizer.init(params)

  def update(updates: Any, state: Any, params: Any = None) -> Any:
    step, old = state
    updates, new = optimizer.update(updates, old, params)
    started = step >= first_step
    updates = jax.tree.map(
      lambda u: jnp.where(started, u, jnp.zeros_like(u)), updates
    )
    new = jax.tree.map(
      lambda n, o: (
        n if jnp.issubdtype(n.dtype, jnp.integer) else jnp.where(started, n, o)
      ),
      new,
      old,
    )
    return updates, (step + 1, new)

  return optax.GradientTransformation(init, update)


def scale_by_lars(
  *,
  weight_decay: float,
  trust_coefficient: float,
  mask: Any = is_kernel,
  norm: str = "sum",
) -> optax.GradientTransformation:
  """Adds weight decay and rescales each kernel's gradient to its norm.

  `g ← (g + wd·w) · tc·|w| / (|g| + wd·|w| + 1e-8)`, with |g| before the decay
  is added. Where |w| or |g| is 0 the gradient passes unchanged, without decay.

  Args:
    weight_decay: wd ≥ 0.
    trust_coefficient: tc > 0.
    mask: pytree of bools, or a function from params to one; True where decay
      and adaptation apply.
    norm: "sum" as above; "decayed" for `g ← g + wd·w; g ← g · tc·|w| / |g|`,
      the second only where both norms are positive.
  """

  def rescale(gradient: jax.Array, weights: jax.Array) -> jax.Array:
    ratio, applies = _trust_ratio(
      gradient,
      weights,
      weight_decay=weight_decay,
      trust_coefficient=trust_coefficient,
      norm=norm,
    )
    decayed = gradient + weight_decay * weights
    otherwise = decayed if norm == "decayed" else gradient
    return jnp.where(applies, decayed * ratio, otherwise)

  def update(updates: Any, params: Any) -> Any:
    return jax.tree.map(rescale, updates, params)

  return optax.masked(optax.stateless(update), mask)


def _trust_ratio(
  gradient: jax.Array,
  weights: jax.Array,
  *,
  weight_decay: float,
  trust_coefficient: float,
  norm: str,
) -> tuple[jax.Array, jax.Array]:
  """The factor by which LARS scales a gradient, and whether it applies."""
  weight_norm = jnp.linalg.norm(weights)
  if norm == "decayed":
    gradient_norm = jnp.linalg.norm(gradient + weight_decay * weights)
    applies = (weight_norm > 0) & (gradient_norm > 0)
    divisor = jnp.where(applies, gradient_norm, 1)
  else:
    gradient_norm = jnp.linalg.norm(gradient)
    applies = (weight_norm > 0) & (gradient_norm > 0)
    divisor = gradient_norm + weight_decay * weight_norm + LARS_EPSILON
  return trust_coefficient * weight_norm / divisor, applies


def trust_ratios(
  gradients: Any,
  params: Any,
  *,
  weight_decay: float,
  trust_coefficient: float,
  mask: Any = is_kernel,
  norm: str = "sum",
) -> dict[str, jax.Array]:
  """Minimum, median and maximum trust ratio of LARS over its parameters.

  The norms are those of `scale_by_lars`, which the compiler computes once;
  nothing moves between devices, since gradients are already summed over them.

  Args:
    gradients: pytree of arrays.
    params: pytree of the same structure, with at least one kernel.
    weight_decay: as for `lars`.
    trust_coefficient: as for `lars`.
    mask: as for `lars`.
    norm: as for `lars`.

  Returns:
    Scalars trust_ratio_min, trust_ratio_median and trust_ratio_max; a parameter
    whose gradient passes unchanged counts as 1.
  """
  ratios = []
  for gradient, weights in zip(
    jax.tree.leaves(gradients), jax.tree.leaves(params), strict=True
  ):
    if mask(weights):
      ratio, applies = _trust_ratio(
        gradient,
        weights,
        weight_decay=weight_decay,
        trust_coefficient=trust_coefficient,
        norm=norm,
      )
      ratios.append(jnp.where(applies, ratio, 1))
  each = jnp.stack(ratios)
  return {
    "trust_ratio_min": jnp.min(each),
    "trust_ratio_median": jnp.median(each),
    "trust_ratio_max": jnp.max(each),
  }
