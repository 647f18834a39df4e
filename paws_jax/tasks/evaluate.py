"""`--task=evaluate`: what a trained encoder is worth, by several protocols.

Each is a row of results.json; confusion matrix, accuracy of every class and
calibration lie in WORKDIR/evaluation. docs/evaluate.md says what they mean.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np

from paws_jax import config as config_lib
from paws_jax import errors
from paws_jax.data.labels import copies
from paws_jax.distributed import agree
from paws_jax.evaluation import class_head
from paws_jax.evaluation import embed as embed_lib
from paws_jax.evaluation import linear_protocols
from paws_jax.evaluation import pixel_baselines
from paws_jax.evaluation import protocols
from paws_jax.evaluation import result_rows
from paws_jax.evaluation import tables_and_plots
from paws_jax.finetune import frozen_trunk
from paws_jax.finetune import linear_settings
from paws_jax.predict import score
from paws_jax.runs import files as files_lib
from paws_jax.runs import out_of_memory
from paws_jax.runs import recipe as recipe_lib
from paws_jax.runs import results
from paws_jax.runs import workdir as workdir_lib
from paws_jax.training import experiment as experiment_lib
from paws_jax.training import measure
from paws_jax.training import restore


@dataclasses.dataclass(frozen=True)
class EvaluateInputs:
  """A trained encoder, and what to measure it on.

  Attributes:
    trained: of the newest checkpoint.
    part: "test", "validation" where there is no test, or "": neither.
    protocol: --protocol, which trains a linear layer; "": all others.
  """

  trained: restore.TrainedRun
  part: str
  protocol: str = ""


def prepare(
  config: config_lib.Recipe | ml_collections.ConfigDict,
  workdir: str,
  *,
  test: str | None = None,
  protocol: str | None = None,
) -> EvaluateInputs | score.ScoreInputs:
  """Opens a run and checks that there is something to measure.

  Args:
    config: the run's recipe.
    workdir: the run's directory.
    test: --test, images to measure on instead of those of the recipe.
    protocol: --protocol, one of `linear_protocols.PROTOCOLS` instead of all
      others.

  Raises:
    UserError: the input cannot be used; with a message for the user.
    errors.CheckpointError: when there is no checkpoint that is complete.
    errors.DistributedError: when the processes do not agree.
  """
  recipe = agree.on_all(lambda: config_lib.resolve(config))
  if protocol is not None:
    linear_protocols.check(protocol, test=test)
  if test is not None:
    return agree.on_all(lambda: score.prepare(recipe, workdir, test=test))
  trained = restore.load(recipe, workdir)
  dataset = trained.experiment.dataset
  parts = ("test", "validation")
  part = next((p for p in parts if getattr(dataset, p) is not None), "")
  if protocol is not None:
    agree.on_all(lambda: linear_settings.check(trained, protocol))
  elif not part and not measure.can_leave_one_out(trained.experiment):
    raise errors.InputError(
      f"{dataset.name} has no test or validation images, and no class has two "
      "different labelled images to judge one by the other: there is nothing "
      "to measure. Give test images (data.test_dir, or split = test in the "
      "manifest) or label more."
    )
  # What cannot be read now could not be added to later.
  agree.on_main(lambda: results.read_results(trained.workdir))
  agree.on_main(
    lambda: workdir_lib.check_writable(
      trained.workdir, tables_and_plots.CHECKED
    )
  )
  return EvaluateInputs(trained=trained, part=part, protocol=protocol or "")


def run(prepared: EvaluateInputs | score.ScoreInputs) -> int:
  """Measures, writes and shows.

  Returns:
    The exit status: 0.

  Raises:
    errors.BadImageError: when a test image cannot be read.
    errors.NonFiniteError: when embeddings are not finite.
    MemoryError: when the devices' memory does not suffice.
    errors.WorkdirError: when another process is using the directory, or no
      labelled image can be read.
  """
  if isinstance(prepared, score.ScoreInputs):
    with out_of_memory.evaluating(prepared.recipe):
      return score.run(prepared)
  trained, protocol = prepared.trained, prepared.protocol
  with (
    out_of_memory.evaluating(trained.recipe, linear=bool(protocol)),
    workdir_lib.run_lock(trained.workdir),
  ):
    if protocol:
      outcomes = [frozen_trunk.measure(trained, protocol, prepared.part)]
    else:
      outcomes = list(_measure(prepared))
    rows = agree.gather(
      agree.on_main(lambda: _write(trained, outcomes, subdirectory=protocol))
    )[0]
  print(f"\n{result_rows.evaluation_table(rows)}\n")
  for line in tables_and_plots.places(trained.workdir, protocol):
    print(line)
  return 0


def _measure(prepared: EvaluateInputs) -> Iterator[protocols.Outcome]:
  """Embeds the images and runs the protocols, the main one first."""
  trained, part = prepared.trained, prepared.part
  experiment = trained.experiment
  settings: dict[str, Any] = {
    "num_classes": experiment.dataset.num_classes,
    "temperature": experiment.temperature,
  }
  embed = _embedder(trained)
  supports = _supports(trained, embed("labelled"))
  if part:
    seed, queries = trained.recipe.seed, embed(part)
    if trained.recipe.method.class_head:
      assert trained.head is not None
      own = class_head.outcome(part, trained.head, queries)
      yield from _print_each(iter([own]))
    yield from _print_each(
      protocols.held_out(part, queries, supports, seed=seed, **settings)
    )
  else:
    print("no test or validation images: only leave-one-out is measured")
  # Here, since it takes reading to know which images can be read.
  if measure.can_leave_one_out(experiment):
    yield protocols.soft_nn("labelled", supports, supports, **settings)
  elif part:
    print("no class has two different labelled images: no leave-one-out")
  else:
    raise errors.WorkdirError(
      "of the labelled images that can be read no two different ones are of "
      "one class, and "
      "there are no test images: there is nothing to measure."
    )
  yield from _pixels(trained, part or "labelled")


def _pixels(trained: restore.TrainedRun, part: str) -> list[protocols.Outcome]:
  """The baselines of raw pixels; only process 0 reads the images."""
  found = agree.on_main(
    lambda: list(
      _print_each(
        pixel_baselines.outcomes(
          trained.experiment.dataset,
          part,
          temperature=trained.experiment.temperature,
          seed=trained.recipe.seed,
        )
      )
    )
  )
  return found or []


def _print_each(
  outcomes: Iterator[protocols.Outcome],
) -> Iterator[protocols.Outcome]:
  """Says how each protocol went, since some take long."""
  for outcome in outcomes:
    print(f"{outcome.title}: {outcome.top(1):.1%}")
    yield outcome


def _supports(
  trained: restore.TrainedRun, embedded: protocols.EmbeddedImages
) -> protocols.EmbeddedImages:
  """The labelled images that can be read.

  Raises:
    errors.WorkdirError: when there is none.
  """
  labelled = trained.experiment.dataset.labelled
  readable = labelled.readable
  if not readable.any():
    raise errors.WorkdirError(
      f"none of the {len(readable)} labelled images can be read: repair or "
      "replace them, and pre-train in another --workdir."
    )
  return protocols.EmbeddedImages(
    {name: rows[readable] for name, rows in embedded.layers.items()},
    embedded.labels[readable],
    copies.among(labelled.copies, readable),
  )


def all_layers(encoder: Any, crops: jax.Array) -> jax.Array:
  """Trunk features, and h and z where there are heads, side by side: [n, ·]."""
  features = encoder.features(crops, train=False)
  layers = [features]
  if encoder.projection is not None:
    layers.append(encoder.projection(features, train=False))
  if encoder.prediction is not None:
    layers.append(encoder.prediction(layers[-1], train=False))
  return jnp.concatenate(layers, axis=1)


def _embedder(trained: restore.TrainedRun) -> Any:
  """A function from the name of a part to `protocols.EmbeddedImages`."""
  experiment, recipe = trained.experiment, trained.recipe
  dataset = experiment.dataset
  _, encoder, _ = experiment_lib.create_method(
    recipe, dataset_name=dataset.name, num_classes=dataset.num_classes
  )
  every_layer = dataclasses.replace(
    experiment,
    embed=embed_lib.make_embedder(
      encoder,
      view=dataset.eval_view,
      batch_size=experiment.eval.batch_size,
      mesh=experiment.trainer.mesh,
      resize=dataset.resize,
      layers=all_layers,
    ),
  )
  heads = [
    recipe.model.output_dim
    for head in (encoder.projection, encoder.prediction)
    if head is not None
  ]

  def embed(part: str) -> protocols.EmbeddedImages:
    labels = getattr(dataset, part).labels
    print(f"embedding {len(labels)} {part} images ...")
    variables = {"params": trained.params, "batch_stats": trained.batch_stats}
    rows = measure.embed(every_layer, variables, part, step=trained.step)
    ends = np.cumsum([rows.shape[1] - sum(heads), *heads])
    trunk, *outputs = np.split(rows, ends[:-1], axis=1)
    layers = {"trunk": trunk, "z": outputs[-1] if outputs else trunk}
    if outputs:
      layers["h"] = outputs[0]
    return protocols.EmbeddedImages(layers, labels)

  return embed


def _write(
  trained: restore.TrainedRun,
  outcomes: Sequence[protocols.Outcome],
  *,
  subdirectory: str,
) -> list[dict[str, Any]]:
  """Writes rows and files; process 0 only. Gives the rows."""
  dataset = trained.experiment.dataset
  run = result_rows.describe_run(trained.recipe, dataset) | {
    "recipe": files_lib.sha256(trained.workdir / recipe_lib.RECIPE),
    "step": trained.step,
    "num_labels": int(dataset.labelled.readable.sum()),
  }
  rows = result_rows.rows(run, outcomes)
  results.append_new(trained.workdir, rows)
  tables_and_plots.write(
    trained.workdir,
    [each for each in outcomes if each.settings["embedding"] != "pixels"],
    class_names=dataset.class_names,
    source=f"{dataset.name}, step {trained.step}",
    subdirectory=subdirectory,
  )
  return rows
