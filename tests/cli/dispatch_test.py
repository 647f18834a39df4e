"""Exit statuses and error messages of a task, whatever it raises."""

import errno
import importlib
import os
import sys
import types

import pytest

from paws_jax import errors
from paws_jax.cli import dispatch
from paws_jax.cli import flags
from paws_jax.parallel import cpu_devices
from paws_jax.runs import compilation_cache


class OpError(Exception):
  """Stands for the error of a bucket, which is TensorFlow's."""


@pytest.fixture
def execute(monkeypatch):
  """Runs a task whose `prepare` or `run` raises; returns the exit status."""
  fake = types.SimpleNamespace(errors=types.SimpleNamespace(OpError=OpError))
  monkeypatch.setitem(sys.modules, "tensorflow", fake)
  monkeypatch.setattr(compilation_cache, "enable", lambda path: None)
  monkeypatch.setattr(cpu_devices, "use_cpu_cores", lambda size: None)
  for name, value in (("TASK", "report"), ("CACHE", None)):
    monkeypatch.setattr(flags, name, types.SimpleNamespace(value=value))
  option = types.SimpleNamespace(value=None)
  fake_flags = types.SimpleNamespace(FLAGS={"output": option})
  monkeypatch.setattr(dispatch, "flags", fake_flags)

  def execute(where, error):
    def fail(*unused, **options):
      raise error

    module = types.SimpleNamespace(
      prepare=fail if where == "prepare" else lambda *unused, **options: None,
      run=fail,
    )
    monkeypatch.setattr(importlib, "import_module", lambda name: module)
    return dispatch._status(lambda: dispatch._execute(None, "/run"))

  return execute


@pytest.mark.parametrize(
  ("error", "prepare", "run"),
  [
    (errors.UserError("no"), 2, 1),
    (errors.InputError("no"), 2, 1),
    (errors.UnknownFieldError("no"), 2, 1),
    (errors.MissingFileError("no"), 2, 1),
    (errors.MissingPackageError("no"), 2, 1),
    (errors.WorkdirError("no"), 2, 1),
    (errors.ClassifierError("no"), 2, 1),
    (errors.WeightsError("no"), 2, 1),
    (errors.BadImageError("a.jpg", "cut off"), 2, 1),
    (errors.DisagreementError("no"), 2, 1),
    (errors.DistributedError("no"), 1, 1),
    (errors.CheckpointError("no"), 1, 1),
    (errors.NonFiniteError("no"), 1, 1),
    (FileNotFoundError("no"), 2, 1),
    (PermissionError("no"), 2, 1),
    (IsADirectoryError("no"), 2, 1),
    (NotADirectoryError("no"), 2, 1),
    (OSError("disk full"), 1, 1),
    (MemoryError("no"), 1, 1),
    (OpError("403"), 1, 1),
    (KeyboardInterrupt(), 130, 130),
  ],
  ids=lambda value: type(value).__name__,
)
def test_exit_status(execute, capsys, error, prepare, run):
  for where, status in (("prepare", prepare), ("run", run)):
    assert execute(where, error) == status
    told = capsys.readouterr().err
    assert told.startswith("error: ")
    assert len(told.splitlines()) == 1
    assert str(error) in told


@pytest.mark.parametrize(
  ("where", "error"),
  [
    ("prepare", ValueError("a mistake in the code")),
    ("prepare", TypeError("a mistake in the code")),
    ("prepare", RuntimeError("a mistake in the code")),
    ("run", ValueError("a mistake in the code")),
    ("run", TypeError("a mistake in the code")),
  ],
)
def test_mistakes_in_the_code_show_where(execute, where, error):
  with pytest.raises(type(error), match="a mistake"):
    execute(where, error)


@pytest.mark.parametrize("where", ["prepare", "run"])
def test_a_full_disk_is_one_line_that_says_what_to_do(execute, where, capsys):
  # As of a write, which names no file.
  error = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
  assert execute(where, error) == 1
  assert capsys.readouterr().err == (
    "error: /run cannot be written: No space left on device. Free space, and "
    "run the same command again.\n"
  )
