"""A train step in chunks as several compiled calls, for CPUs.

One program, with a scan over the chunks, would be many times slower there
(docs/decisions.md). The calls of a step are: the batch; the embeddings of each
chunk, without gradient; the loss of all embeddings, with the gradient of the
embeddings; each chunk once more with the gradient of the parameters, which is
added up on each device; the optimizer.
"""

from __future__ import annotations

import contextlib
import copy
import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from paws_jax import data
from paws_jax.data import sampling
from paws_jax.methods import base
from paws_jax.methods import chunks
from paws_jax.parallel import mesh as mesh_lib
from paws_jax.training import state as state_lib

# Arguments of a program: parameters, statistics and the method's other state,
# views, step.
_Arguments = tuple[Any, Any, Any, data.Views, jax.Array]
# Specs, which stand for arrays in the types of results.
_EVERYWHERE: Any = mesh_lib.REPLICATED
_SPREAD: Any = mesh_lib.BATCH


class ChunkedCall:
  """Several steps; used as what `jax.jit` gives of a function of the same."""

  def __init__(
    self,
    trainer: state_lib.Trainer,
    pipeline: Any,
    num_steps: int,
    *,
    make_views: Callable[[data.HostBatch, jax.Array], data.Views],
    apply_gradients: Callable[..., Any],
  ):
    """Stores what a step consists of.

    Args:
      trainer: method, optimizer, views and mesh.
      pipeline: its `batch(inputs, step)` is traced.
      num_steps: steps of a call.
      make_views: of (batch, step), views that are not cut.
      apply_gradients: of (state, gradients, output), the state after a step and
        its metrics.
    """
    self._trainer, self._num_steps = trainer, num_steps
    self._shapes: tuple[Any, Any] = (None, None)
    self._views: Any = jax.jit(
      lambda inputs, step: make_views(pipeline.batch(inputs, step), step)
    )
    self._programs = _Programs(trainer)
    shardings = state_lib.shardings(trainer), mesh_lib.replicated(trainer.mesh)
    self._apply: Any = jax.jit(
      lambda state, gradients, output: apply_gradients(
        state, _total(*gradients), output
      ),
      out_shardings=shardings,
    )

  def lower(self, state: Any, inputs: Any) -> ChunkedCall:
    """Returns a call that `compile` compiles for arguments of these shapes."""
    call = copy.copy(self)
    call._shapes = (state, inputs)
    return call

  def compile(self) -> ChunkedCall:
    """Compiles all programs; otherwise each when it is first called."""
    state, inputs = self._shapes
    programs, number = self._programs, np.int32(0)
    self._views, views = _compiled(self._views, inputs, state.step)
    arguments = (
      state.params,
      state.batch_stats,
      state.extra,
      views,
      state.step,
    )
    programs.encode, encoded = _compiled(programs.encode, *arguments, number)
    programs.loss, (output, direct, of_rows) = _compiled(
      programs.loss, *arguments, [encoded] * programs.count
    )
    programs.zeros, zeros = _compiled(programs.zeros, state.params)
    programs.backward, gradients = _compiled(
      programs.backward, *arguments, number, of_rows[0], zeros
    )
    self._apply, _ = _compiled(self._apply, state, (direct, gradients), output)
    return self

  def __call__(
    self, state: state_lib.TrainState, inputs: Any
  ) -> tuple[state_lib.TrainState, dict[str, jax.Array]]:
    """Takes the steps; returns the state, and each metric as [steps]."""
    rows = []
    for _ in range(self._num_steps):
      views = self._views(inputs, state.step)
      state, metrics = self._trainer.method.step(
        self._trainer, state, views, self._gradient_step
      )
      rows.append(metrics)
    return state, jax.tree.map(lambda *x: jnp.stack(x), *rows)

  def _gradient_step(
    self,
    trainer: state_lib.Trainer,
    state: state_lib.TrainState,
    views: data.Views,
  ) -> tuple[state_lib.TrainState, dict[str, jax.Array]]:
    """Takes the place of `step.gradient_step`."""
    del trainer
    programs = self._programs
    arguments = (
      state.params,
      state.batch_stats,
      state.extra,
      views,
      state.step,
    )
    numbers = np.arange(programs.count, dtype=np.int32)
    encoded = [programs.encode(*arguments, number) for number in numbers]
    output, direct, of_rows = programs.loss(*arguments, encoded)
    gradients = programs.zeros(state.params)
    for number, of_chunk in zip(numbers, of_rows, strict=True):
      gradients = programs.backward(*arguments, number, of_chunk, gradients)
    return self._apply(state, (direct, gradients), output)


def _compiled(jitted: Any, *arguments: Any) -> tuple[Any, Any]:
  """Returns the compiled function, and what it returns as shapes."""
  lowered = jitted.lower(*arguments)
  compiled = lowered.compile()
  shapes = jax.tree.map(
    lambda info, sharding: jax.ShapeDtypeStruct(
      info.shape, info.dtype, sharding=sharding
    ),
    lowered.out_info,
    compiled.output_shardings,
  )
  return compiled, shapes


class _Programs:
  """The compiled functions of a gradient step.

  Attributes:
    count: chunks of each device.
  """

  def __init__(self, trainer: state_lib.Trainer):
    self._trainer = trainer
    # Passes of images in the loss; None: it has not been traced yet.
    self._num_passes: int | None = None
    self.count = trainer.method.encoder.chunking.count
    self.encode: Any = jax.jit(self._encode)
    self.loss: Any = jax.jit(self._loss)
    self.backward: Any = jax.jit(self._backward, donate_argnums=7)
    self.zeros: Any = jax.jit(self._zeros)

  def _specs(self, arguments: _Arguments) -> tuple[Any, ...]:
    extra = self._trainer.method.extra_specs
    views = data.batch_specs(arguments[3])
    return _EVERYWHERE, _EVERYWHERE, extra, views, _EVERYWHERE

  def _method_loss(self, chunking: Any, arguments: _Arguments) -> base.Output:
    """Computes the loss of a device, its passes as `chunking` says."""
    method = self._trainer.method
    params, batch_stats, extra, views, step = arguments
    encoder = method.encoder.clone(chunking=chunking)
    key = sampling.stream_key(self._trainer.seed, sampling.METHOD)
    return dataclasses.replace(method, encoder=encoder).loss(
      params,
      batch_stats,
      extra,
      views,
      step=step,
      key=jax.random.fold_in(key, step),
    )

  def _chunk(self, arguments: _Arguments, number: jax.Array) -> chunks.Encoded:
    """Encodes one chunk of every pass of images; fields are lists of passes."""
    # The first time all of the loss is traced, of which nothing else is used.
    chunking = chunks.OneChunk(self.count, number, self._num_passes)
    with contextlib.suppress(chunks.EnoughError):
      self._method_loss(chunking, arguments)
    self._num_passes = len(chunking.encoded)
    rows, change, weight = zip(*chunking.encoded, strict=True)
    # Lists, which stand for the arrays of each pass.
    fields: Any = list(rows), list(change), list(weight)
    return chunks.Encoded(*fields)

  def _encode(self, *arguments: Any) -> chunks.Encoded:
    *rest, number = arguments

    def local(number: jax.Array, *arguments: Any) -> chunks.Encoded:
      params, *others = arguments
      return self._chunk((mesh_lib.varying(params), *others), number)

    return mesh_lib.shard_map(
      local,
      self._trainer.mesh,
      in_specs=(_EVERYWHERE, *self._specs(tuple(rest))),
      out_specs=chunks.Encoded(_SPREAD, _EVERYWHERE, _EVERYWHERE),
    )(jnp.asarray(number), *rest)

  def _loss(self, *arguments: Any) -> tuple[base.Output, Any, list[Any]]:
    """Returns loss, its gradient outside of the chunks, and of their rows."""
    *rest, encoded = arguments
    params, *others = rest

    def local(rows: Any, updates: Any, *arguments: Any) -> base.Output:
      params, *others = arguments
      given = [
        chunks.Encoded(of_chunk, *update)
        for of_chunk, update in zip(rows, updates, strict=True)
      ]
      return self._method_loss(
        chunks.Given(given), (mesh_lib.varying(params), *others)
      )

    def loss(params: Any, rows: Any) -> tuple[jax.Array, base.Output]:
      output = mesh_lib.shard_map(
        local,
        self._trainer.mesh,
        in_specs=(_SPREAD, _EVERYWHERE, *self._specs(tuple(rest))),
        out_specs=base.Output(_EVERYWHERE, _EVERYWHERE, _EVERYWHERE, _SPREAD),
      )(rows, [each[1:] for each in encoded], params, *others)
      return output.loss, output

    (_, output), (direct, of_rows) = jax.value_and_grad(
      loss, argnums=(0, 1), has_aux=True
    )(params, [each.rows for each in encoded])
    return output, direct, of_rows

  def _backward(self, *arguments: Any) -> Any:
    """Adds a chunk's gradient of the parameters to those before it."""
    *rest, number, of_rows, gradients = arguments

    def local(
      number: jax.Array, of_rows: Any, gradients: Any, *arguments: Any
    ) -> Any:
      params, *others = arguments

      def rows(params: Any) -> Any:
        return self._chunk((params, *others), number).rows

      _, transpose = jax.vjp(rows, mesh_lib.varying(params))
      (more,) = transpose(of_rows)
      return jax.tree.map(lambda x, y: x + y[None], gradients, more)

    return mesh_lib.shard_map(
      local,
      self._trainer.mesh,
      in_specs=(_EVERYWHERE, _SPREAD, _SPREAD, *self._specs(tuple(rest))),
      out_specs=_SPREAD,
    )(jnp.asarray(number), of_rows, gradients, *rest)

  def _zeros(self, params: Any) -> Any:
    """Makes a gradient of zeros for each device: [devices, ...]."""
    size = self._trainer.mesh.size
    zeros = jax.tree.map(lambda x: jnp.zeros((size, *x.shape), x.dtype), params)
    return mesh_lib.constrain(zeros, mesh_lib.batch_sharded(self._trainer.mesh))


def _total(direct: Any, gradients: Any) -> Any:
  """Sums the gradients of the chunks over the devices, and adds the others."""
  return jax.tree.map(lambda x, y: x + jnp.sum(y, axis=0), direct, gradients)
