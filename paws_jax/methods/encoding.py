"""Passes of a step's images through an encoder, in training mode."""

from __future__ import annotations

from collections.abc import Mapping
from collections.abc import Sequence
from typing import Any
from typing import NamedTuple

import jax
import jax.flatten_util
import jax.numpy as jnp

from paws_jax import config as config_lib
from paws_jax import data
from paws_jax import errors
from paws_jax import losses
from paws_jax.methods import chunks
from paws_jax.parallel import gather

Params = Any
BatchStats = Any
# Images [n, H, W, C], or several arrays of them.
Rows = jax.Array | Sequence[jax.Array]

_REMAT_POLICIES = {
  "dots": jax.checkpoint_policies.dots_saveable,
  "all": jax.checkpoint_policies.nothing_saveable,
}


def known_crops(
  section: config_lib.Views, names: Sequence[str], *, method_name: str
) -> dict[str, config_lib.ViewSpec]:
  """Returns the crops of a recipe that a method knows, in the order of `names`.

  Raises:
    errors.InputError: a crop of another name, which the method would ignore.
  """
  for name, spec in section.crops.items():
    if name not in names:
      raise errors.InputError(
        f"views.{name}.count is {spec.count} but method.name is "
        f"{method_name!r}, which cuts {' and '.join(names)} crops only: set it "
        "to 0."
      )
  return {name: section.crops[name] for name in names if name in section.crops}


def two_crops(
  section: config_lib.Views, *, method_name: str, more: Sequence[str] = ()
) -> dict[str, config_lib.ViewSpec]:
  """Returns the two large crops of a method that compares two views.

  They are `views.large` with a count of 2, or `views.large` and `views.second`
  with a count of 1 each, augmented differently.

  Args:
    section: the recipe's `views`.
    method_name: for messages.
    more: names of other crops that the method knows.

  Raises:
    errors.InputError: there are not two such views, or others, which the method
      would ignore.
  """
  crops = known_crops(
    section, ("large", "second", *more), method_name=method_name
  )
  counts = {
    name: crops[name].count if name in crops else 0
    for name in ("large", "second")
  }
  if counts not in ({"large": 2, "second": 0}, {"large": 1, "second": 1}):
    raise errors.InputError(
      f"views.large.count is {counts['large']} and views.second.count is "
      f"{counts['second']} but method.name is {method_name!r}, which compares "
      "2 large crops: set them to 2 and 0, or to 1 and 1 where they are "
      "augmented differently."
    )
  sizes = {crops[name].size for name in ("large", "second") if name in crops}
  if len(sizes) > 1:
    raise errors.InputError(
      f"views.large.size is {crops['large'].size} and views.second.size is "
      f"{crops['second'].size}: give both views the same size."
    )
  return crops


def pair_of_views(batch: data.Views) -> tuple[jax.Array, jax.Array]:
  """Returns the crops of `two_crops`, [b, H, W, Ch] each."""
  large = batch.crops["large"]
  if "second" in batch.crops:
    return large[:, 0], batch.crops["second"][:, 0]
  return large[:, 0], large[:, 1]


def init_encoder(
  encoder: Any, key: jax.Array, images: jax.Array
) -> tuple[Params, BatchStats]:
  """Initializes an encoder for images [n, H, W, Ch]."""
  variables = encoder.init(key, images[:1], train=False)
  return variables["params"], variables.get("batch_stats", {})


def encode(
  encoder: Any,
  params: Params,
  batch_stats: BatchStats,
  images: Rows,
  *,
  mask: jax.Array | None = None,
  remat: str = "none",
) -> tuple[jax.Array, jax.Array, BatchStats]:
  """Encodes one BatchNorm batch in training mode; with chunks, one for each.

  Args:
    encoder: `models.Encoder`.
    params: its parameters.
    batch_stats: its batch statistics.
    images: [n, H, W, Ch]; or several such arrays of different images, whose
      rows are encoded together, those of the first one first.
    mask: [n] bool, rows that count in the batch statistics; None: all.
    remat: see config.base.

  Returns:
    h [n, D] and z [n, D], before and after the prediction head, and the updated
    statistics.
  """
  (h, z), batch_stats = apply_training(
    encoder, params, batch_stats, images, mask=mask, remat=remat
  )
  return h, z, batch_stats


def apply_training(
  encoder: Any,
  params: Params,
  batch_stats: BatchStats,
  images: Rows,
  *,
  mask: jax.Array | None,
  remat: str,
  **options: Any,
) -> tuple[Any, BatchStats]:
  """Applies an encoder to one BatchNorm batch; arguments as of `encode`.

  Args:
    encoder: `models.Encoder`.
    params: its parameters.
    batch_stats: its batch statistics.
    images: as of `encode`; or features [n, d].
    mask: [n] bool or None.
    remat: see config.base.
    **options: of flax's `apply`, such as method="features", and of what it
      calls.

  Returns:
    The encoder's output, and the updated statistics.
  """
  chunking = encoder.chunking
  if chunking is not None and remat == "all":
    # That is what chunks do.
    remat = "none"

  def apply(
    encoder: Any,
    batch_stats: BatchStats,
    images: jax.Array,
    mask: jax.Array | None,
  ) -> tuple[Any, BatchStats]:
    def call(
      params: Params, batch_stats: BatchStats, images: jax.Array
    ) -> tuple[Any, BatchStats]:
      result, updated = encoder.apply(
        {"params": params, "batch_stats": batch_stats},
        images,
        train=True,
        mask=mask,
        mutable=["batch_stats"],
        **options,
      )
      return result, updated.get("batch_stats", batch_stats)

    if remat != "none":
      call = jax.checkpoint(call, policy=_REMAT_POLICIES[remat])
    return call(params, batch_stats, images)

  parts = tuple(images) if isinstance(images, (list, tuple)) else (images,)
  each = chunks.Pass(encoder, batch_stats, parts, mask, apply)
  return (chunking or chunks.at_once)(each)


def num_blocks(encoder: Any) -> int:
  """Blocks in which a loss compares its rows: as many as there are chunks."""
  chunking = getattr(encoder, "chunking", None)
  return 1 if chunking is None else chunking.count


def fold_views(views: jax.Array) -> jax.Array:
  """Merges image and view axes, image-major: [n, V, ...] -> [n·V, ...].

  This moves no data between devices.
  """
  if isinstance(views, data.Uncut):
    return views.fold()
  return views.reshape(-1, *views.shape[2:])


def view_major(rows: jax.Array, num_views: int) -> jax.Array:
  """Reorders rows from image-major [n·V, D] to view-major [V·n, D]."""
  by_image = rows.reshape(-1, num_views, rows.shape[-1])
  return by_image.swapaxes(0, 1).reshape(rows.shape)


def supports(batch: data.Views) -> jax.Array:
  """Returns the views of the supports, which a method with labels has."""
  assert batch.support is not None
  return batch.support


def support_views_mask(batch: data.Views) -> jax.Array | None:
  """Returns the mask of folded support views: [N·V] bool; None: all count."""
  if batch.support_mask is None:
    return None
  return jnp.repeat(batch.support_mask, supports(batch).shape[1])


def support_rows(batch: data.Views, *, smoothing: float) -> jax.Array:
  """Builds the label rows of all devices' support views: [N·V, C]."""
  assert batch.support_labels is not None
  assert batch.class_ids is not None
  labels = jnp.repeat(batch.support_labels, supports(batch).shape[1])
  return losses.label_rows(labels, batch.class_ids, smoothing=smoothing)


class Embeddings(NamedTuple):
  """Embeddings of one device; h before, z after the prediction head."""

  # [n·V, D], image-major, padding included.
  h_support: jax.Array
  z_support: jax.Array
  # [L·b, D], view-major.
  h_large: jax.Array
  z_large: jax.Array


def encode_supports_and_large(
  encoder: Any,
  params: Params,
  batch_stats: BatchStats,
  batch: data.Views,
  *,
  remat: str,
) -> tuple[Embeddings, BatchStats]:
  """Encodes supports and large views as one BatchNorm batch.

  Args:
    encoder: `models.Encoder`.
    params: its parameters.
    batch_stats: its batch statistics.
    batch: this device's views.
    remat: see config.base.

  Returns:
    The embeddings and the updated statistics.
  """
  num_large = batch.crops["large"].shape[1]
  labelled = fold_views(supports(batch))
  large = fold_views(batch.crops["large"])
  mask = support_views_mask(batch)
  if mask is not None:
    mask = jnp.concatenate([mask, jnp.ones(large.shape[0], bool)])
  h, z, batch_stats = encode(
    encoder,
    params,
    batch_stats,
    (labelled, large),
    mask=mask,
    remat=remat,
  )
  count = labelled.shape[0]
  embeddings = Embeddings(
    h_support=h[:count],
    z_support=z[:count],
    h_large=view_major(h[count:], num_large),
    z_large=view_major(z[count:], num_large),
  )
  return embeddings, batch_stats


def gather_supports(
  embeddings: jax.Array, batch: data.Views, axis_name: Any
) -> jax.Array:
  """Collects the support embeddings of all devices, without the padding.

  Args:
    embeddings: [n·V, D] of this device.
    batch: the step's views.
    axis_name: mesh axes, or None outside `shard_map`.

  Returns:
    [N·V, D] in the order of `support_rows`.
  """
  (rows,) = gather.gather([embeddings], axis_name=axis_name)
  return without_padding(rows, batch)


def without_padding(rows: jax.Array, batch: data.Views) -> jax.Array:
  """Removes the padding at the end of all support rows: [N·V, ...]."""
  assert batch.support_labels is not None
  num_views = supports(batch).shape[1]
  return rows[: batch.support_labels.shape[0] * num_views]


def device_means(
  values: Mapping[str, jax.Array], axis_name: Any
) -> dict[str, jax.Array]:
  """Averages scalars and vectors over the devices in one all-reduce."""
  if axis_name is None or not values:
    return dict(values)
  flat, unflatten = jax.flatten_util.ravel_pytree(dict(values))
  return unflatten(jax.lax.pmean(flat, axis_name))
