"""A fine-tuning run before it starts, whatever its learning rate."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax

from paws_jax import config as config_lib
from paws_jax.parallel import mesh as mesh_lib
from paws_jax.training import experiment as experiment_lib
from paws_jax.training import state as state_lib
from paws_jax.training import step


@dataclasses.dataclass(frozen=True, eq=False)
class TrainingSetup:
  """Training on some images, with whatever learning rate.

  The program is compiled once: the learning rate is part of the optimizer's
  state, and the schedule goes from 1.

  Attributes:
    trainer: method, optimizer, views.
    pipeline: its images.
    steps_per_epoch: of the images.
    images_per_step: for the rate.
    num_images: that an epoch visits.
  """

  trainer: state_lib.Trainer
  pipeline: Any
  steps_per_epoch: int
  images_per_step: int
  num_images: int

  @functools.cached_property
  def call(self) -> Callable[[state_lib.TrainState, Any], Any]:
    """A step, compiled when it is first called."""
    return step.make_train_call(self.trainer, self.pipeline, 1)

  def initial_state(
    self, params: Any, batch_stats: Any, learning_rate: float
  ) -> state_lib.TrainState:
    """State at step 0, in memory of its own: the loop gives it away."""

    def build(params: Any, batch_stats: Any) -> state_lib.TrainState:
      params = jax.tree.map(jnp.copy, params)
      inner, _ = self.trainer.optimizer.init(params)
      return state_lib.TrainState(
        step=jnp.zeros((), jnp.int32),
        params=params,
        batch_stats=jax.tree.map(jnp.copy, batch_stats),
        opt_state=(inner, jnp.asarray(learning_rate, jnp.float32)),
        finite=jnp.ones((), bool),
      )

    whole = mesh_lib.replicated(self.trainer.mesh)
    return jax.jit(build, out_shardings=whole)(params, batch_stats)


def scale_by_state_learning_rate(
  optimizer: optax.GradientTransformation,
) -> optax.GradientTransformation:
  """Multiplies the updates by a learning rate that is part of the state.

  That is the same as a higher schedule, as the updates of SGD and LARS are
  proportional to it.

  Args:
    optimizer: whose schedule starts at 1.

  Returns:
    An optimizer whose state is (that of `optimizer`, the rate as a scalar, 1 at
    first).
  """

  def init(params: Any) -> tuple[Any, jax.Array]:
    return optimizer.init(params), jnp.ones((), jnp.float32)

  def update(
    gradients: Any, state: tuple[Any, jax.Array], params: Any = None
  ) -> tuple[Any, tuple[Any, jax.Array]]:
    inner, rate = state
    updates, inner = optimizer.update(gradients, inner, params)
    return jax.tree.map(lambda u: rate * u, updates), (inner, rate)

  return optax.GradientTransformation(init, update)


def create(
  recipe: config_lib.Recipe,
  method: Any,
  support: config_lib.Support,
  *,
  steps_per_epoch: int,
  mesh: jax.sharding.Mesh,
  change: Callable[[state_lib.Trainer], state_lib.Trainer] = lambda x: x,
  **fields: Any,
) -> TrainingSetup:
  """Builds it.

  Args:
    recipe: of the fine-tuning; its schedule starts at 1.
    method: what is trained.
    support: section `support`.
    steps_per_epoch: of the images.
    mesh: devices.
    change: of the trainer with its optimizer, before the rate becomes part of
      the state.
    **fields: the other attributes of `TrainingSetup`.
  """
  trainer = change(
    experiment_lib.create_trainer(
      recipe, method, support, steps_per_epoch=steps_per_epoch, mesh=mesh
    )
  )
  trainer = dataclasses.replace(
    trainer, optimizer=scale_by_state_learning_rate(trainer.optimizer)
  )
  return TrainingSetup(
    trainer=trainer, steps_per_epoch=steps_per_epoch, **fields
  )
