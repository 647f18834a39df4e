"""Findings about steps, sizes, the learning rate and memory."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping

import jax

from paws_jax import config as config_lib
from paws_jax import text as text_lib
from paws_jax.data import memory_pipeline
from paws_jax.data.sources import catalog
from paws_jax.doctor import findings
from paws_jax.parallel import mesh as mesh_lib
from paws_jax.plan import memory as memory_lib
from paws_jax.training import experiment as experiment_lib

# The quickstart on digits is below raw pixels after 33 steps, and close to its
# final accuracy after 330; it takes 1,430.
_FEW_STEPS = 300
_ENOUGH_STEPS = 1000


def steps(
  report: findings.Report,
  recipe: config_lib.Recipe,
  listing: catalog.Catalog,
  *,
  num_labelled: int,
  crops: Mapping[str, config_lib.ViewSpec],
) -> None:
  """Reports steps and batch sizes, in total and per device.

  Args:
    report: receives the findings.
    recipe: a valid recipe.
    listing: the data.
    num_labelled: training images whose label is used.
    crops: of the unlabelled images, by name.
  """
  mesh = mesh_lib.make_mesh()
  batch_size, epochs = recipe.train.batch_size, recipe.train.epochs
  pool = len(listing.train.labels)
  with_labelled = recipe.data.include_labelled
  pool -= 0 if with_labelled else num_labelled
  per_epoch, left = divmod(pool, batch_size)
  kind = mesh.devices.flat[0].device_kind
  report.say(f"devices: {mesh.size} ({kind})")
  report.say(
    f"one epoch: {pool:,} images "
    f"({'with' if with_labelled else 'without'} the labelled ones) in "
    f"{text_lib.count(per_epoch, 'step')} of {batch_size:,}; {left:,} images "
    "are left out of each epoch"
  )
  if epochs:
    report.say(
      f"total: {text_lib.count(epochs, 'epoch')}, "
      f"{text_lib.count(epochs * per_epoch, 'step')}"
    )
    _few_steps(report, recipe, per_epoch)
  else:
    report.say(
      f"total: as many epochs as fit in {recipe.train.minutes:g} minutes, "
      "measured when training starts"
    )
  for problem in memory_pipeline.batch_problems(
    batch_size, num_images=pool, mesh=mesh, chunks=recipe.train.chunks or 1
  ):
    report.problem(problem)
  if crops:
    first, *others = crops.values()
    report.say(
      f"unlabelled images per step: {batch_size:,} "
      f"({batch_size / mesh.size:g} per device), each with {first.count} crops "
      f"of {first.size} pixels"
      + "".join(f" and {spec.count} of {spec.size}" for spec in others)
    )
  if num_labelled:
    _support_size(report, recipe, listing.num_classes, num_labelled, mesh)


def _few_steps(
  report: findings.Report, recipe: config_lib.Recipe, per_epoch: int
) -> None:
  """Proposes more epochs where a run would end before it has learned much."""
  if not per_epoch or recipe.model.init_from:
    return
  if recipe.train.epochs * per_epoch < _FEW_STEPS:
    enough = math.ceil(_ENOUGH_STEPS / per_epoch)
    report.say(
      "few steps for a network that starts from random weights: "
      f"--config.train.epochs={enough} makes about {_ENOUGH_STEPS:,}, or start "
      "from trained weights (model.init_from)"
    )


def _support_size(
  report: findings.Report,
  recipe: config_lib.Recipe,
  num_classes: int,
  num_labelled: int,
  mesh: jax.sharding.Mesh,
) -> None:
  """Reports the size of a support set."""
  support = recipe.support
  if support.sampling == "uniform":
    _uniform_support_size(report, recipe, num_classes, num_labelled, mesh)
    return
  classes = support.classes_per_step or num_classes
  if classes > num_classes:
    report.problem(
      f"support.classes_per_step is {classes} but the data has {num_classes} "
      f"classes: lower it to at most {num_classes}, or set it to 0 for all",
      error_start=f"support.classes_per_step is {classes} but",
    )
  size = classes * support.images_per_class
  padded = mesh_lib.padded_size(size, mesh, recipe.train.chunks or 1)
  report.say(
    f"support images per step: {classes} classes x {support.images_per_class} "
    f"images = {size:,} ({padded // mesh.size:,} per device"
    + (
      f", with {padded - size} rows of padding in total"
      if padded > size
      else ""
    )
    + f"), each with {text_lib.count(support.num_views, 'view')}"
  )


def _uniform_support_size(
  report: findings.Report,
  recipe: config_lib.Recipe,
  num_classes: int,
  num_labelled: int,
  mesh: jax.sharding.Mesh,
) -> None:
  support = recipe.support
  classes = support.classes_per_step or num_classes
  size = support.batch_size or classes * support.images_per_class
  if size > num_labelled and not support.with_replacement:
    report.problem(
      f"support.batch_size asks for {size:,} labelled images a step, but there "
      f"are {num_labelled:,}: lower it, or set support.with_replacement",
      error_start="support.sampling is 'uniform' with",
    )
  padded = mesh_lib.padded_size(size, mesh, recipe.train.chunks or 1)
  report.say(
    f"supports in a step: the next {size:,} of all labelled images, each "
    f"device {padded // mesh.size:,}; of each "
    f"{text_lib.count(support.num_views, 'view')}"
  )


def learning_rate(report: findings.Report, recipe: config_lib.Recipe) -> None:
  """Compares the peak learning rate of LARS with the rule for the batch."""
  if recipe.optim.name != "lars":
    return
  batch_size, peak = recipe.train.batch_size, recipe.optim.peak_lr
  rule = lars_peak_lr(batch_size)
  text = (
    f"learning rate: optim.peak_lr is {peak:g}; the power law through the "
    f"paper's two ImageNet recipes, 6.4 x (batch_size / 4096)^0.6, gives "
    f"{rule:.2g} for batches of {batch_size:,}"
  )
  if rule / 2 <= peak <= rule * 2:
    report.say(text)
  else:
    report.warning(
      f"{text}. Set optim.peak_lr to that unless you have tuned it (the "
      "paper's CIFAR-10 recipe has 3.2 for batches of 256)"
    )


def memory(
  report: findings.Report,
  recipe: config_lib.Recipe,
  experiment: experiment_lib.Experiment,
) -> None:
  """Compares the memory that a step needs with that of a device."""
  needed = memory_lib.memory(experiment)
  devices = experiment.trainer.mesh.local_devices
  available = memory_lib.device_memory(devices)
  parts = ", ".join(
    f"{name} {_bytes(part)}"
    for name, part in dataclasses.asdict(needed).items()
  )
  report.say(f"memory needed per device, about {_bytes(needed.total)}: {parts}")
  if available is None:
    report.say("memory available per device: the device does not report it")
    return
  report.say(f"memory available per device: {_bytes(available)}")
  if needed.total > available:
    chunks = " or train.chunks to 'auto'" if recipe.allows_chunks else ""
    report.warning(
      f"an estimated {_bytes(needed.total)} per device exceeds the "
      f"{_bytes(available)} available: "
      f"lower train.batch_size or support.{recipe.support.size_field}, set "
      f"train.remat to 'dots'{chunks}, or use more devices"
    )


def _bytes(number: int) -> str:
  """Returns a size in words: "1.25 GiB", "3 MiB"."""
  if number < 2**29:
    return f"{number / 2**20:.0f} MiB"
  return f"{number / 2**30:.2f} GiB"


def lars_peak_lr(batch_size: int) -> float:
  """Returns a peak learning rate of LARS: 6.4 · (batch_size / 4096)^0.6.

  The power law through the two rates of the paper's ImageNet recipes, 6.4 for
  4,096 unlabelled images a step and 1.2 for 256 (PAWS, section 5, 2021).
  """
  return 6.4 * (batch_size / 4096) ** 0.6
