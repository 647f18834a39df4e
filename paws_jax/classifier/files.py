"""A classifier as a directory: JSON and safetensors, nothing that can run.

classifier.json          settings, and a sha256 of each other file
encoder.safetensors      "params/..." and "batch_stats/..."
bank.safetensors         embeddings, labels, thumbnails; names as metadata
head.safetensors         kernel and bias, of a fine-tuned classifier
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import os
import pathlib
import shutil
import uuid
from collections.abc import Iterator
from collections.abc import Mapping
from typing import Any

import numpy as np
import safetensors
import safetensors.numpy
from etils import epath
from flax import traverse_util

from paws_jax import config as config_lib
from paws_jax import errors
from paws_jax import json_text
from paws_jax import text
from paws_jax.classifier import consistency
from paws_jax.classifier import predictions
from paws_jax.classifier import preprocessing
from paws_jax.classifier import schema
from paws_jax.classifier import support_bank as support_bank_lib
from paws_jax.runs import files as files_lib
from paws_jax.runs import locks

SETTINGS = schema.SETTINGS
ENCODER = schema.ENCODER
BANK = schema.BANK
HEAD = schema.HEAD
# Of one file; millions of labelled images stay below it.
_MOST_BYTES = 2**36
_NAMES = (SETTINGS, ENCODER, BANK, HEAD)
_IN_DOMAIN = schema.IN_DOMAIN
# Of `Classifier`, as JSON has them.
_PLAIN = ("temperature", "model", "batch_size", "origin")


def pack(fields: Mapping[str, Any]) -> dict[str, bytes]:
  """The files of a classifier, by name; `fields` are its attributes.

  Raises:
    ClassifierError: a part of it is of a kind that no file can hold.
  """
  try:
    return _packed(fields)
  # What is given in the place of a part may fail in any way.
  except Exception as error:
    raise errors.ClassifierError(
      "the classifier cannot be saved, since a part of it is not of the kind "
      f"that its documentation names ({error})."
    ) from error


def _packed(fields: Mapping[str, Any]) -> dict[str, bytes]:
  variables = traverse_util.flatten_dict(fields["variables"], sep="/")
  files = {
    ENCODER: safetensors.numpy.save(
      {name: np.ascontiguousarray(leaf) for name, leaf in variables.items()}
    ),
    BANK: fields["support_bank"].to_bytes(),
  }
  if fields["head"] is not None:
    head = dataclasses.asdict(fields["head"])
    files[HEAD] = safetensors.numpy.save(
      {name: np.ascontiguousarray(array) for name, array in head.items()}
    )
  temperature = fields[_IN_DOMAIN]
  settings = {
    "version": schema.VERSION,
    "class_names": list(fields["class_names"]),
    **{name: fields[name] for name in _PLAIN},
    # In one order, whatever it comes from: the digest depends on it.
    "model": dict(sorted(fields["model"].items())),
    **({} if temperature is None else {_IN_DOMAIN: temperature}),
    "preprocessing": fields["preprocessing"].as_json(),
    "files": {name: _sha256(content) for name, content in files.items()},
  }
  return {SETTINGS: files_lib.to_json(settings).encode(), **files}


def write(
  directory: str | os.PathLike[str], files: Mapping[str, bytes]
) -> None:
  """Writes a classifier's files; a crash leaves the old ones or the new ones.

  Raises:
    ClassifierError: when the directory holds something else, too, or when the
      files could not be read again: nothing is written then.
    OSError: when it cannot be written.
  """
  path = _place(directory)
  check_free(path)
  _check_readable(path, files)
  if not isinstance(path, pathlib.Path):
    # In a bucket nothing can be renamed. The settings come last: until then
    # the sums in the old ones tell that the others have changed.
    for name in sorted(files, key=lambda name: name == SETTINGS):
      (path / name).write_bytes(files[name])
    return
  path.parent.mkdir(parents=True, exist_ok=True)
  # Another process may write there, too.
  new = path.with_name(f".{path.name}.{uuid.uuid4().hex[:12]}.new")
  try:
    new.mkdir()
    for name, content in files.items():
      (new / name).write_bytes(content)
    with _locked(path):
      _undo_half_a_swap(path)
      _check_free(path)
      if path.exists():
        path.rename(_old(path))
      new.rename(path)
      shutil.rmtree(_old(path), ignore_errors=True)
  finally:
    shutil.rmtree(new, ignore_errors=True)


def _check_readable(path: epath.Path, files: Mapping[str, bytes]) -> None:
  try:
    _checked(path, _parsed(path, files[SETTINGS]), files)
  except errors.ClassifierError as error:
    raise errors.ClassifierError(
      f"nothing is written to {path}, since it could not be read again: {error}"
    ) from None


def _place(directory: str | os.PathLike[str]) -> epath.Path:
  """Absolute path; of a link, where it leads, so that the link is kept."""
  return files_lib.behind_link(files_lib.resolve(directory))


def _old(path: pathlib.Path) -> pathlib.Path:
  return path.with_name(f".{path.name}.old")


@contextlib.contextmanager
def _locked(path: pathlib.Path, *, shared: bool = False) -> Iterator[None]:
  """Holds a lock: processes that read, or one that renames."""
  if not locks.AVAILABLE:
    # There, a directory cannot be opened either.
    yield
    return
  descriptor = os.open(path.parent, os.O_RDONLY)
  try:
    locks.hold(descriptor, shared=shared)
    yield
  finally:
    os.close(descriptor)


def _undo_half_a_swap(path: pathlib.Path) -> None:
  """Gives back what a process has renamed that was killed then."""
  if not path.exists() and _old(path).exists():
    _old(path).rename(path)
  shutil.rmtree(_old(path), ignore_errors=True)


@contextlib.contextmanager
def _reading(path: epath.Path) -> Iterator[None]:
  """Keeps other processes from replacing a classifier while it is read."""
  if not isinstance(path, pathlib.Path) or not path.parent.is_dir():
    yield
    return
  if not path.exists() and _old(path).exists():
    # Where nothing can be renamed, there is no classifier.
    with contextlib.suppress(OSError), _locked(path):
      _undo_half_a_swap(path)
  with _locked(path, shared=True):
    yield


def check_free(path: epath.Path) -> None:
  """Raises ClassifierError when something else than a classifier is there.

  Files of others beside a classifier count: the entire directory is replaced.
  """
  with _reading(path):
    _check_free(path)


def _check_free(path: epath.Path) -> None:
  if not path.exists():
    return
  inside = sorted(p.name for p in path.iterdir()) if path.is_dir() else [""]
  if inside and SETTINGS not in inside:
    raise errors.ClassifierError(
      f"{path} is there and holds no classifier (no {SETTINGS}): choose "
      "another directory, or an empty one."
    )
  others = [name for name in inside if name not in (*_NAMES, files_lib.RECORD)]
  if others:
    raise errors.ClassifierError(
      f"{path} holds something else beside a classifier "
      f"({text.first_few(others)}), and is replaced as a whole: move that "
      "away, or choose another directory."
    )


def read(directory: str | os.PathLike[str]) -> dict[str, Any]:
  """The attributes of the classifier in a directory.

  Raises:
    ClassifierError: when there is none, when a file of it is damaged, or when
      weights, bank, head and settings do not belong together.
  """
  path = _place(directory)
  with _reading(path):
    settings = _settings(path)
    files = {
      name: _content(path / name, digest)
      for name, digest in settings["files"].items()
    }
  return _checked(path, settings, files)


def _checked(
  path: epath.Path, settings: Mapping[str, Any], files: Mapping[str, bytes]
) -> dict[str, Any]:
  """The attributes of the classifier whose files were read, or are written."""
  fields = _unpacked(path, settings, files)
  consistency.check_weights(path, fields)
  variables = traverse_util.unflatten_dict(fields["variables"], sep="/")
  fields |= {"variables": variables}
  wrong = consistency.disagreement(fields)
  if wrong:
    raise errors.ClassifierError(
      f"{path} is no classifier: {wrong}. Make it anew."
    )
  return fields


def _unpacked(
  path: epath.Path, settings: Mapping[str, Any], files: Mapping[str, bytes]
) -> dict[str, Any]:
  """Attributes; variables by their paths, as nothing has checked those yet."""
  try:
    variables = safetensors.numpy.load(files[ENCODER])
    head = None
    if HEAD in files:
      head = predictions.Head(**safetensors.numpy.load(files[HEAD]))
    return {
      "class_names": tuple(settings["class_names"]),
      **{name: settings[name] for name in (*_PLAIN, _IN_DOMAIN)},
      # Fields that are newer than the classifier have their defaults.
      "model": {**config_lib.base().model, **settings["model"]},
      "variables": variables,
      "support_bank": support_bank_lib.from_bytes(files[BANK]),
      "preprocessing": preprocessing.from_json(settings["preprocessing"]),
      "head": head,
    }
  except (
    KeyError,
    TypeError,
    ValueError,
    safetensors.SafetensorError,
  ) as error:
    reason = error if isinstance(error, errors.UserError) else repr(error)
    raise errors.ClassifierError(
      f"{path} is no classifier that this version reads: {str(reason)[:500]} "
      "Make it anew, or use the version of paws_jax that has written it."
    ) from None


def settings_in(directory: str | os.PathLike[str]) -> dict[str, Any] | None:
  """What classifier.json in a directory says; None when there is none.

  Raises:
    ClassifierError: when it is damaged, or of another version.
  """
  path = _place(directory)
  with _reading(path):
    return _settings(path) if (path / SETTINGS).exists() else None


def _settings(path: epath.Path) -> dict[str, Any]:
  try:
    content = files_lib.read_bytes(path / SETTINGS)
  except (FileNotFoundError, NotADirectoryError):
    raise errors.ClassifierError(
      f"{path} holds no classifier: there is no {SETTINGS} in it."
    ) from None
  except OSError as error:
    raise errors.ClassifierError(
      f"{path / SETTINGS} cannot be read ({error.strerror or error}): make the "
      "classifier anew."
    ) from None
  return _parsed(path, content)


def _parsed(path: epath.Path, content: bytes) -> dict[str, Any]:
  """Reads and checks the content of classifier.json."""
  try:
    settings = json_text.parse(content)
  except ValueError as error:
    raise errors.ClassifierError(
      f"{path / SETTINGS} is not JSON ({error}): make the classifier anew."
    ) from None
  version = settings.get("version") if isinstance(settings, dict) else None
  if (
    type(version) is not int
    or version != schema.VERSION
    or not isinstance(settings.get("files"), dict)
  ):
    raise errors.ClassifierError(
      f"{path / SETTINGS} has the version {str(version)[:40]}, and "
      f"{schema.VERSION} is read here: make the classifier anew, or use the "
      "version of paws_jax that has written it."
    )
  settings = {_IN_DOMAIN: None} | settings
  wrong = schema.wrong_setting(settings)
  if wrong:
    raise errors.ClassifierError(
      f"{path / SETTINGS} is that of no classifier that this version reads: "
      f"{wrong}. Make it anew."
    )
  return settings


def _content(path: epath.Path, digest: str) -> bytes:
  try:
    content = files_lib.read_bytes(path, most=_MOST_BYTES)
  except OSError as error:
    raise errors.ClassifierError(
      f"{path} cannot be read ({error.strerror or error}): make the classifier "
      "anew."
    ) from None
  if _sha256(content) != digest:
    raise errors.ClassifierError(
      f"{path} is damaged, or of another classifier than {SETTINGS} beside it: "
      "make the classifier anew."
    )
  return content


def _sha256(content: bytes) -> str:
  return hashlib.sha256(content).hexdigest()
