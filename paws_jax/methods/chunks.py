"""Encoding chunk by chunk, so that a step keeps embeddings, not activations.

A chunk is one BatchNorm batch. Chunk c holds the c-th run of this device's
supports and the c-th run of its images with all their views, so that k chunks
on one device are what k devices with statistics of their own compute. The
embeddings come back in the order of the rows, whatever the chunks.

`InScan` is one program: a scan over rematerialized chunks, for accelerators.
XLA's CPU backend runs convolutions in a loop many times slower and drops the
rematerialization of an unrolled one (docs/decisions.md): there every chunk is a
call of its own, of which `OneChunk` and `Given` make the programs
(`training.chunked_step`).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from collections.abc import Iterator
from collections.abc import Sequence
from typing import Any
from typing import NamedTuple

import jax
import jax.numpy as jnp

from paws_jax import data
from paws_jax.models import encoder as encoder_lib

# Rows of one kind: images [n, H, W, C], or features [n, d].
Part = jax.Array | data.Uncut
# Of (encoder, batch_stats, images [n, ...], mask [n] or None): the encoder's
# output, and the updated statistics.
Apply = Callable[[Any, Any, jax.Array, jax.Array | None], tuple[Any, Any]]


class Pass(NamedTuple):
  """Rows that an encoder sees as one batch, or as one batch for each chunk."""

  encoder: Any
  batch_stats: Any
  parts: tuple[Part, ...]
  # [all rows] bool; None: all count.
  mask: jax.Array | None
  apply: Apply

  @property
  def sizes(self) -> tuple[int, ...]:
    """Rows of each part."""
    return tuple(part.shape[0] for part in self.parts)


def at_once(each: Pass) -> tuple[Any, Any]:
  """Encodes all rows of a pass as one batch."""
  cut = [
    part.cut() if isinstance(part, data.Uncut) else part for part in each.parts
  ]
  images = jnp.concatenate(cut) if len(cut) > 1 else cut[0]
  return each.apply(each.encoder, each.batch_stats, images, each.mask)


@dataclasses.dataclass(frozen=True)
class InScan:
  """Encodes one chunk after the other in a scan.

  Attributes:
    count: chunks of each device.
  """

  count: int

  def __call__(self, each: Pass) -> tuple[Any, Any]:
    """Returns the output of all rows, in their order, and the statistics."""
    encoder = _own_statistics(each.encoder)

    def encode(_: None, chunk: tuple[Any, Any, Any]) -> tuple[None, Any]:
      index, arrays, mask = chunk
      parts = tuple(
        part.run(index, self.count) if isinstance(part, data.Uncut) else array
        for part, array in zip(each.parts, arrays, strict=True)
      )
      return None, at_once(
        each._replace(encoder=encoder, parts=parts, mask=mask)
      )

    masks = _split_mask(each, self.count)
    # Canvases are sliced where they are, which may be the host's memory.
    arrays = [
      None if isinstance(part, data.Uncut) else _split(part, self.count)
      for part in each.parts
    ]
    # In a scan nothing is shared between forward and backward pass anyway.
    encode = jax.checkpoint(encode, prevent_cse=False)
    _, (rows, stats) = jax.lax.scan(
      encode, None, (jnp.arange(self.count), arrays, masks)
    )
    rows = jax.tree.map(lambda x: _join(x, each.sizes), rows)
    if each.encoder.freeze_bn:
      return rows, each.batch_stats
    weights = _valid_groups(each.encoder, masks, self.count)
    change = jax.tree.map(
      lambda new, old: jnp.tensordot(weights, new - old[None], 1),
      stats,
      each.batch_stats,
    )
    total = _over_groups(each.encoder, (change, jnp.sum(weights)))
    return rows, _changed(each.batch_stats, *total)


class Encoded(NamedTuple):
  """What a chunk gives in one pass; or lists of it in all of them."""

  # The encoder's output, rows of all parts one after the other.
  rows: Any
  # Sum over BatchNorm groups of the change of the statistics, and the number
  # of groups with a valid row.
  change: Any
  weight: jax.Array


class EnoughError(Exception):
  """All passes have been traced; the rest of the loss is not needed."""


@dataclasses.dataclass(frozen=True, eq=False)
class OneChunk:
  """Encodes one chunk of every pass of images, and leaves the rest out.

  The method gets NaN for all rows, on which no other pass of images may depend.

  Attributes:
    count: chunks of each device.
    index: of the chunk; traced.
    num_passes: raises `EnoughError` after so many; None: never.
    encoded: receives what each pass gives.
  """

  count: int
  index: Any
  num_passes: int | None = None
  encoded: list[Encoded] = dataclasses.field(default_factory=list)

  def __call__(self, each: Pass) -> tuple[Any, Any]:
    """Encodes the chunk, and returns placeholders of all rows."""
    if not _has_images(each):
      return InScan(self.count)(each)
    masks = _split_mask(each, self.count)

    def select(split: jax.Array) -> jax.Array:
      return jax.lax.dynamic_index_in_dim(split, self.index, keepdims=False)

    parts = tuple(
      part.run(self.index, self.count)
      if isinstance(part, data.Uncut)
      else select(_split(part, self.count))
      for part in each.parts
    )
    mask = None if masks is None else select(masks)
    encoder = _own_statistics(each.encoder)
    rows, stats = at_once(
      each._replace(encoder=encoder, parts=parts, mask=mask)
    )
    weight = _valid_groups(each.encoder, None if mask is None else mask[None])[
      0
    ]
    change = jax.tree.map(
      lambda new, old: weight * (new - old), stats, each.batch_stats
    )
    change, weight = _over_groups(each.encoder, (change, weight))
    self.encoded.append(Encoded(rows, change, weight))
    if len(self.encoded) == self.num_passes:
      raise EnoughError
    total = sum(each.sizes)
    return jax.tree.map(
      lambda x: jnp.full((total, *x.shape[1:]), jnp.nan, x.dtype), rows
    ), _changed(each.batch_stats, change, weight)


@dataclasses.dataclass(frozen=True, eq=False)
class Given:
  """Returns rows that have been encoded before, pass by pass.

  Attributes:
    chunks: for every chunk lists of what each pass gave.
  """

  chunks: Sequence[Encoded]
  _passes: Iterator[int] = dataclasses.field(
    default_factory=lambda: iter(range(2**31))
  )

  @property
  def count(self) -> int:
    """Chunks of each device."""
    return len(self.chunks)

  def __call__(self, each: Pass) -> tuple[Any, Any]:
    """Returns the rows of the next pass, and the updated statistics."""
    if not _has_images(each):
      return InScan(self.count)(each)
    place = next(self._passes)
    rows = jax.tree.map(
      lambda *x: _join(jnp.stack(x), each.sizes),
      *(chunk.rows[place] for chunk in self.chunks),
    )
    change = jax.tree.map(
      lambda *x: sum(x), *(chunk.change[place] for chunk in self.chunks)
    )
    weight = sum(chunk.weight[place] for chunk in self.chunks)
    return rows, _changed(each.batch_stats, change, weight)


def _has_images(each: Pass) -> bool:
  """Whether a pass has convolutions, which are slow in a loop on a CPU."""
  return each.parts[0].ndim > 2


def _split(x: jax.Array, count: int) -> jax.Array:
  """Divides rows into runs: [n, ...] -> [count, n / count, ...]."""
  return x.reshape(count, x.shape[0] // count, *x.shape[1:])


def _split_mask(each: Pass, count: int) -> jax.Array | None:
  """Divides a mask like the rows: [count, rows of a chunk]."""
  if each.mask is None:
    return None
  ends = _ends(each.sizes)
  masks = jnp.split(each.mask, ends)
  return jnp.concatenate([_split(mask, count) for mask in masks], axis=1)


def _join(rows: jax.Array, sizes: Sequence[int]) -> jax.Array:
  """Undoes the division: [count, rows of a chunk, ...] -> [n, ...]."""
  count = rows.shape[0]
  parts = jnp.split(rows, _ends([size // count for size in sizes]), axis=1)
  parts = [part.reshape(-1, *part.shape[2:]) for part in parts]
  return jnp.concatenate(parts) if len(parts) > 1 else parts[0]


def _ends(sizes: Sequence[int]) -> list[int]:
  """Returns the ends of all parts but the last."""
  return [sum(sizes[: i + 1]) for i in range(len(sizes) - 1)]


def _own_statistics(encoder: Any) -> Any:
  """Returns the encoder whose running statistics are not averaged over groups.

  They are averaged once for all chunks, in one all-reduce for all layers.
  """
  if encoder.projection.settings.group_axis_name is None:
    return encoder
  return encoder_lib.with_settings(encoder, group_axis_name=None)


def _valid_groups(
  encoder: Any, masks: jax.Array | None, count: int = 1
) -> jax.Array:
  """Counts BatchNorm groups with a valid row in each chunk: [count] float.

  Groups of this device, or of those it shares statistics with.
  """
  settings = encoder.projection.settings
  if masks is None:
    return jnp.full(count, settings.num_groups, settings.param_dtype)
  by_group = masks.reshape(len(masks), settings.num_groups, -1)
  valid = jnp.any(by_group, axis=-1).astype(settings.param_dtype)
  if settings.axis_name:
    valid = jax.lax.psum(valid, settings.axis_name)
  return jnp.sum(valid > 0, axis=-1, dtype=settings.param_dtype)


def _over_groups(encoder: Any, tree: Any) -> Any:
  """Sums over the groups of devices that share no statistics."""
  axes = encoder.projection.settings.group_axis_name
  return jax.lax.psum(tree, axes) if axes else tree


def _changed(stats: Any, change: Any, weight: Any) -> Any:
  """Returns statistics changed by the mean over all groups with a valid row."""
  return jax.tree.map(
    lambda old, new: (old + new / jnp.maximum(weight, 1)).astype(old.dtype),
    stats,
    change,
  )
