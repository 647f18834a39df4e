"""Names, shapes and digests of the arrays in a checkpoint's items."""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp
from etils import epath
from flax import traverse_util

from paws_jax import json_text
from paws_jax.runs import digests

_AS_NUMPY = ocp.RestoreArgs(restore_type=np.ndarray)


def name_of(path: tuple[Any, ...]) -> str:
  """Formats a key path as a name: "params/trunk/conv/kernel"."""
  return jax.tree_util.keystr(path, simple=True, separator="/")


def shapes(tree: Any) -> dict[str, list[Any]]:
  """Lists {name: [shape, dtype]} as they look after a trip through JSON."""
  return {
    name_of(path): [list(leaf.shape), str(jnp.dtype(leaf.dtype))]
    for path, leaf in jax.tree.leaves_with_path(tree)
  }


def describe(tree: Any) -> dict[str, list[Any]]:
  """Lists {name: [shape, dtype, digest]} of arrays."""
  values = jax.tree.leaves(jax.device_get(digests.compute(tree)))
  described = shapes(tree)
  return {
    name: [*entry, int(value)]
    for (name, entry), value in zip(described.items(), values, strict=True)
  }


def differences(stored: Mapping[str, Any], like: Any) -> list[str]:
  """Lists arrays whose shape or dtype differ from what is asked for."""
  asked = shapes(like)
  there = {name: entry[:2] for name, entry in stored.items()}
  return [
    f"{name}: {there.get(name, 'nothing')} there, "
    f"{asked.get(name, 'nothing')} asked for"
    for name in sorted(asked.keys() | there.keys())
    if asked.get(name) != there.get(name)
  ]


def other_nodes(directory: epath.Path, like: Any) -> list[str]:
  """Lists nodes of the tree, empty ones included, that only one side has.

  Args:
    directory: of the item in a checkpoint.
    like: the tree to restore into.

  Returns:
    Descriptions; none where the item's own description cannot be read, as
    restoring will say why.
  """
  try:
    described = json_text.parse((directory / "_METADATA").read_bytes())
    keys = [
      tuple(str(key["key"]) for key in entry["key_metadata"])
      for entry in described["tree_metadata"].values()
    ]
  except (OSError, ValueError, KeyError, TypeError, AttributeError):
    return []
  # An empty node is a leaf here.
  leaves = jax.tree_util.tree_leaves_with_path(
    like, is_leaf=lambda node: not jax.tree.leaves(node)
  )
  asked = {tuple(name_of(path).split("/")) for path, _ in leaves} - {("",)}
  stored = set(keys)
  return [
    f"{'/'.join(path)} is {where}"
    for one, other, where in (
      (stored, asked, "only in the checkpoint"),
      (asked, stored, "not in the checkpoint"),
    )
    for path in sorted(one)
    if not _has(other, path)
  ]


def _has(paths: set[tuple[str, ...]], path: tuple[str, ...]) -> bool:
  """Whether a path, a part of it or something below it is among the paths."""
  prefixes = {path[:length] for length in range(1, len(path) + 1)}
  return any(other in prefixes or other[: len(path)] == path for other in paths)


def read_part(
  directory: epath.Path, like: Any, wanted: Callable[[str], bool]
) -> Any:
  """Reads some arrays of an item, without the memory for the others.

  Args:
    directory: of the item in a checkpoint.
    like: tree of ShapeDtypeStructs with shardings.
    wanted: whether to read an array, by its name.

  Returns:
    The tree of `like`, with None for arrays that are not wanted.
  """
  leaves, treedef = jax.tree_util.tree_flatten_with_path(like)
  named = {name_of(path): leaf for path, leaf in leaves}
  chosen = {name: leaf for name, leaf in named.items() if wanted(name)}
  found = read_arrays(directory, chosen) if chosen else {}
  return jax.tree.unflatten(treedef, [found.get(name) for name in named])


def read_arrays(
  directory: epath.Path, shapes: Mapping[str, jax.ShapeDtypeStruct]
) -> dict[str, Any]:
  """Reads arrays of an item by their names; no others.

  Args:
    directory: of the item in a checkpoint.
    shapes: of at least one array, by name.

  Returns:
    {name: array}; a numpy array where the shape has no sharding.
  """
  item = traverse_util.unflatten_dict(dict(shapes), sep="/")
  restore_args = jax.tree.map(
    lambda leaf, args: args if leaf.sharding else _AS_NUMPY,
    item,
    ocp.checkpoint_utils.construct_restore_args(item),
  )
  with ocp.Checkpointer(ocp.PyTreeCheckpointHandler()) as reader:
    restored = reader.restore(
      directory,
      args=ocp.args.PyTreeRestore(
        item=item, restore_args=restore_args, partial_restore=True
      ),
    )
  return {
    name_of(path): leaf for path, leaf in jax.tree.leaves_with_path(restored)
  }
