"""The tasks of the command line: module, flags, help text, example."""

from __future__ import annotations

import dataclasses


@dataclasses.dataclass(frozen=True)
class Task:
  """A task.

  Tasks that work on a run have prepare(config, workdir, **flags) and
  run(prepared) in their module; the others only run.

  Attributes:
    summary: what it does, an imperative phrase.
    example: arguments of a command that does it.
    flags: names of the flags that it takes besides recipe and workdir.
    reads_recipe: finds the recipe in the directory of the run.
    after_training: uses a run that has its recipe, in one process.
  """

  summary: str
  example: str
  flags: tuple[str, ...] = ()
  reads_recipe: bool = False
  after_training: bool = False


# By name, which is also that of the module below paws_jax/tasks/.
TASKS = {
  "pretrain": Task(
    "Train by a recipe; run again to continue.",
    "--config=quickstart --workdir=runs/quickstart",
    flags=("compare_to",),
  ),
  "evaluate": Task(
    "Measure the accuracy of a run by more protocols.",
    "--workdir=runs/quickstart",
    flags=("test", "protocol"),
    reads_recipe=True,
  ),
  "finetune": Task(
    "Fine-tune the network of a run on the labelled images.",
    "--workdir=runs/quickstart",
    reads_recipe=True,
  ),
  "predict": Task(
    "Predict the classes of any images.",
    "--workdir=runs/quickstart --images=photos",
    flags=("images", "classifier", "add_class", "head", "output"),
    reads_recipe=True,
    after_training=True,
  ),
  "embed": Task(
    "Write the embeddings of any images to a file.",
    "--workdir=runs/quickstart --images=photos --output=photos.npz",
    flags=("images", "layer", "classifier", "head", "output"),
    reads_recipe=True,
    after_training=True,
  ),
  "report": Task(
    "Write a web page about a run.",
    "--workdir=runs/quickstart",
    flags=("output",),
    reads_recipe=True,
    after_training=True,
  ),
  "export": Task(
    "Export a trained classifier to other systems.",
    "--workdir=runs/quickstart --targets=stablehlo,torch",
    flags=("output", "targets", "classifier", "head"),
    reads_recipe=True,
    after_training=True,
  ),
  "doctor": Task(
    "Examine recipe and data before training.",
    "--config=quickstart",
    flags=("time_steps", "classifier"),
  ),
  "devices": Task(
    "Show the devices and the share of each.",
    "--config=quickstart",
  ),
  "plan": Task(
    "Compile a recipe for a machine that need not be there, to see whether it "
    "fits.",
    "--config=imagenet --machine=h200:8",
    flags=("machine",),
  ),
}
