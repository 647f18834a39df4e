"""`--task=finetune`: train on the labels what pre-training has left.

The protocol of ImageNet or that of CIFAR (`finetune.protocols`). Learning rate
and number of epochs are chosen on labelled images that are held out
(`holdout`). Unless the recipe says otherwise, all labelled images are then
trained on in the same way. Test images are used once, at the end.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import time
from typing import Any

import jax
import ml_collections
from etils import epath

from paws_jax import config as config_lib
from paws_jax import errors
from paws_jax.classifier import files
from paws_jax.data.labels import split
from paws_jax.distributed import agree
from paws_jax.evaluation import result_rows
from paws_jax.finetune import holdout as holdout_lib
from paws_jax.finetune import labelled
from paws_jax.finetune import protocols
from paws_jax.finetune import results
from paws_jax.finetune import scores
from paws_jax.finetune import sweep
from paws_jax.runs import digests
from paws_jax.runs import out_of_memory
from paws_jax.runs import provenance
from paws_jax.runs import recipe as recipe_lib
from paws_jax.runs import results as results_lib
from paws_jax.runs import workdir as workdir_lib
from paws_jax.training import restore

TASK = "finetune"
# The classifier that comes out, and what the sweep has tried, in the workdir.
FINETUNED = workdir_lib.FINETUNED
SWEEPS = "finetuning"

# Nothing that is trained depends on these fields.
_INDIFFERENT = ("log.", "eval.", "checkpoint.")
# The result depends on these, a member of the sweep does not.
_CHOICE = ("learning_rates", "refit")


@dataclasses.dataclass(frozen=True, eq=False)
class FinetuneInputs:
  """A trained run, and what will be done with it.

  Attributes:
    trained: the run.
    protocol: how it is fine-tuned.
    holdout: which labelled images train, and which choose.
    sweep_id: hex digest of all that a member of the sweep depends on but its
      learning rate.
    run_id: hex digest of all that the result depends on.
  """

  trained: restore.TrainedRun
  protocol: protocols.LinearHead | protocols.Suncet
  holdout: holdout_lib.HoldOut
  sweep_id: str
  run_id: str


def prepare(
  config: config_lib.Recipe | ml_collections.ConfigDict, workdir: str
) -> FinetuneInputs:
  """Restores the run and parts its labelled images.

  Args:
    config: the run's recipe; section `finetune` may differ.
    workdir: the run's directory.

  Raises:
    UserError: the input cannot be used; with a message for the user.
    errors.CheckpointError: when there is no checkpoint that is complete.
    errors.DisagreementError: when the processes have other recipes.
  """
  recipe = agree.on_all(lambda: config_lib.resolve(config))
  same = json.dumps(recipe_lib.identity(recipe), sort_keys=True)
  agree.agree(recipe=same, code=provenance.code_hash())
  trained = restore.load(recipe, workdir)
  agree.on_main(lambda: workdir_lib.check_writable(trained.workdir))
  protocol = protocols.PROTOCOLS[recipe.finetune.protocol](trained)
  dataset = trained.experiment.dataset
  readable = labelled.readable(trained)

  def part() -> holdout_lib.HoldOut:
    parts = holdout_lib.create(recipe, dataset, readable)
    most = parts.labelled_ids if recipe.finetune.refit else parts.ids
    protocol.check(len(most))
    return parts

  parts = agree.on_all(part)
  fields = {
    name: value
    for name, value in recipe_lib.identity(recipe).items()
    if not name.startswith(_INDIFFERENT)
  }
  choice = {name: fields.pop(f"finetune.{name}") for name in _CHOICE}
  identity = {
    "recipe": fields,
    "step": trained.step,
    # There may be others at the same step, from another start.
    "weights": _weights(trained),
    "split": split.split_hash(dataset.split.fingerprint, parts.labelled_ids),
    "holdout": parts.hash,
  }
  return FinetuneInputs(
    trained=trained,
    protocol=protocol,
    holdout=parts,
    sweep_id=_digest(identity),
    run_id=_digest(identity | choice),
  )


def _weights(trained: restore.TrainedRun) -> list[int]:
  """Digests of the arrays that fine-tuning starts from."""
  arrays = trained.params, trained.batch_stats
  found = jax.device_get(jax.tree.leaves(digests.compute(arrays)))
  return [int(digest) for digest in found]


def _digest(value: Any) -> str:
  text = json.dumps(value, sort_keys=True)
  return hashlib.sha256(text.encode()).hexdigest()[:16]


def run(prepared: FinetuneInputs) -> int:
  """Sweeps, trains, saves the classifier, measures it; the exit status.

  Raises:
    errors.BadImageError: when an image cannot be read.
    errors.NonFiniteError: when every learning rate diverges.
    errors.CheckpointError: when weights cannot be written or read.
    MemoryError: when the devices' memory does not suffice.
    errors.WorkdirError: when another process is using the directory.
  """
  workdir = prepared.trained.workdir
  with (
    out_of_memory.finetuning(prepared.trained.recipe),
    workdir_lib.run_lock(workdir),
  ):
    # A directory may look different from elsewhere: process 0 decides.
    row = agree.gather(_finished_row(prepared))[0]
    if row is None:
      row = _finetune(prepared)
    else:
      print("this fine-tuning is finished; its result:")
  print(f"\n{results.table(row)}")
  print(f"classifier  {workdir / FINETUNED}")
  print(f"results     {workdir / results_lib.RESULTS}")
  return 0


def _finetune(prepared: FinetuneInputs) -> dict[str, Any]:
  """From the sweep to the row in results.json."""
  start = time.perf_counter()
  trained = prepared.trained
  members = _sweep(prepared)
  chosen = sweep.choose(members) if prepared.holdout.scored else members[0]
  final = _refit(prepared, chosen) if _refits(prepared) else chosen
  save(prepared, final)
  measured = {
    "learning_rate": chosen.learning_rate,
    "epochs": chosen.epoch,
    "num_holdout": chosen.score["num_images"] if chosen.score else 0,
    "holdout_top1": chosen.score and chosen.score["top1"],
    "sweep": [results.summary(member) for member in members],
    **results.measure(prepared.protocol, final),
    "wall_seconds": time.perf_counter() - start,
  }
  protocol = trained.recipe.finetune.protocol
  row = result_rows.create(TASK, protocol, _describe(prepared), measured)
  agree.on_main(lambda: results_lib.append_result(trained.workdir, row))
  return row


def _sweep(prepared: FinetuneInputs) -> list[sweep.Member]:
  """All learning rates; without a hold-out the one, on all labelled images."""
  section = prepared.trained.recipe.finetune
  score = scores.scorer(prepared.protocol, prepared.holdout)
  setup = prepared.protocol.setup(prepared.holdout.ids)
  return [
    sweep.member(
      _directory(prepared) / f"lr-{learning_rate!r}",
      prepared.protocol,
      setup=setup,
      learning_rate=learning_rate,
      epochs=section.epochs,
      score=score,
    )
    for learning_rate in map(float, section.learning_rates)
  ]


def _directory(prepared: FinetuneInputs) -> epath.Path:
  return prepared.trained.workdir / SWEEPS / prepared.sweep_id


def _refits(prepared: FinetuneInputs) -> bool:
  """Whether there are labelled images left that were not trained on."""
  parts = prepared.holdout
  some_left = len(parts.ids) < len(parts.labelled_ids)
  return prepared.trained.recipe.finetune.refit and some_left


def _refit(prepared: FinetuneInputs, chosen: sweep.Member) -> sweep.Member:
  """All labelled images, trained on as was best.

  The learning rate falls as it did then, and training stops at the same epoch.
  """
  name = f"refit-lr-{chosen.learning_rate!r}-epochs-{chosen.epoch}"
  return sweep.member(
    _directory(prepared) / name,
    prepared.protocol,
    setup=prepared.protocol.setup(prepared.holdout.labelled_ids),
    learning_rate=chosen.learning_rate,
    epochs=chosen.epoch,
    score=None,
  )


def save(prepared: FinetuneInputs, final: sweep.Member) -> None:
  """Writes the classifier; of several processes all call it.

  Raises:
    errors.WorkdirError: when it cannot be made, or something else is there.
  """
  from paws_jax.training import save_classifier

  directory = prepared.trained.workdir / FINETUNED
  try:
    made = save_classifier.from_trained(
      prepared.trained,
      params=prepared.protocol.encoder_params(final.params),
      batch_stats=final.batch_stats,
      head=prepared.protocol.head(final.params),
    )
    # Which result belongs to it, see `_found`.
    origin = {**made.origin, "finetuned": True, "run_id": prepared.run_id}
    made = dataclasses.replace(made, origin=origin)
    agree.on_main(lambda: save_classifier.save(made, directory))
  except ValueError as error:
    raise errors.WorkdirError(
      f"{directory} was not written: {error}"
    ) from error


def _describe(prepared: FinetuneInputs) -> dict[str, Any]:
  """Fields of the row that say which run was fine-tuned on which images."""
  recipe = prepared.trained.recipe
  dataset = prepared.trained.experiment.dataset
  rates = {}
  if not prepared.protocol.votes:
    section = recipe.finetune
    rates = {
      "schedule": section.schedule,
      "head_learning_rate_ratio": section.head_learning_rate_ratio,
    }
  return result_rows.describe_run(recipe, dataset) | {
    **rates,
    "num_labels": len(prepared.holdout.labelled_ids),
    "steps": prepared.trained.step,
    "holdout": recipe.finetune.holdout,
    "holdout_hash": prepared.holdout.hash,
    "refit": _refits(prepared),
    "run_id": prepared.run_id,
  }


def _finished_row(prepared: FinetuneInputs) -> dict[str, Any] | None:
  """The result of an earlier command, if its classifier is the one there."""
  workdir = prepared.trained.workdir
  rows = [
    row for row in results_lib.read_results(workdir) if row.get("task") == TASK
  ]
  if not rows or rows[-1].get("run_id") != prepared.run_id:
    return None
  try:
    settings = files.settings_in(workdir / FINETUNED)
  except errors.ClassifierError:
    return None
  origin = (settings or {}).get("origin") or {}
  return rows[-1] if origin.get("run_id") == prepared.run_id else None
