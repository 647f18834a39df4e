"""What benchmarks/step.py measures: a whole step, and its model part alone."""

from __future__ import annotations

from typing import Any

import accounting
import jax
import jax.numpy as jnp
import numpy as np
import optax
import timing

from paws_jax import data
from paws_jax import experiment as experiment_lib
from paws_jax import sharding
from paws_jax import train


class WholeStep:
  """Training as the loop of `paws_jax.train` does it, logging aside."""

  def __init__(
    self, experiment: experiment_lib.Experiment, state: train.TrainState
  ):
    self._pipeline = experiment.pipeline
    self._per_call = experiment.train.steps_per_call
    # A copy, which the first call may consume.
    self._state = jax.tree.map(jnp.copy, state)
    call = train.make_train_call(
      experiment.trainer, self._pipeline, self._per_call
    )
    inputs = self._pipeline.inputs(0, self._per_call)
    self._step = 0
    self._call = timing.compiled("whole step", call, self._state, inputs)
    self.costs = accounting.costs(
      call, (self._state, inputs), self._call, num_steps=self._per_call
    )

  def run(self, num_steps: int) -> int:
    """Takes `num_steps` steps or the calls that cover them; how many."""
    calls = -(-num_steps // self._per_call)
    for _ in range(calls):
      inputs = self._pipeline.inputs(self._step, self._per_call)
      self._state, _ = self._call(self._state, inputs)
      self._step += self._per_call
    jax.block_until_ready(self._state)
    return calls * self._per_call


class ModelPart:
  """Both passes, loss, gradient and optimiser, on views that stay."""

  def __init__(
    self,
    experiment: experiment_lib.Experiment,
    state: train.TrainState,
    views: data.Views,
  ):
    trainer = experiment.trainer

    def step(state, views):
      def objective(params):
        return train.global_loss(
          trainer, params, state.model_state, views, state.step
        )

      (loss, (_, model_state)), grads = jax.value_and_grad(
        objective, has_aux=True
      )(state.params)
      updates, opt_state = trainer.optimizer.update(
        grads, state.opt_state, state.params
      )
      state = state.replace(
        step=state.step + 1,
        params=optax.apply_updates(state.params, updates),
        model_state=model_state,
        opt_state=opt_state,
      )
      return state, loss

    whole = sharding.replicated(trainer.mesh)
    call = jax.jit(step, donate_argnums=0, out_shardings=(whole, whole))
    self._state, self._views = jax.tree.map(jnp.copy, state), views
    self._call = timing.compiled("model part", call, self._state, views)
    self.costs = accounting.costs(call, (self._state, views), self._call)

  def step(self) -> Any:
    """Takes a step; returns its loss, which may still be computed."""
    self._state, loss = self._call(self._state, self._views)
    return loss

  def run(self, num_steps: int) -> int:
    """Takes steps and waits for the last; how many."""
    for _ in range(num_steps):
      self.step()
    jax.block_until_ready(self._state)
    return num_steps


def random_views(experiment: experiment_lib.Experiment) -> data.Views:
  """Views in the shapes of a step, normally distributed; true labels."""
  trainer, pipeline = experiment.trainer, experiment.pipeline
  inputs = pipeline.inputs(0, experiment.train.steps_per_call)
  batch = jax.jit(pipeline.batch)(inputs, 0)
  shapes = jax.eval_shape(
    lambda batch: train.make_views(trainer, batch, jnp.zeros((), jnp.int32)),
    batch,
  )
  rng = np.random.default_rng(0)

  def draw(shape):
    # Not zeros: chips run faster on those.
    images = rng.standard_normal(shape.shape, np.float32)
    return jax.device_put(images, sharding.batch_sharded(trainer.mesh))

  return data.Views(
    large=jax.tree.map(draw, shapes.large),
    small=jax.tree.map(draw, shapes.small),
    support=draw(shapes.support),
    support_mask=batch.support_mask,
    support_labels=batch.support_labels,
    class_ids=batch.class_ids,
  )
