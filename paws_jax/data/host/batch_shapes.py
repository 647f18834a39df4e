"""Shapes of the batches of the host pipeline."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jax
import numpy as np

from paws_jax import data
from paws_jax.data import host_memory
from paws_jax.data.host import cut
from paws_jax.data.host import row_plan
from paws_jax.parallel import mesh as mesh_lib


def batch_shapes(
  mesh: jax.sharding.Mesh,
  *,
  side: int,
  num_unlabelled: int,
  supports: row_plan.Supports | None,
  cutters: Mapping[str, cut.Cutter],
  in_host_memory: bool,
) -> data.HostBatch:
  """Returns shapes, dtypes and shardings of a batch.

  Args:
    mesh: devices.
    side: of a canvas.
    num_unlabelled: images; 0: none.
    supports: of any step; None: none.
    cutters: of the parts whose crops are cut on the host.
    in_host_memory: where the canvases are.
  """

  def rows(*shape: int, dtype: Any = np.int32) -> jax.ShapeDtypeStruct:
    spread = mesh_lib.batch_sharded(mesh)
    return jax.ShapeDtypeStruct(shape, dtype, sharding=spread)

  def replicated(*shape: int) -> jax.ShapeDtypeStruct:
    everywhere = mesh_lib.replicated(mesh)
    return jax.ShapeDtypeStruct(shape, np.int32, sharding=everywhere)

  def images(name: str, num_rows: int) -> data.Canvases | data.Crops:
    if name in cutters:
      shapes = cutters[name].shapes().items()
      views = {k: rows(num_rows, *v, dtype=np.uint8) for k, v in shapes}
      return data.Crops(views=views, id=rows(num_rows))
    image = rows(num_rows, side, side, 3, dtype=np.uint8)
    if in_host_memory:
      shape = (num_rows, *host_memory.packed_shape(image.shape[1:]))
      there = mesh_lib.batch_sharded(mesh, memory=host_memory.KIND)
      image = jax.ShapeDtypeStruct(shape, np.int32, sharding=there)
    return data.Canvases(
      image=image,
      size=rows(num_rows, 2),
      id=rows(num_rows),
    )

  unlabelled = images("unlabelled", num_unlabelled) if num_unlabelled else None
  if supports is None:
    return data.HostBatch(unlabelled, *[None] * 5)
  num_supports = len(supports.ids)
  return data.HostBatch(
    unlabelled=unlabelled,
    support=images("support", num_supports),
    support_slot=rows(num_supports),
    support_mask=None
    if supports.mask is None
    else rows(num_supports, dtype=np.bool_),
    support_labels=replicated(*supports.labels.shape),
    class_ids=replicated(*supports.class_ids.shape),
  )
