"""Checks that the parts of a stored classifier belong together."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
from etils import epath
from flax import traverse_util

from paws_jax import errors
from paws_jax import models
from paws_jax import text
from paws_jax.classifier import schema


def check_weights(path: epath.Path, fields: Mapping[str, Any]) -> None:
  """Refuses weights of another architecture.

  Args:
    path: of the classifier, for messages.
    fields: attributes of a `Classifier`; variables by their paths.

  Raises:
    ClassifierError: naming the weights.
  """
  try:
    encoder = models.create(fields["model"])
  except (TypeError, ValueError) as error:
    raise errors.ClassifierError(
      f"{path}: its model is not known here: {error}"
    ) from None
  settings = fields["preprocessing"]
  side = settings.large_size
  # Inside, as the first array starts JAX, whose devices may not be chosen yet.
  wanted = jax.eval_shape(
    lambda: encoder.init(
      jax.random.key(0),
      jnp.zeros((1, side, side, settings.channels)),
      train=False,
    )
  )
  wanted = traverse_util.flatten_dict(wanted, sep="/")
  found = fields["variables"]
  wrong = [f"{name} is missing" for name in wanted if name not in found]
  wrong += [
    f"{text.printable(name)} is unknown" for name in found if name not in wanted
  ]
  checked = [
    schema.wrong_weight(name, found[name], leaf)
    for name, leaf in wanted.items()
    if name in found
  ]
  wrong += filter(None, checked)
  if wrong:
    raise errors.ClassifierError(
      f"{path}: the weights are not those of {fields['model']['name']}: "
      f"{text.first_few(wrong)}."
    )


def disagreement(fields: Mapping[str, Any]) -> str:
  """First contradiction of settings, support bank and head; "": none."""
  names, bank, head = (
    fields[name] for name in ("class_names", "support_bank", "head")
  )
  count, dim = len(names), _embedding_size(fields)
  if len(set(names)) < count:
    return f"its {count} class_names are not all different"
  wrong = schema.wrong_bank(bank, count)
  if wrong:
    return wrong
  if bank.embeddings.shape[1] != dim:
    return (
      f"its support bank has embeddings {list(bank.embeddings.shape)} and its "
      f"encoder [n, {dim}]"
    )
  return "" if head is None else schema.wrong_head(head, dim, count)


def _embedding_size(fields: Mapping[str, Any]) -> int:
  """D of the embeddings that vote, or that the head classifies."""
  encoder = models.create(fields["model"])
  settings = fields["preprocessing"]
  side = settings.large_size
  apply = functools.partial(encoder.apply, train=False)
  if fields["head"] is not None:
    apply = functools.partial(apply, num_projection_layers=1, method="features")
  images = jax.ShapeDtypeStruct((1, side, side, settings.channels), jnp.float32)
  rows = jax.eval_shape(apply, fields["variables"], images)
  return jax.tree.leaves(rows)[-1].shape[-1]
