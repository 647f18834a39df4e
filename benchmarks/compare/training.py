"""Training at a known cost, by programs that are compiled once."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable
from collections.abc import Sequence
from typing import Any
from typing import NamedTuple

import jax
import numpy as np

from benchmarks.compare import data as comparison_data
from paws_jax.data import sampling
from paws_jax.parallel import mesh as mesh_lib
from paws_jax.plan import traced_costs
from paws_jax.runs import progress as progress_lib
from paws_jax.training import epochs as epochs_lib
from paws_jax.training import experiment as experiment_lib
from paws_jax.training import intervals
from paws_jax.training import loop
from paws_jax.training import state as state_lib
from paws_jax.training import step as step_lib


@dataclasses.dataclass(frozen=True)
class Spent:
  """What training has cost; `+` adds phases up.

  Attributes:
    steps: of the optimiser.
    images: taken into steps, unlabelled and labelled ones, repeats counted.
    views: crops of them that passed through the trained encoder.
    flops: of convolutions and matrix products of the steps, those of an average
      network among them, of all devices together.
    seconds: without compiling the steps; with what is done between epochs, and
      in the first cell of a method with compiling that.
    compile_seconds: 0 where the program was there already.
  """

  steps: int = 0
  images: int = 0
  views: int = 0
  flops: int = 0
  seconds: float = 0.0
  compile_seconds: float = 0.0

  def __add__(self, other: Spent) -> Spent:
    mine, theirs = dataclasses.astuple(self), dataclasses.astuple(other)
    return Spent(*(a + b for a, b in zip(mine, theirs, strict=True)))


class Padded:
  """A pipeline whose inputs have one shape, however many labels there are."""

  def __init__(self, pipeline: Any, mesh: jax.sharding.Mesh):
    """Widens the lists of labelled images with empty places."""
    self._pipeline = pipeline
    self.batch = pipeline.batch
    index = self._index = pipeline.inputs(0, 1).label_index
    # Methods that need no label have none.
    if index is None:
      return
    ids = np.asarray(index.ids)
    room = comparison_data.MOST_LABELS - ids.shape[1]
    wide = np.pad(ids, [(0, 0), (0, room)], constant_values=-1)
    self._index = mesh_lib.replicate(
      sampling.LabelIndex(wide, np.asarray(index.counts)), mesh
    )

  def inputs(self, first_step: int, num_steps: int, *, busy: Any = None) -> Any:
    """As of `memory_pipeline.InMemory`."""
    inputs = self._pipeline.inputs(first_step, num_steps, busy=busy)
    return inputs._replace(label_index=self._index)


class Between(NamedTuple):
  """What a method does between epochs, such as clustering; by default nothing.

  Attributes:
    every: when; by default never.
    act: returns the state to continue with, of a state and its step.
  """

  every: loop.Intervals = loop.Intervals()
  act: Callable[[state_lib.TrainState, int], state_lib.TrainState] = (
    lambda state, step: state
  )


_NOTHING = Between()


def between_epochs(experiment: experiment_lib.Experiment) -> Between:
  """Returns what the method of an experiment does between epochs."""
  return Between(
    intervals.create(experiment),
    lambda state, step: epochs_lib.end_epoch(experiment, state, step),
  )


class Programs:
  """Compiled steps by name and shapes, with their FLOPs."""

  def __init__(self):
    """Starts with none."""
    self._programs: dict[Any, tuple[Any, int]] = {}

  def train(
    self,
    name: str,
    trainer: state_lib.Trainer,
    pipeline: Padded,
    state: state_lib.TrainState,
    *,
    images: int,
    views: int,
    num_steps: int,
    between: Between = _NOTHING,
  ) -> tuple[state_lib.TrainState, Spent]:
    """Takes all steps.

    Args:
      name: of a step that is the same for all who give it, with as many steps
        and a state of such shapes: tables of labelled images may differ.
      trainer: what a step needs.
      pipeline: its images.
      state: at step 0; it is given away.
      images: that a step takes.
      views: that a step encodes.
      num_steps: to take.
      between: of the method.

    Raises:
      errors.NonFiniteError: training diverges.
    """
    compile_seconds = 0.0
    shapes = tuple(leaf.shape for leaf in jax.tree.leaves(state))
    key = (name, num_steps, shapes)
    if key not in self._programs:
      start = time.perf_counter()
      call = step_lib.make_train_call(trainer, pipeline, 1)
      traced = call.trace(state, pipeline.inputs(0, 1))
      # Counted as one device does them.
      flops = traced_costs.flops(traced.jaxpr.jaxpr) * trainer.mesh.size
      self._programs[key] = (traced.lower().compile(), flops)
      compile_seconds = time.perf_counter() - start
      print(
        f"compiled {name.split()[0]} in {compile_seconds:.0f} s", flush=True
      )
    call, flops = self._programs[key]
    start = time.perf_counter()
    state = _loop(
      call,
      state,
      pipeline,
      images=images,
      num_steps=num_steps,
      losses=trainer.method.shown_losses,
      between=between,
    )
    return state, Spent(
      steps=num_steps,
      images=images * num_steps,
      views=views * num_steps,
      flops=flops * num_steps,
      seconds=time.perf_counter() - start,
      compile_seconds=compile_seconds,
    )


def _loop(
  call: Any,
  state: state_lib.TrainState,
  pipeline: Padded,
  *,
  images: int,
  num_steps: int,
  losses: Sequence[str],
  between: Between,
) -> state_lib.TrainState:
  """Trains; nothing is evaluated or saved on the way."""
  progress = progress_lib.Progress(
    total_steps=num_steps,
    first_step=0,
    images_per_step=images,
    losses=losses,
    interval=30.0,
  )

  def log(step: int, values: dict[str, np.ndarray]) -> None:
    progress.show(step, {name: float(v[-1]) for name, v in values.items()})

  def nothing(*unused: Any) -> None:
    """A cell is stored when it has ended, not before."""

  try:
    return loop.loop(
      call,
      state,
      pipeline,
      first_step=0,
      total_steps=num_steps,
      every=between.every,
      hooks=loop.Hooks(
        log=log,
        evaluate=nothing,
        save=nothing,
        stopping=lambda: False,
        rescue=nothing,
        not_finite=nothing,
        epoch_end=between.act,
      ),
      epoch_due=True,
    )
  finally:
    progress.end()
