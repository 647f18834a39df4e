"""What benchmarks/step/step.py measures: a whole step, and parts of it."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from benchmarks import timing
from benchmarks.step import accounting
from paws_jax import data
from paws_jax.parallel import mesh
from paws_jax.training import experiment as experiment_lib
from paws_jax.training import state as state_lib
from paws_jax.training import step as step_lib


class Training:
  """Training as the loop of `paws_jax.training.step` does it, logging aside."""

  def __init__(
    self,
    name: str,
    experiment: experiment_lib.Experiment,
    *,
    state: state_lib.TrainState | None = None,
    steps_per_call: int = 1,
  ):
    """Compiles it.

    Args:
      name: printed with the seconds that this takes.
      experiment: what to train.
      state: to begin with, which stays as it is; None: a fresh one.
      steps_per_call: of the compiled program.
    """
    self._pipeline, self._per_call = experiment.pipeline, steps_per_call
    # The first call consumes it.
    self._state = (
      experiment.initial_state()
      if state is None
      else jax.tree.map(jnp.copy, state)
    )
    self._jitted = step_lib.make_train_call(
      experiment.trainer, self._pipeline, self._per_call
    )
    self._step = 0
    self._call = timing.compiled(
      name, self._jitted, self._state, self._inputs()
    )

  def _inputs(self) -> Any:
    return self._pipeline.inputs(self._step, self._per_call)

  def costs(self) -> accounting.StepCosts:
    """Of one step on one device."""
    arguments = (self._state, self._inputs())
    return accounting.costs(
      self._jitted, arguments, self._call, num_steps=self._per_call
    )

  def run(self, num_steps: int) -> int:
    """Takes `num_steps` steps or the calls that cover them; how many."""
    calls = -(-num_steps // self._per_call)
    for _ in range(calls):
      self._state, _ = self._call(self._state, self._inputs())
      self._step += self._per_call
    jax.block_until_ready(self._state)
    return calls * self._per_call


class ModelPart:
  """Both passes, loss, gradient and optimiser, on views that stay.

  Attributes:
    state: after the last step, which may still be computed.
  """

  def __init__(
    self,
    experiment: experiment_lib.Experiment,
    state: state_lib.TrainState,
    views: data.Views,
  ):
    trainer = experiment.trainer

    def step(state, views):
      def objective(params):
        output = step_lib.global_loss(
          trainer, params, state.batch_stats, state.extra, views, state.step
        )
        return output.loss, output.batch_stats

      (loss, batch_stats), grads = jax.value_and_grad(objective, has_aux=True)(
        state.params
      )
      updates, opt_state = trainer.optimizer.update(
        grads, state.opt_state, state.params
      )
      state = state.replace(
        step=state.step + 1,
        params=optax.apply_updates(state.params, updates),
        batch_stats=batch_stats,
        opt_state=opt_state,
      )
      return state, loss

    whole = mesh.replicated(trainer.mesh)
    self._jitted = jax.jit(step, donate_argnums=0, out_shardings=(whole, whole))
    self.state, self._views = jax.tree.map(jnp.copy, state), views
    self._call = timing.compiled("model part", self._jitted, self.state, views)

  def costs(self) -> accounting.StepCosts:
    """Of one step on one device."""
    arguments = (self.state, self._views)
    return accounting.costs(self._jitted, arguments, self._call)

  def step(self, views: data.Views | None = None) -> Any:
    """Takes a step; returns its loss, which may still be computed.

    Args:
      views: default those that stay.
    """
    views = self._views if views is None else views
    self.state, loss = self._call(self.state, views)
    return loss

  def run(self, num_steps: int) -> int:
    """Takes steps and waits for the last; how many."""
    for _ in range(num_steps):
      self.step()
    jax.block_until_ready(self.state)
    return num_steps


class WithAugmentation:
  """The model part on views that are cut and distorted anew for each step.

  They are made as in a whole step, but by a program of their own, which hands
  them to the model part's.
  """

  def __init__(
    self,
    experiment: experiment_lib.Experiment,
    model_part: ModelPart,
    batch: data.HostBatch,
  ):
    """Compiles the making of the views.

    Args:
      experiment: what is trained.
      model_part: of it; its state goes on.
      batch: the images, always these.
    """

    def cut(batch, step):
      return step_lib.make_views(experiment.trainer, batch, step)

    self._model_part, self._batch = model_part, batch
    self._cut = timing.compiled(
      "views", jax.jit(cut), batch, model_part.state.step
    )

  def run(self, num_steps: int) -> int:
    """Takes steps and waits for the last; how many."""
    for _ in range(num_steps):
      self._model_part.step(self._cut(self._batch, self._model_part.state.step))
    jax.block_until_ready(self._model_part.state)
    return num_steps


def first_batch(experiment: experiment_lib.Experiment) -> data.HostBatch:
  """The images of step 0."""
  pipeline = experiment.pipeline
  inputs = pipeline.inputs(0, experiment.train.steps_per_call)
  return jax.jit(pipeline.batch)(inputs, 0)


def random_views(
  experiment: experiment_lib.Experiment, batch: data.HostBatch
) -> data.Views:
  """Views in the shapes of a batch's, normally distributed; true labels."""
  trainer = experiment.trainer
  shapes = jax.eval_shape(
    lambda batch: step_lib.make_views(trainer, batch, jnp.zeros((), jnp.int32)),
    batch,
  )
  rng = np.random.default_rng(0)

  def draw(shape):
    # Not zeros: chips run faster on those.
    images = rng.standard_normal(shape.shape, np.float32)
    return jax.device_put(images, mesh.batch_sharded(trainer.mesh))

  return data.Views(
    crops=jax.tree.map(draw, shapes.crops),
    ids=batch.unlabelled and batch.unlabelled.id,
    support=draw(shapes.support),
    support_ids=batch.support.id,
    support_mask=batch.support_mask,
    support_labels=batch.support_labels,
    class_ids=batch.class_ids,
  )
