"""What the settings and arrays of a stored classifier may be."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping
from collections.abc import Sequence
from typing import Any

import numpy as np

from paws_jax import errors
from paws_jax import text
from paws_jax.classifier import predictions
from paws_jax.classifier import support_bank as support_bank_lib
from paws_jax.config import fields

VERSION = 1
SETTINGS = "classifier.json"
ENCODER = "encoder.safetensors"
BANK = "bank.safetensors"
HEAD = "head.safetensors"
# Written only where there is one: other classifiers keep their digest.
IN_DOMAIN = "in_domain_temperature"

_MOST_CLASSES = 10**6


@dataclasses.dataclass(frozen=True)
class _Settings(fields.Section):
  """Fields of classifier.json that are single values or lists."""

  class_names: tuple[str, ...] = fields.field(
    (),
    (
      f"at least one and at most {_MOST_CLASSES:,} names",
      lambda names: 1 <= len(names) <= _MOST_CLASSES,
    ),
  )
  temperature: float = fields.field(0.1, fields.TEMPERATURE)
  in_domain_temperature: float = fields.field(1.0, fields.TEMPERATURE)
  batch_size: int = fields.field(1, fields.BATCH_SIZE)


def wrong_setting(settings: Mapping[str, Any]) -> str:
  """First problem of classifier.json, its version aside; "": none.

  Model and preprocessing check their own fields where they are made.
  """
  for name in ("model", "origin", "preprocessing"):
    if not isinstance(settings.get(name), dict):
      return f"its {name} is {_short(settings.get(name))}, and no object"
  for name in ("class_names", "temperature", "batch_size"):
    if name not in settings:
      return f"it has no {name}"
  plain = {field.name for field in dataclasses.fields(_Settings)}
  values = {name: settings[name] for name in plain & settings.keys()}
  if values.get(IN_DOMAIN) is None:
    values.pop(IN_DOMAIN, None)
  # A section would make numbers of numbers in a list only.
  names = values["class_names"]
  if not isinstance(names, list):
    return f"its class_names is {_short(names)}, and no list"
  try:
    fields.check(_Settings(**values), "")
  except errors.InputError as error:
    return _short_text(str(error).rstrip("."))
  if not _are_texts(names) or not all(map(str.strip, names)):
    return "one of its class_names is blank, or no text that can be written"
  return _wrong_files(settings["files"])


def _wrong_files(files: Mapping[str, Any]) -> str:
  for name, digest in files.items():
    # Nothing outside of the directory is read.
    if name not in (ENCODER, BANK, HEAD):
      return f"it names another file: {_short(name)}"
    if not isinstance(digest, str) or not re.fullmatch("[0-9a-f]{64}", digest):
      return f"its sum of {name} is {_short(digest)}, and no sha256"
  missing = [name for name in (ENCODER, BANK) if name not in files]
  return f"it does not name {missing[0]}" if missing else ""


def wrong_bank(bank: support_bank_lib.SupportBank, num_classes: int) -> str:
  """First problem of a support bank; "": none."""
  embeddings, labels, small = bank.embeddings, bank.labels, bank.thumbnails
  if not len(bank):
    return "its support bank is empty"
  if embeddings.ndim != 2 or not np.issubdtype(embeddings.dtype, np.floating):
    return f"its support bank has embeddings {_kind(embeddings)}"
  bad = support_bank_lib.not_finite(embeddings)
  if len(bad):
    return (
      f"{len(bad)} of the {len(bank)} embeddings of its support bank are not "
      "finite"
    )
  if labels.ndim != 1 or not np.issubdtype(labels.dtype, np.integer):
    return f"its support bank has labels {_kind(labels)}"
  if labels.min() < 0 or labels.max() >= num_classes:
    return (
      f"its support bank has labels from {labels.min()} to {labels.max()}, and "
      f"there are {num_classes} classes"
    )
  if not _are_texts(bank.names):
    return "one of the names of its support bank is no text"
  if (
    small.ndim != 4
    or small.dtype != np.uint8
    or small.shape[3] not in (1, 3)
    or not all(small.shape)
  ):
    return f"its support bank has thumbnails {_kind(small)}"
  return ""


def wrong_head(head: predictions.Head, dim: int, num_classes: int) -> str:
  """First problem of a head on embeddings of `dim` numbers; "": none."""
  kernel, bias = head.kernel, head.bias
  if kernel.shape != (dim, num_classes) or bias.shape != (num_classes,):
    return (
      f"its head has kernel {list(kernel.shape)} and bias {list(bias.shape)} "
      f"instead of [{dim}, {num_classes}] and [{num_classes}]"
    )
  for name, array in (("kernel", kernel), ("bias", bias)):
    if not np.issubdtype(array.dtype, np.floating):
      return f"the {name} of its head is {_kind(array)}"
    if not np.isfinite(array).all():
      return f"the {name} of its head is not finite"
  return ""


def wrong_weight(name: str, array: np.ndarray, wanted: Any) -> str:
  """The problem of one array of an encoder; "": none.

  Args:
    name: its path, "batch_stats/trunk/bn1/var".
    array: as it was stored.
    wanted: has the shape that the model needs.
  """
  if array.shape != wanted.shape:
    return f"{name} is {list(array.shape)} instead of {list(wanted.shape)}"
  if not np.issubdtype(array.dtype, np.floating):
    return f"{name} is {array.dtype} instead of {wanted.dtype}"
  # One pass where all is well; NaN is not below the limit.
  if array.size and not np.abs(array).max() <= np.finfo(np.float32).max:
    return f"{name} is not finite"
  if name.endswith("/var") and array.size and array.min() < 0:
    return f"{name} is a variance below 0"
  return ""


def _are_texts(names: Sequence[Any]) -> bool:
  """Whether all are texts that can be written to a file."""
  return all(isinstance(name, str) and text.is_writable(name) for name in names)


def _kind(array: np.ndarray) -> str:
  return f"{array.dtype} {list(array.shape)}"


def _short(value: Any) -> str:
  return _short_text(repr(value))


def _short_text(sentence: str) -> str:
  return sentence if len(sentence) <= 200 else f"{sentence[:200]} ..."
