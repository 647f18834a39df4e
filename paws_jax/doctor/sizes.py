"""What `--task=doctor` says of steps, sizes, learning rate and memory."""

from __future__ import annotations

import dataclasses

import jax
import ml_collections

from paws_jax import augment
from paws_jax.data import memory_pipeline
from paws_jax.data.sources import catalog
from paws_jax.doctor import findings
from paws_jax.parallel import mesh as mesh_lib
from paws_jax.plan import memory as memory_lib
from paws_jax.training import experiment as experiment_lib


def steps(
  report: findings.Report,
  config: ml_collections.ConfigDict,
  found: catalog.Catalog,
  *,
  num_labelled: int,
  views: augment.ViewsConfig,
) -> None:
  """Steps and sizes, for all devices and for each.

  Args:
    report: where it is said.
    config: a valid recipe.
    found: the data.
    num_labelled: training images whose label is used.
    views: what the method makes of an unlabelled image.
  """
  mesh = mesh_lib.make_mesh()
  batch_size, epochs = config.train.batch_size, config.train.epochs
  pool = len(found.train.labels)
  with_labelled = config.data.include_labelled
  pool -= 0 if with_labelled else num_labelled
  per_epoch, left = divmod(pool, batch_size)
  kind = mesh.devices.flat[0].device_kind
  report.say(f"devices: {mesh.size} ({kind})")
  report.say(
    f"an epoch: {pool:,} images, labelled ones "
    f"{'included' if with_labelled else 'left out'}, in "
    f"{findings.count(per_epoch, 'step')} of {batch_size:,} ({left:,} more, "
    "in each epoch, are left over)"
  )
  report.say(f"in all: {epochs:,} epochs, {epochs * per_epoch:,} steps")
  for problem in memory_pipeline.batch_problems(
    batch_size, num_images=pool, mesh=mesh
  ):
    report.problem(problem)
  if views.num_large:
    report.say(
      f"unlabelled images in a step: {batch_size:,}, each device "
      f"{batch_size / mesh.size:g}; of each {views.num_large} crops of "
      f"{views.large_size} pixels"
      + f" and {views.num_small} of {views.small_size}"
      * (views.num_small > 0)
    )
  _support_size(report, config.support, found.num_classes, mesh)


def _support_size(
  report: findings.Report,
  support: ml_collections.ConfigDict,
  num_classes: int,
  mesh: jax.sharding.Mesh,
) -> None:
  classes = support.classes_per_step or num_classes
  if classes > num_classes:
    report.problem(
      f"support.classes_per_step is {classes} but the data has {num_classes} "
      f"classes: lower it to at most {num_classes}, or set it to 0 for all",
      refused_as=f"support.classes_per_step is {classes} but",
    )
  size = classes * support.images_per_class
  padded = mesh_lib.padded_size(size, mesh)
  report.say(
    f"supports in a step: {classes} classes x {support.images_per_class} "
    f"images = {size:,}, each device {padded // mesh.size:,}"
    + (f" ({padded - size} of all are padding)" if padded > size else "")
    + f"; of each {findings.count(support.num_views, 'view')}"
  )


def learning_rate(
  report: findings.Report, config: ml_collections.ConfigDict
) -> None:
  """Compares the peak of LARS with the rule for this batch size."""
  if config.optim.name != "lars":
    return
  batch_size, peak = config.train.batch_size, config.optim.peak_lr
  rule = lars_peak_lr(batch_size)
  text = (
    f"learning rate: optim.peak_lr is {peak:g}; for batches of {batch_size:,}, "
    f"6.4 x (batch / 4096)^0.6 = {rule:.2g}, the power law through the paper's "
    "two ImageNet recipes"
  )
  if rule / 2 <= peak <= rule * 2:
    report.say(text)
  else:
    report.warning(
      f"{text}. Use that unless you have tuned yours (the paper's CIFAR-10 "
      "recipe has 3.2 at 256)"
    )


def memory(
  report: findings.Report, experiment: experiment_lib.Experiment
) -> None:
  """Compares what a step needs with what a device has."""
  needed = memory_lib.memory(experiment)
  devices = experiment.trainer.mesh.local_devices
  there = memory_lib.device_memory(devices)
  parts = ", ".join(
    f"{name} {_bytes(part)}"
    for name, part in dataclasses.asdict(needed).items()
  )
  report.say(f"memory of each device, about {_bytes(needed.total)}: {parts}")
  if there is None:
    report.say("the device does not tell how much memory it has")
    return
  report.say(f"memory that each device has: {_bytes(there)}")
  if needed.total > there:
    report.warning(
      f"an estimated {_bytes(needed.total)} do not fit into {_bytes(there)}: "
      "lower train.batch_size or support.images_per_class, set train.remat to "
      "'dots', or use more devices"
    )


def _bytes(number: int) -> str:
  """E.g. "1.25 GiB", "3 MiB"."""
  if number < 2**29:
    return f"{number / 2**20:.0f} MiB"
  return f"{number / 2**30:.2f} GiB"


def lars_peak_lr(batch_size: int) -> float:
  """Peak learning rate of LARS: 6.4 · (batch_size / 4096)^0.6.

  The power law through the two rates of the paper's ImageNet recipes, 6.4 for
  4,096 unlabelled images a step and 1.2 for 256 (PAWS, section 5, 2021).
  """
  return 6.4 * (batch_size / 4096) ** 0.6
