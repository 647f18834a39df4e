"""Checks that the parts of a stored classifier belong together."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from etils import epath
from flax import traverse_util

from paws_jax import errors
from paws_jax import models
from paws_jax import text


def check_weights(path: epath.Path, fields: Mapping[str, Any]) -> None:
  """Refuses weights of another architecture.

  Args:
    path: of the classifier, for messages.
    fields: attributes of a `Classifier`.

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
  wanted = jax.eval_shape(
    functools.partial(encoder.init, train=False),
    jax.random.key(0),
    jnp.zeros((1, side, side, settings.channels)),
  )
  wanted = traverse_util.flatten_dict(wanted, sep="/")
  found = traverse_util.flatten_dict(fields["variables"], sep="/")
  wrong = [f"{name} is missing" for name in wanted if name not in found]
  wrong += [f"{name} is unknown" for name in found if name not in wanted]
  wrong += [
    f"{name} is {list(found[name].shape)} instead of {list(leaf.shape)}"
    for name, leaf in wanted.items()
    if name in found and found[name].shape != leaf.shape
  ]
  if wrong:
    raise errors.ClassifierError(
      f"{path}: the weights are not those of {fields['model']['name']}: "
      f"{text.first_few(wrong)}."
    )


def disagreement(fields: Mapping[str, Any]) -> str:
  """First contradiction of settings, support bank and head; "": none."""
  names, support_bank, head = (
    fields["class_names"],
    fields["support_bank"],
    fields["head"],
  )
  count, dim = len(names), _embedding_size(fields)
  labels, rows = support_bank.labels, support_bank.embeddings.shape
  if not np.isfinite(fields["temperature"]) or fields["temperature"] <= 0:
    return f"its temperature is {fields['temperature']} and not above 0"
  in_domain = fields["in_domain_temperature"]
  if in_domain is not None and not 0 < in_domain < np.inf:
    return f"its in_domain_temperature is {in_domain} and not above 0"
  if fields["batch_size"] < 1:
    return f"its batch_size is {fields['batch_size']} and not at least 1"
  if len(set(names)) < count or not count:
    return f"its {count} class_names are not all different"
  if labels.ndim != 1 or not np.issubdtype(labels.dtype, np.integer):
    return f"its support bank has labels {labels.dtype} {list(labels.shape)}"
  if labels.size and (labels.min() < 0 or labels.max() >= count):
    return (
      f"its support bank has labels from {labels.min()} to {labels.max()}, and "
      f"there are {count} classes"
    )
  if rows[1:] != (dim,):
    return (
      f"its support bank has embeddings {list(rows)} and its encoder [n, {dim}]"
    )
  if head is None:
    return ""
  kernel, bias = head.kernel.shape, head.bias.shape
  if kernel != (dim, count) or bias != (count,):
    return (
      f"its head has kernel {list(kernel)} and bias {list(bias)} instead of "
      f"[{dim}, {count}] and [{count}]"
    )
  return ""


def _embedding_size(fields: Mapping[str, Any]) -> int:
  """D of the embeddings that vote, or that the head classifies."""
  encoder = models.create(fields["model"])
  settings = fields["preprocessing"]
  side = settings.large_size
  apply = functools.partial(encoder.apply, train=False)
  if fields["head"] is not None:
    apply = functools.partial(apply, num_projection_layers=1, method="features")
  images = jnp.zeros((1, side, side, settings.channels))
  rows = jax.eval_shape(apply, fields["variables"], images)
  return jax.tree.leaves(rows)[-1].shape[-1]
