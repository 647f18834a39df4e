"""What training carries from step to step, and what a step needs besides."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import flax.struct
import jax
import optax

from paws_jax import augment


@flax.struct.dataclass
class TrainState:
  """All that training carries from step to step; a pytree of arrays."""

  # int32 scalar: steps taken.
  step: jax.Array
  params: Any
  # Batch statistics, and what else a method keeps.
  model_state: Any
  opt_state: Any
  # bool scalar; once False, steps leave the state as it is.
  finite: jax.Array


@dataclasses.dataclass(frozen=True)
class Trainer:
  """What a step needs besides state and data; nothing here changes."""

  method: Any
  optimizer: optax.GradientTransformation
  schedule: optax.Schedule
  views: augment.ViewsConfig
  num_support_views: int
  seed: int
  mesh: jax.sharding.Mesh
  # Of (gradients, params): more scalar metrics, see `optim.observer`.
  observe: Callable[[Any, Any], dict[str, jax.Array]] | None = None
