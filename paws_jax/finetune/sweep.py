"""Learning rates tried one after another, each scored after every epoch.

The images that score are held out of the training (`holdout`); test images are
not seen here. A member of the sweep that has ended is kept in a directory of
its own, and is not trained again when the command is repeated.
"""

from __future__ import annotations

import dataclasses
import math
import time
from collections.abc import Mapping
from collections.abc import Sequence
from typing import Any

import jax
from etils import epath

from paws_jax import errors
from paws_jax import text
from paws_jax.finetune import protocols
from paws_jax.finetune import schedule
from paws_jax.finetune import scores as scores_lib
from paws_jax.finetune import short_run
from paws_jax.parallel import mesh as mesh_lib
from paws_jax.runs import checkpoint


@dataclasses.dataclass(frozen=True, eq=False)
class Member:
  """One learning rate, trained and scored.

  Attributes:
    learning_rate: at the first step.
    epoch: whose weights are kept: of the best score, or the last one trained;
      0 when there is none, because it diverged in the first.
    score: of these weights; None: not scored.
    history: scores of all epochs, from 1.
    trouble: why it ended early; "": it did not.
    seconds: that it took.
    params: the weights.
    batch_stats: the batch statistics that belong to them.
  """

  learning_rate: float
  epoch: int
  score: scores_lib.Score | None
  history: tuple[scores_lib.Score, ...]
  trouble: str
  seconds: float
  params: Any
  batch_stats: Any

  def as_json(self) -> dict[str, Any]:
    """All but the weights."""
    fields = {f.name: getattr(self, f.name) for f in dataclasses.fields(self)}
    del fields["params"], fields["batch_stats"]
    return fields


def choose(members: Sequence[Member]) -> Member:
  """The member with the best score; of equal ones the first.

  Raises:
    errors.NonFiniteError: when none has a score.
  """
  best = None
  for member in members:
    if member.score is not None and (
      best is None or scores_lib.better(member.score, best.score)
    ):
      best = member
  if best is None:
    rates = ", ".join(f"{member.learning_rate:g}" for member in members)
    raise errors.NonFiniteError(
      f"none of the learning rates {rates} got through an epoch "
      f"({members[0].trouble}): lower finetune.learning_rates."
    )
  return best


def member(
  directory: epath.Path,
  protocol: protocols.LinearHead | protocols.Suncet,
  *,
  setup: schedule.TrainingSetup,
  learning_rate: float,
  epochs: int,
  score: scores_lib.Scorer | None,
) -> Member:
  """Trains with one learning rate, or restores what an earlier command has.

  Args:
    directory: of this member alone.
    protocol: what is trained, and how.
    setup: of `protocol`, on the images to train on.
    learning_rate: at the first step.
    epochs: to train; the schedule is that of the recipe's epochs.
    score: asked after each epoch, the best of which is kept; None: the last.

  Raises:
    errors.NonFiniteError: when it diverges, and there is no score.
    errors.CheckpointError: when it cannot be stored or restored.
    errors.BadImageError: an image cannot be read.
  """
  mesh = protocol.trained.experiment.trainer.mesh
  initial = {
    "params": protocol.initial_params(),
    "batch_stats": protocol.trained.batch_stats,
  }
  like = jax.tree.map(
    lambda x: jax.ShapeDtypeStruct(
      x.shape, x.dtype, sharding=mesh_lib.replicated(mesh)
    ),
    _to_stored(initial),
  )
  with checkpoint.Checkpointer(directory) as checkpointer:
    restored = checkpointer.restore_latest(like)
    if restored is not None:
      _, kept, meta = restored
      meta["history"] = tuple(meta["history"])
      return Member(
        **meta,
        params=kept["params"],
        batch_stats=kept["model_state"]["batch_stats"],
      )
    trained = _train(
      protocol,
      initial,
      setup=setup,
      learning_rate=learning_rate,
      epochs=epochs,
      score=score,
    )
    kept = {"params": trained.params, "batch_stats": trained.batch_stats}
    checkpointer.save(trained.epoch, _to_stored(kept), trained.as_json())
  return trained


def _to_stored(weights: Mapping[str, Any]) -> dict[str, Any]:
  """Converts weights to the tree that checkpoints of version 0.1 hold."""
  return {
    "params": weights["params"],
    "model_state": {"batch_stats": weights["batch_stats"]},
  }


def _train(
  protocol: protocols.LinearHead | protocols.Suncet,
  initial: dict[str, Any],
  *,
  setup: schedule.TrainingSetup,
  learning_rate: float,
  epochs: int,
  score: scores_lib.Scorer | None,
) -> Member:
  """Trains from the run's weights; see `member`."""
  start = time.perf_counter()
  per_epoch = setup.steps_per_epoch
  print(
    f"learning rate {learning_rate:g}: {text.count(epochs, 'epoch')} of "
    f"{text.count(per_epoch, 'step')} on {setup.num_images} labelled images"
  )
  scores = scores_lib.Scores(score, per_epoch)
  trouble = ""
  try:
    state = short_run.run(
      setup.call,
      setup.initial_state(**initial, learning_rate=learning_rate),
      setup.pipeline,
      total_steps=epochs * per_epoch,
      steps_per_epoch=per_epoch,
      images_per_step=setup.images_per_step,
      after_epoch=scores.add,
    )
  except errors.NonFiniteError as error:
    # The remedies it names are those of pre-training.
    trouble = str(error).partition(". ")[0]
    if score is None:
      raise errors.NonFiniteError(
        f"with learning rate {learning_rate:g}, {trouble}: lower "
        "finetune.learning_rates."
      ) from error
  if score is None:
    kept = {"params": state.params, "batch_stats": state.batch_stats}
    epoch = epochs
  else:
    kept, epoch = scores.kept or scores_lib.copy(initial), scores.epoch
  done = Member(
    learning_rate=learning_rate,
    epoch=epoch,
    score=scores.best,
    history=tuple(scores.history),
    trouble=trouble,
    seconds=time.perf_counter() - start,
    **kept,
  )
  _say(done)
  return done


def _say(done: Member) -> None:
  """One line about a member that has ended."""
  text = f"learning rate {done.learning_rate:g}: "
  if done.score is not None:
    text += (
      f"{done.score['top1']:.1%} of the held out images after epoch "
      f"{done.epoch}, the best of {len(done.history)}"
    )
  elif not done.trouble:
    text += f"{done.epoch} epochs done"
  if done.trouble:
    text += f" (stopped early: {done.trouble})"
  print(f"{text}; {math.ceil(done.seconds)} s")
