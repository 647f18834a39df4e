"""Task `export`: a trained classifier for other systems.

python -m paws_jax.main --task=export --workdir=DIR --targets=stablehlo

Each target becomes a directory of its own, OUTPUT/TARGET, with a model.json
that says what its files take and give. docs/export.md shows how to load them.
"""

from __future__ import annotations

import contextlib
import dataclasses
import fnmatch
import hashlib
import importlib
import json
import os
import pathlib
import shutil
from collections.abc import Callable
from collections.abc import Iterable
from collections.abc import Iterator
from collections.abc import Mapping
from collections.abc import Sequence
from typing import Any

import ml_collections

from paws_jax import config as config_lib
from paws_jax import errors
from paws_jax import json_text
from paws_jax import text as text_lib
from paws_jax.classifier import classifier as classifier_lib
from paws_jax.export import program as program_lib
from paws_jax.predict import source as source_lib
from paws_jax.runs import files as files_lib

_COMPILED = "__pycache__/encoder.*.pyc"
DESCRIPTION = "model.json"
# There, the files beside it: any other is a user's own.
_WRITTEN = "written"
_SHA256 = "sha256"
# A target's module has write(program, directory) and may have missing().
_MODULES = {
  "stablehlo": "stablehlo",
  "savedmodel": "savedmodel",
  "torch": "torch",
  "onnx": "onnx",
}


@dataclasses.dataclass(frozen=True, eq=False)
class ExportInputs:
  """What `run` needs.

  Attributes:
    make: gives the classifier; made of the run if need be.
    output: directory of the targets' directories.
    targets: names, of `_MODULES`.
  """

  make: Callable[[], classifier_lib.Classifier]
  output: pathlib.Path
  targets: tuple[str, ...]


def prepare(
  config: config_lib.Recipe | ml_collections.ConfigDict | None,
  workdir: str,
  *,
  output: str | None = None,
  targets: Sequence[str] = ("stablehlo",),
  classifier: str | None = None,
  head: str = "soft_nn",
) -> ExportInputs:
  """Checks everything that a user can get wrong.

  Args:
    config: the run's recipe; None with `classifier`.
    workdir: the run's directory.
    output: where to write; default WORKDIR/export.
    targets: some of stablehlo, savedmodel, torch, onnx.
    classifier: directory of a saved one, instead of the run's.
    head: "soft_nn" for the labelled images' vote, "finetuned" for the
      fine-tuned run's head.

  Raises:
    UserError: targets are unknown or not installed, the output cannot be
      written, or the classifier does not exist, is damaged, or has one class
      only; also as for `restore.load`.
  """
  targets = check_targets(targets)
  path = _check_output(output, workdir, targets)
  recipe = None if config is None else config_lib.resolve(config)
  source = source_lib.find(recipe, workdir, classifier=classifier, head=head)
  if not source.has_head:
    classifier_lib.check_voters(source.labels, source.class_names)
  return ExportInputs(make=source.make, output=path, targets=targets)


def run(prepared: ExportInputs) -> int:
  """Writes every target; returns the exit status.

  Raises:
    errors.NonFiniteError: when weights or embeddings are not finite.
    errors.BadImageError: when a labelled image cannot be read.
    OSError, tensorflow.errors.OpError: when the output cannot be written.
  """
  program = program_lib.create(prepared.make())
  for target in prepared.targets:
    path = write(program, prepared.output, target)
    print(f"{target}: {path} ({_megabytes(path):.1f} MB)")
  return 0


def write(
  program: program_lib.Program, output: pathlib.Path, target: str
) -> pathlib.Path:
  """Writes a target, completely or not at all.

  Args:
    program: of `program.create`.
    output: directory for the target's; made if it does not exist.
    target: its name.

  Returns:
    OUTPUT/TARGET.

  Raises:
    ValueError: when something else is there.
    OSError: when it cannot be written.
  """
  module = _module(target)
  path = output / target
  _check_replaceable(path)
  with _replacing(path) as directory:
    artifact = module.write(program, directory)
    description = {"target": target, **artifact, **program.description}
    names = _names(directory)
    description[_WRITTEN] = names
    description[_SHA256] = _digests(directory, description, names)
    text = json.dumps(description, indent=2, allow_nan=False) + "\n"
    (directory / DESCRIPTION).write_text(text, encoding="utf-8")
  return path


def check_targets(targets: Sequence[str]) -> tuple[str, ...]:
  """Refuses targets that do not exist or cannot be made here.

  Args:
    targets: names as a user gives them.

  Returns:
    Each once, without spaces around.

  Raises:
    ValueError: naming the target and what to do.
    errors.MissingPackageError: a target's package is not installed.
  """
  names = tuple(dict.fromkeys(name.strip() for name in targets))
  known = ", ".join(_MODULES)
  unknown = [name for name in names if name not in _MODULES]
  if unknown or not names:
    what = f"unknown: {', '.join(map(repr, unknown))}" if unknown else "empty"
    raise errors.InputError(
      f"--targets: {what}; give some of {known}, with commas"
    )
  for name in names:
    reason = getattr(_module(name), "missing", str)()
    if reason:
      raise errors.MissingPackageError(
        f"--targets={name} cannot be made here: {reason}; or leave {name} out"
      )
  return names


def _module(target: str) -> Any:
  return importlib.import_module(f"paws_jax.export.{_MODULES[target]}")


def _check_output(
  output: str | None, workdir: str, targets: Sequence[str]
) -> pathlib.Path:
  """The directory to write to; makes none yet.

  Raises:
    ValueError: when it cannot be made or written, or when a target's place in
      it is taken by something that is no export.
  """
  if not output and not workdir:
    raise errors.InputError(
      "--output is missing: give a directory to export to."
    )
  path = files_lib.resolve(output or os.path.join(workdir, "export"))
  if not isinstance(path, pathlib.Path):
    raise errors.InputError(
      f"--output={path} is no local directory: export to one with --output=DIR "
      "and copy it"
    )
  there = next(p for p in (path, *path.parents) if p.exists())
  if not there.is_dir() or not os.access(there, os.W_OK | os.X_OK):
    reason = "is not writable" if there.is_dir() else "is a file"
    raise errors.InputError(
      f"--output={path} cannot be written: {there} {reason}. Choose another "
      "directory."
    )
  for target in targets:
    _check_replaceable(path / target)
  return path


def _check_replaceable(path: pathlib.Path) -> None:
  """Raises ValueError when a target's place holds what no export has made."""
  if not path.exists():
    return
  if not (path / DESCRIPTION).is_file():
    raise errors.InputError(
      f"{path} exists and is no export ({DESCRIPTION} is not in it): move "
      "it away, or choose another --output."
    )
  others = _others(path)
  if others:
    raise errors.InputError(
      f"{path} would be replaced, and holds files that no export has written "
      f"({text_lib.first_few(sorted(others))}): move it away, or choose "
      "another --output."
    )


def _digests(
  directory: pathlib.Path, description: Mapping[str, Any], names: Iterable[str]
) -> dict[str, str]:
  """Sums of the files and of their description, which show a change."""
  text = json.dumps({**description, _SHA256: None})
  digests = {name: files_lib.sha256(directory / name) for name in names}
  return digests | {DESCRIPTION: hashlib.sha256(text.encode()).hexdigest()}


def _others(path: pathlib.Path) -> set[str]:
  """Names of files in an export that were added or changed.

  What Python has compiled of torch/encoder.py may be replaced.
  """
  there = {
    name
    for name in _names(path)
    if name != DESCRIPTION and not fnmatch.fnmatch(name, _COMPILED)
  }
  try:
    description = json_text.parse((path / DESCRIPTION).read_bytes())
    written = {*description[_WRITTEN]}
    # Version 0.1.0 noted none.
    noted = description.get(_SHA256)
    found = _digests(path, description, there & written)
    changed = {name for name in found if noted and found[name] != noted[name]}
  except (AttributeError, KeyError, OSError, TypeError, ValueError):
    return there | {DESCRIPTION}
  return (there - written) | changed


def _names(directory: pathlib.Path) -> list[str]:
  """Of all files below a directory, relative to it."""
  return sorted(
    path.relative_to(directory).as_posix()
    for path in directory.rglob("*")
    if not path.is_dir() or path.is_symlink()
  )


@contextlib.contextmanager
def _replacing(path: pathlib.Path) -> Iterator[pathlib.Path]:
  """Gives an empty directory that takes a path's place in the end."""
  temporary = path.with_name(f".{path.name}.tmp")
  # Of a command that was killed.
  shutil.rmtree(temporary, ignore_errors=True)
  temporary.mkdir(parents=True)
  try:
    yield temporary
    if path.exists():
      shutil.rmtree(path)
    os.replace(temporary, path)
  finally:
    shutil.rmtree(temporary, ignore_errors=True)


def _megabytes(path: pathlib.Path) -> float:
  files = [file for file in path.rglob("*") if file.is_file()]
  return sum(file.stat().st_size for file in files) / 1e6
