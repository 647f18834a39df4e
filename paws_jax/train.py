"""The train step, and the loop around it."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable
from collections.abc import Mapping
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
import optax

from paws_jax import augment
from paws_jax import data
from paws_jax import sharding
from paws_jax.data import sampling
from paws_jax.data import views as views_lib

# Metrics that stop the run when they are not finite.
_MUST_BE_FINITE = ("loss", "grad_norm", "update_norm")


class NonFiniteError(RuntimeError):
  """One of the metrics that must be finite is not."""


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
class TrainConfig:
  """Section `train` of a recipe; fields are explained in config.base."""

  batch_size: int
  epochs: int
  steps_per_call: int
  remat: str
  bn_group_size: int


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


def init_state(trainer: Trainer, batch: data.HostBatch) -> TrainState:
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

  def init() -> TrainState:
    key = sampling.stream_key(trainer.seed, sampling.INITIALISATION)
    # Only the shapes of the views matter, and zeros need no augmentation.
    views = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), shapes)
    params, model_state = trainer.method.init(key, views)
    return TrainState(
      step=jnp.zeros((), jnp.int32),
      params=params,
      model_state=model_state,
      opt_state=trainer.optimizer.init(params),
      finite=jnp.ones((), bool),
    )

  return jax.jit(init, out_shardings=sharding.replicated(trainer.mesh))()


def train_step(
  trainer: Trainer, state: TrainState, batch: data.HostBatch
) -> tuple[TrainState, dict[str, jax.Array]]:
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
  after = TrainState(
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
  trainer: Trainer, batch: data.HostBatch, step: jax.Array
) -> data.Views:
  """Augments a global batch, every device its own rows."""
  local = functools.partial(_local_views, trainer)
  shapes = jax.eval_shape(local, batch, step)
  return sharding.shard_map(
    local,
    trainer.mesh,
    in_specs=(data.batch_specs(batch), sharding.REPLICATED),
    out_specs=data.batch_specs(shapes),
  )(batch, step)


def global_loss(
  trainer: Trainer,
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
    params = sharding.varying(params)
    return trainer.method.loss(params, model_state, views, step=step, key=key)

  whole = sharding.REPLICATED
  specs = trainer.method.state_specs
  return sharding.shard_map(
    local,
    trainer.mesh,
    in_specs=(whole, specs, data.batch_specs(views), whole),
    out_specs=(whole, (whole, specs)),
  )(params, model_state, views, step)


def _local_views(
  trainer: Trainer, batch: data.HostBatch, step: jax.Array
) -> data.Views:
  return views_lib.make_views(
    batch,
    seed=trainer.seed,
    step=step,
    config=trainer.views,
    num_support_views=trainer.num_support_views,
  )


def make_train_call(
  trainer: Trainer, pipeline: Any, num_steps: int
) -> Callable[[TrainState, Any], tuple[TrainState, dict[str, jax.Array]]]:
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

  whole = sharding.replicated(trainer.mesh)
  return jax.jit(call, donate_argnums=0, out_shardings=(whole, whole))


@dataclasses.dataclass(frozen=True)
class Hooks:
  """What the loop calls at the end of a call, when its turn has come."""

  # Metrics [k] of the k steps up to a given one, all finite.
  log: Callable[[int, Mapping[str, np.ndarray]], None]
  evaluate: Callable[[TrainState, int], None]
  save: Callable[[TrainState, int], None]
  # Whether the run has been asked to stop; asked once before and after a call.
  stopping: Callable[[], bool]
  # Saves before an error that other processes may not have.
  rescue: Callable[[TrainState, int], None]
  # Called with the state, step and inputs when a number is not finite.
  not_finite: Callable[[TrainState, int, Any], None]


def loop(
  call: Callable[[TrainState, Any], Any],
  state: TrainState,
  pipeline: Any,
  *,
  first_step: int,
  total_steps: int,
  steps_per_call: int,
  eval_every: int,
  save_every: int,
  hooks: Hooks,
) -> TrainState:
  """Trains from `first_step` to `total_steps`, or until asked to stop.

  Metrics are fetched one call late, so that the host never waits for the
  device while there is work to hand out.

  Returns:
    The last state; saved.

  Raises:
    NonFiniteError: when the loss or the norm of the gradient or of the update
      is not finite.
  """
  pending = None
  step = first_step
  stop = hooks.stopping()
  while step < total_steps and not stop:
    try:
      inputs = pipeline.inputs(step, steps_per_call, busy=_busy(pending))
    except Exception:
      # An image that cannot be read costs nothing but itself.
      if pending is not None:
        _deliver(pending, state, hooks)
        hooks.rescue(state, step)
      raise
    state, metrics = call(state, inputs)
    if pending is not None:
      _deliver(pending, state, hooks)
    step += steps_per_call
    pending = (step, metrics, inputs)
    stop = hooks.stopping()
    last = stop or step >= total_steps
    save = last or (save_every and step % save_every == 0)
    evaluate = step >= total_steps or (eval_every and step % eval_every == 0)
    if save or evaluate:
      # A state is looked at or saved only when its steps are known to be good.
      _deliver(pending, state, hooks)
      pending = None
    if evaluate:
      try:
        hooks.evaluate(state, step)
      except Exception:
        # Whatever it stumbled over, the training is not lost.
        hooks.rescue(state, step)
        raise
    if save:
      hooks.save(state, step)
  return state


def _busy(pending: tuple | None) -> Callable[[], bool]:
  """Whether the device still computes the call whose metrics are pending."""
  if pending is None:
    return lambda: False
  metrics = jax.tree.leaves(pending[1])
  return lambda: not all(metric.is_ready() for metric in metrics)


def _deliver(pending: tuple, state: TrainState, hooks: Hooks) -> None:
  """Fetches the metrics of a finished call; stops at numbers not finite."""
  last_step, metrics, inputs = pending
  metrics = jax.device_get(metrics)
  finite = np.all([np.isfinite(metrics[name]) for name in _MUST_BE_FINITE], 0)
  good = len(finite) if finite.all() else int(np.argmin(finite))
  first = last_step - len(finite)
  if good:
    hooks.log(first + good, {k: v[:good] for k, v in metrics.items()})
  if good < len(finite):
    hooks.not_finite(state, first + good, inputs)
    name = next(
      name for name in _MUST_BE_FINITE if not np.isfinite(metrics[name][good])
    )
    raise NonFiniteError(
      f"{name} is {metrics[name][good]} at step {first + good}. The state "
      "before that step was kept; lower optim.peak_lr, lengthen "
      "optim.warmup_epochs or look at the images of the step."
    )
