"""The train step, and the loop around it."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax

from paws_jax import data
from paws_jax.data import sampling
from paws_jax.parallel import mesh
from paws_jax.training import state as state_lib
from paws_jax.training import views as views_lib


def init_state(
  trainer: state_lib.Trainer, batch: data.HostBatch
) -> state_lib.TrainState:
  """Initial state, replicated over the mesh.

  Args:
    trainer: method, optimiser and mesh.
    batch: ShapeDtypeStructs of a step's batch.

  Returns:
    The state at step 0; the same for the same seed on any number of devices.
  """
  shapes = jax.eval_shape(
    functools.partial(_local_views, trainer), batch, jnp.zeros((), jnp.int32)
  )

  def init() -> state_lib.TrainState:
    key = sampling.stream_key(trainer.seed, sampling.INITIALIZATION)
    # Only the shapes of the views matter, and zeros need no augmentation.
    views = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), shapes)
    params, model_state = trainer.method.init(key, views)
    return state_lib.TrainState(
      step=jnp.zeros((), jnp.int32),
      params=params,
      model_state=model_state,
      opt_state=trainer.optimizer.init(params),
      finite=jnp.ones((), bool),
    )

  return jax.jit(init, out_shardings=mesh.replicated(trainer.mesh))()


def train_step(
  trainer: state_lib.Trainer, state: state_lib.TrainState, batch: data.HostBatch
) -> tuple[state_lib.TrainState, dict[str, jax.Array]]:
  """One optimisation step; a pure function of state and batch.

  Args:
    trainer: method, optimiser, views and mesh.
    state: before the step.
    batch: the step's images, spread over the mesh.

  Returns:
    The state after it, and global scalar metrics. When the loss or the norm of
    the gradient or of the update is not finite the state comes back as it was
    but for `finite`, and stays so in later steps.
  """
  views = make_views(trainer, batch, state.step)
  (loss, (metrics, model_state)), grads = jax.value_and_grad(
    functools.partial(global_loss, trainer), has_aux=True
  )(state.params, state.model_state, views, state.step)
  updates, opt_state = trainer.optimizer.update(
    grads, state.opt_state, state.params
  )
  grad_norm = optax.tree.norm(grads)
  update_norm = optax.tree.norm(updates)
  finite = state.finite & jnp.isfinite(loss)
  finite &= jnp.isfinite(grad_norm) & jnp.isfinite(update_norm)
  after = state_lib.TrainState(
    step=state.step + 1,
    params=optax.apply_updates(state.params, updates),
    model_state=model_state,
    opt_state=opt_state,
    finite=finite,
  )
  metrics = {
    **metrics,
    "grad_norm": grad_norm,
    "update_norm": update_norm,
    "param_norm": optax.tree.norm(state.params),
    "learning_rate": trainer.schedule(state.step),
  }
  if trainer.observe is not None:
    metrics |= trainer.observe(grads, state.params)
  kept = jax.tree.map(
    lambda new, old: jnp.where(finite, new, old), after, state
  )
  return kept.replace(finite=finite), metrics


def make_views(
  trainer: state_lib.Trainer, batch: data.HostBatch, step: jax.Array
) -> data.Views:
  """Augments a global batch, every device its own rows."""
  local = functools.partial(_local_views, trainer)
  shapes = jax.eval_shape(local, batch, step)
  return mesh.shard_map(
    local,
    trainer.mesh,
    in_specs=(data.batch_specs(batch), mesh.REPLICATED),
    out_specs=data.batch_specs(shapes),
  )(batch, step)


def global_loss(
  trainer: state_lib.Trainer,
  params: Any,
  model_state: Any,
  views: data.Views,
  step: jax.Array,
) -> tuple[jax.Array, tuple[dict[str, jax.Array], Any]]:
  """The method's loss over the whole mesh; differentiate this.

  Inside `shard_map`, supports and large views form one BatchNorm batch without
  any image moving between devices. The gradient is taken outside, where it is
  that of the global mean.
  """

  def local(params, model_state, views, step):
    key = sampling.stream_key(trainer.seed, sampling.METHOD)
    key = jax.random.fold_in(key, step)
    params = mesh.varying(params)
    return trainer.method.loss(params, model_state, views, step=step, key=key)

  whole = mesh.REPLICATED
  specs = trainer.method.state_specs
  return mesh.shard_map(
    local,
    trainer.mesh,
    in_specs=(whole, specs, data.batch_specs(views), whole),
    out_specs=(whole, (whole, specs)),
  )(params, model_state, views, step)


def _local_views(
  trainer: state_lib.Trainer, batch: data.HostBatch, step: jax.Array
) -> data.Views:
  return views_lib.make_views(
    batch,
    seed=trainer.seed,
    step=step,
    config=trainer.views,
    num_support_views=trainer.num_support_views,
  )


def make_train_call(
  trainer: state_lib.Trainer, pipeline: Any, num_steps: int
) -> Callable[
  [state_lib.TrainState, Any], tuple[state_lib.TrainState, dict[str, jax.Array]]
]:
  """Several steps as one compiled program.

  Args:
    trainer: what a step needs.
    pipeline: its `batch(inputs, step)` is traced into the program.
    num_steps: length of the `lax.scan`.

  Returns:
    A jitted function of (state, pipeline.inputs(...)), which gives the state
    after `num_steps` steps and each metric as [num_steps]. The state that goes
    in is donated.
  """

  def call(state, inputs):
    def body(state, _):
      batch = pipeline.batch(inputs, state.step)
      return train_step(trainer, state, batch)

    if num_steps == 1:
      # Not a scan of one: XLA's CPU convolutions are many times slower inside
      # a loop (docs/decisions.md).
      state, metrics = body(state, None)
      return state, jax.tree.map(lambda x: x[None], metrics)
    return jax.lax.scan(body, state, length=num_steps)

  whole = mesh.replicated(trainer.mesh)
  return jax.jit(call, donate_argnums=0, out_shardings=(whole, whole))
