"""The train step, and several steps as one compiled program."""

from __future__ import annotations

import functools
from typing import Any

import jax
import jax.numpy as jnp
import optax

from paws_jax import data
from paws_jax.data import sampling
from paws_jax.methods import base
from paws_jax.parallel import mesh
from paws_jax.training import chunked_step
from paws_jax.training import state as state_lib
from paws_jax.training import views as views_lib

# The state after a step, and metrics.
_Stepped = tuple[state_lib.TrainState, dict[str, jax.Array]]


def init_state(
  trainer: state_lib.Trainer, batch: data.HostBatch
) -> state_lib.TrainState:
  """Draws the state at step 0, without the method's `extra`.

  Args:
    trainer: method, optimizer and mesh.
    batch: ShapeDtypeStructs of a step's batch.

  Returns:
    The state at step 0, replicated over the mesh; the same for the same seed on
    any number of devices. `add_extra` completes it.
  """
  shapes = jax.eval_shape(
    functools.partial(_local_views, trainer), batch, jnp.zeros((), jnp.int32)
  )

  def init() -> state_lib.TrainState:
    key = sampling.stream_key(trainer.seed, sampling.INITIALIZATION)
    # Only the shapes of the views matter, and zeros need no augmentation.
    views = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), shapes)
    params, batch_stats = trainer.method.init(key, views, trainer.facts)
    return state_lib.TrainState(
      step=jnp.zeros((), jnp.int32),
      params=params,
      batch_stats=batch_stats,
      opt_state=trainer.optimizer.init(params),
      finite=jnp.ones((), bool),
    )

  return jax.jit(init, out_shardings=mesh.replicated(trainer.mesh))()


def add_extra(
  trainer: state_lib.Trainer, state: state_lib.TrainState
) -> state_lib.TrainState:
  """Adds the method's `extra` to a state at step 0."""

  def init(params: Any, batch_stats: Any) -> Any:
    extra = _logical_extra(trainer, params, batch_stats)
    return state_lib.pad_extra(trainer, extra)

  extra = jax.jit(init, out_shardings=state_lib.extra_shardings(trainer))(
    state.params, state.batch_stats
  )
  return state.replace(extra=extra)


def extra_shapes(
  trainer: state_lib.Trainer, state: state_lib.TrainState
) -> Any:
  """Returns ShapeDtypeStructs of `extra` with logical numbers of rows."""
  return jax.eval_shape(
    functools.partial(_logical_extra, trainer), state.params, state.batch_stats
  )


def _logical_extra(
  trainer: state_lib.Trainer, params: Any, batch_stats: Any
) -> Any:
  key = sampling.stream_key(trainer.seed, sampling.INITIALIZATION)
  # The parameters have been drawn from `key` itself.
  key = jax.random.fold_in(key, 1)
  # Copies, since the train step donates the memory of its arrays.
  return jax.tree.map(
    jnp.copy,
    trainer.method.init_extra(key, params, batch_stats, trainer.facts),
  )


def train_step(
  trainer: state_lib.Trainer,
  state: state_lib.TrainState,
  batch: data.HostBatch,
) -> tuple[state_lib.TrainState, dict[str, jax.Array]]:
  """Takes one optimization step; a pure function of state and batch.

  Args:
    trainer: method, optimizer, views and mesh.
    state: before the step.
    batch: the step's images, spread over the mesh.

  Returns:
    The state after it, and global scalar metrics. When the loss or the norm of
    the gradient or of the update is not finite the state is unchanged but for
    `finite`, in this and all later steps.
  """
  views = make_views(
    trainer, batch, state.step, uncut=_chunking(trainer) is not None
  )
  return trainer.method.step(trainer, state, views, gradient_step)


def gradient_step(
  trainer: state_lib.Trainer,
  state: state_lib.TrainState,
  views: data.Views,
) -> tuple[state_lib.TrainState, dict[str, jax.Array]]:
  """Takes one gradient step on the method's loss; see `train_step`."""
  (_, output), grads = jax.value_and_grad(
    functools.partial(_loss_and_output, trainer), has_aux=True
  )(state.params, state.batch_stats, state.extra, views, state.step)
  return apply_gradients(trainer, state, grads, output)


def apply_gradients(
  trainer: state_lib.Trainer,
  state: state_lib.TrainState,
  grads: Any,
  output: base.Output,
) -> _Stepped:
  """Updates the state by a gradient and what the loss has given beside it."""
  updates, opt_state = trainer.optimizer.update(
    grads, state.opt_state, state.params
  )
  grad_norm = optax.tree.norm(grads)
  update_norm = optax.tree.norm(updates)
  finite = state.finite & jnp.isfinite(output.loss)
  finite &= jnp.isfinite(grad_norm) & jnp.isfinite(update_norm)
  metrics = {
    **output.metrics,
    "grad_norm": grad_norm,
    "update_norm": update_norm,
    "param_norm": optax.tree.norm(state.params),
    "learning_rate": trainer.schedule(state.step),
  }
  if trainer.observe is not None:
    metrics |= trainer.observe(grads, state.params)
  after = state.replace(
    step=state.step + 1,
    params=optax.apply_updates(state.params, updates),
    batch_stats=output.batch_stats,
    opt_state=opt_state,
  )
  after = keep_finite(after, state, finite)
  return update_extra(trainer, after, output.rows, state.step), metrics


def keep_finite(
  after: state_lib.TrainState, before: state_lib.TrainState, finite: jax.Array
) -> state_lib.TrainState:
  """Selects the state before a step that is not finite.

  Not `extra`: a selection would copy its tables at every step.
  """
  extra = after.extra
  kept = jax.tree.map(
    lambda new, old: jnp.where(finite, new, old),
    after.replace(extra=None),
    before.replace(extra=None),
  )
  return kept.replace(extra=extra, finite=finite)


def update_extra(
  trainer: state_lib.Trainer,
  state: state_lib.TrainState,
  rows: Any,
  step: jax.Array,
) -> state_lib.TrainState:
  """Calls the method's `after_update` after the optimizer's update."""
  params, extra = trainer.method.after_update(
    state.params,
    state.batch_stats,
    state.extra,
    rows,
    step=step,
    finite=state.finite,
  )
  params = jax.tree.map(
    lambda new, old: jnp.where(state.finite, new, old), params, state.params
  )
  return state.replace(params=params, extra=extra)


def make_views(
  trainer: state_lib.Trainer,
  batch: data.HostBatch,
  step: jax.Array,
  *,
  uncut: bool = False,
) -> data.Views:
  """Augments a global batch; every device augments its own rows.

  Args:
    trainer: views and mesh.
    batch: the step's images, spread over the mesh.
    step: steps taken before.
    uncut: as of `views.make_views`.
  """
  local = functools.partial(_local_views, trainer, uncut=uncut)
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
  batch_stats: Any,
  extra: Any,
  views: data.Views,
  step: jax.Array,
) -> base.Output:
  """Computes the method's loss over the entire mesh; differentiate this.

  Inside `shard_map`, supports and large views form one BatchNorm batch without
  any image moving between devices. The gradient is taken outside, where it is
  that of the global mean. `rows` come back as global arrays.
  """

  def local(
    params: Any,
    batch_stats: Any,
    extra: Any,
    views: data.Views,
    step: jax.Array,
  ) -> base.Output:
    key = sampling.stream_key(trainer.seed, sampling.METHOD)
    key = jax.random.fold_in(key, step)
    params = mesh.varying(params)
    return trainer.method.loss(
      params, batch_stats, extra, views, step=step, key=key
    )

  # Stands for the arrays of `Output`.
  replicated: Any = mesh.REPLICATED
  return mesh.shard_map(
    local,
    trainer.mesh,
    in_specs=(
      replicated,
      replicated,
      trainer.method.extra_specs,
      data.batch_specs(views),
      replicated,
    ),
    out_specs=base.Output(
      loss=replicated,
      metrics=replicated,
      batch_stats=replicated,
      rows=mesh.BATCH,
    ),
  )(params, batch_stats, extra, views, step)


def _loss_and_output(trainer: state_lib.Trainer, *arguments: Any) -> Any:
  output = global_loss(trainer, *arguments)
  return output.loss, output


def _chunking(trainer: state_lib.Trainer) -> Any:
  """How a step divides what it encodes; None: it does not."""
  return getattr(trainer.method.encoder, "chunking", None)


def _local_views(
  trainer: state_lib.Trainer,
  batch: data.HostBatch,
  step: jax.Array,
  uncut: bool = False,
) -> data.Views:
  return views_lib.make_views(
    batch,
    seed=trainer.seed,
    step=step,
    views=trainer.views,
    num_support_views=trainer.num_support_views,
    uncut=uncut,
  )


def make_train_call(
  trainer: state_lib.Trainer,
  pipeline: Any,
  num_steps: int,
  *,
  one_program: bool = False,
) -> Any:
  """Compiles several steps as one program; in chunks on a CPU, as several.

  Args:
    trainer: method, optimizer, views and mesh.
    pipeline: its `batch(inputs, step)` is traced into the program.
    num_steps: length of the `lax.scan`.
    one_program: whether chunks on a CPU are one, too: to plan for other
      devices.

  Returns:
    A jitted function of (state, pipeline.inputs(...)), which returns the state
    after `num_steps` steps and each metric as [num_steps]. Its first argument
    is donated.
  """
  as_calls = mesh.on_cpu(trainer.mesh) and not one_program
  if _chunking(trainer) is not None and as_calls:
    return chunked_step.ChunkedCall(
      trainer,
      pipeline,
      num_steps,
      make_views=functools.partial(make_views, trainer, uncut=True),
      apply_gradients=functools.partial(apply_gradients, trainer),
    )

  def call(state: state_lib.TrainState, inputs: Any) -> _Stepped:
    def body(state: state_lib.TrainState, _: None) -> _Stepped:
      batch = pipeline.batch(inputs, state.step)
      return train_step(trainer, state, batch)

    if num_steps == 1:
      # Not a scan of one: XLA's CPU convolutions are many times slower inside
      # a loop (docs/decisions.md).
      state, metrics = body(state, None)
      return state, jax.tree.map(lambda x: x[None], metrics)
    return jax.lax.scan(body, state, length=num_steps)

  shardings = state_lib.shardings(trainer), mesh.replicated(trainer.mesh)
  return jax.jit(call, donate_argnums=0, out_shardings=shardings)
