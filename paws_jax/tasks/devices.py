"""`--task=devices`: the devices of a run and the share of each in a step.

The sizes are those of the recipe: no image is opened, and no directory written.
"""

from __future__ import annotations

import collections
import dataclasses
from collections.abc import Mapping

import jax
import ml_collections

from paws_jax import config as config_lib
from paws_jax import methods
from paws_jax import models
from paws_jax import text as text_lib
from paws_jax.data import memory_pipeline
from paws_jax.distributed import agree
from paws_jax.distributed import lifecycle
from paws_jax.parallel import mesh as mesh_lib
from paws_jax.runs import provenance


@dataclasses.dataclass(frozen=True)
class Share:
  """A number of rows in a step.

  Attributes:
    what: name of the rows, e.g. "unlabelled images".
    total: number on all devices, including padding.
    padding: number of rows of padding, which come last and are not counted.
  """

  what: str
  total: int
  padding: int = 0


def run(config: config_lib.Recipe | ml_collections.ConfigDict) -> int:
  """Prints devices, mesh and sizes of a recipe, on process 0.

  Every process of the run calls it; all must have the same recipe and the same
  versions.

  Args:
    config: the recipe, with overrides.

  Returns:
    The exit status, 0.

  Raises:
    UserError: what training would refuse for this recipe on these devices, with
      the same message.
    DisagreementError: the processes have different recipes or versions.
  """
  recipe = agree.on_all(lambda: config_lib.resolve(config))
  agree.agree(
    recipe=recipe.to_json(),
    paws_jax=str(provenance.version()),
    jax=jax.__version__,
  )
  mesh = mesh_lib.make_mesh(None, **recipe.train.bn_fields)
  text = describe(recipe, mesh)
  if lifecycle.is_main():
    print(text, flush=True)
  # No process exits before all have checked the recipe.
  lifecycle.barrier("devices")
  return 0


def describe(recipe: config_lib.Recipe, mesh: jax.sharding.Mesh) -> str:
  """Makes the text that `run` prints.

  Args:
    recipe: a valid recipe.
    mesh: devices of one or more processes; descriptions of devices suffice.

  Raises:
    UserError: see `run`.
  """
  method = methods.create(
    recipe.method,
    encoder=models.create(recipe.model),
    label_smoothing=recipe.support.label_smoothing,
  )
  crops = method.views(recipe.views)
  batch_size = recipe.train.batch_size
  # The number of images is known only from the data.
  memory_pipeline.check_batch(
    batch_size,
    num_images=batch_size,
    mesh=mesh,
    chunks=recipe.train.chunks or 1,
  )
  lines = ["Devices", *(f"  {line}" for line in _devices(mesh))]
  lines += ["", "A step", *_table(_shares(recipe, crops, mesh), mesh)]
  lines += [f"  {line}" for line in _notes(recipe, crops)]
  return "\n".join(lines)


def _devices(mesh: jax.sharding.Mesh) -> list[str]:
  """Lists processes, devices, mesh and groups of BatchNorm."""
  devices = mesh.devices.flatten()
  by_process = collections.Counter(d.process_index for d in devices)
  kinds = sorted({f"{d.platform}, {d.device_kind}" for d in devices})
  num_groups = mesh.shape[mesh_lib.GROUP_AXIS]
  axes = " x ".join(f"{name} {size}" for name, size in mesh.shape.items())
  return [
    f"processes: {len(by_process)}",
    "devices of each process: "
    + ", ".join(str(n) for n in sorted(set(by_process.values()))),
    f"devices: {mesh.size} ({'; '.join(kinds)})",
    f"mesh: {axes}",
    f"BatchNorm: {text_lib.count(num_groups, 'group')} of "
    f"{text_lib.count(mesh.size // num_groups, 'device')}",
  ]


def _shares(
  recipe: config_lib.Recipe,
  crops: Mapping[str, config_lib.ViewSpec],
  mesh: jax.sharding.Mesh,
) -> list[Share]:
  """Lists the rows that a step and an evaluation divide among the devices."""
  shares = []
  if crops:
    batch_size = recipe.train.batch_size
    num_views = sum(spec.count for spec in crops.values())
    shares += [
      Share("unlabelled images", batch_size),
      Share("their crops", batch_size * num_views),
    ]
  support = recipe.support
  size = support.batch_size or (
    support.classes_per_step * support.images_per_class
  )
  if size:
    padded = mesh_lib.padded_size(size, mesh, recipe.train.chunks or 1)
    shares += [
      Share("supports", padded, padded - size),
      Share(
        "their views",
        padded * support.num_views,
        (padded - size) * support.num_views,
      ),
    ]
  padded = mesh_lib.padded_size(recipe.eval.batch_size, mesh)
  shares.append(Share("evaluated at once", padded))
  return shares


def _table(shares: list[Share], mesh: jax.sharding.Mesh) -> list[str]:
  """Formats a table: total, padding, each process, each device."""
  num_processes = len({d.process_index for d in mesh.devices.flat})
  head = ("", "total", "padding", "each process", "each device")
  rows = [
    (
      share.what,
      f"{share.total:,}",
      f"{share.padding:,}" if share.padding else "-",
      f"{share.total // num_processes:,}",
      f"{share.total // mesh.size:,}",
    )
    for share in shares
  ]
  widths = [max(map(len, column)) for column in zip(head, *rows, strict=True)]
  return [
    "  "
    + "  ".join(
      cell.rjust(width) if i else cell.ljust(width)
      for i, (cell, width) in enumerate(zip(row, widths, strict=True))
    )
    for row in (head, *rows)
  ]


def _notes(
  recipe: config_lib.Recipe, crops: Mapping[str, config_lib.ViewSpec]
) -> list[str]:
  """Lists facts that the table does not show."""
  support = recipe.support
  of_each = f"{text_lib.count(support.images_per_class, 'image')} of each"
  if support.batch_size:
    notes = ["classes in a step: as many as the labelled images happen to have"]
  elif support.classes_per_step:
    notes = [f"classes in a step: {support.classes_per_step:,}, {of_each}"]
  else:
    notes = [
      "classes in a step: all classes of the data (support.classes_per_step is "
      f"0), which --task=doctor counts; {of_each}, padded to a multiple of the "
      "devices"
    ]
  if recipe.train.chunks != 1:
    number = recipe.train.chunks or "as many as the memory asks for"
    notes.append(
      f"chunks of a device: {number}, each a BatchNorm batch of its own"
    )
  if not crops:
    notes.append(
      f"unlabelled images: none, method.name is {recipe.method.name!r}"
    )
  return notes
