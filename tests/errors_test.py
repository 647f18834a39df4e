"""Errors for users have one base class, and modules that users reach use it."""

import ast
import pathlib

import pytest

from paws_jax import errors

PACKAGE = pathlib.Path(__file__).parents[1] / "paws_jax"
# What these refuse is a recipe, a flag, a file or data: never a bare error.
# Functions of arrays (losses, augment, models ...) check only shapes.
USER_FACING = (
  "classifier",
  "cli",
  "config",
  "data",
  "export",
  "finetune",
  "interchange",
  "methods",
  "monitoring",
  "optim",
  "plan",
  "predict",
  "runs",
  "tasks",
  "training",
  "weights",
)
# Messages of these are parts of another error, or about a mistake in the code.
EXEMPT = (
  "data/host/decode.py",
  "plan/hlo.py",
)


def _raised(path):
  """Names of the errors that a file raises by themselves."""
  tree = ast.parse(path.read_text(encoding="utf-8"))
  return {
    ast.unparse(node.exc.func)
    for node in ast.walk(tree)
    if isinstance(node, ast.Raise) and isinstance(node.exc, ast.Call)
  }


@pytest.mark.parametrize("package", USER_FACING)
def test_refusals_are_errors_for_users(package):
  for path in sorted((PACKAGE / package).rglob("*.py")):
    if str(path.relative_to(PACKAGE)) not in EXEMPT:
      bare = _raised(path) & {"ValueError", "FileNotFoundError", "ImportError"}
      assert not bare, path


def test_a_bare_error_would_be_found(tmp_path):
  path = tmp_path / "module.py"
  path.write_text("raise ValueError('no')\n")
  assert _raised(path) == {"ValueError"}


@pytest.mark.parametrize(
  ("kind", "also", "status"),
  [
    (errors.InputError, ValueError, 2),
    (errors.UnknownFieldError, TypeError, 2),
    (errors.MissingFileError, FileNotFoundError, 2),
    (errors.MissingPackageError, ImportError, 2),
    (errors.NonFiniteError, RuntimeError, 1),
    (errors.CheckpointError, RuntimeError, 1),
    (errors.DistributedError, RuntimeError, 1),
    (errors.DisagreementError, errors.DistributedError, 2),
    (errors.WorkdirError, ValueError, 2),
    (errors.ClassifierError, errors.WorkdirError, 2),
    (errors.WeightsError, ValueError, 2),
    (errors.BadImageError, ValueError, 2),
  ],
)
def test_every_error_is_also_of_the_kind_that_callers_catch(kind, also, status):
  assert issubclass(kind, errors.UserError)
  assert issubclass(kind, also)
  assert kind.status == status


def test_all_errors_are_tested():
  kinds = [
    value
    for value in vars(errors).values()
    if isinstance(value, type) and issubclass(value, Exception)
  ]
  assert all(issubclass(kind, errors.UserError) for kind in kinds)
  assert len(kinds) == 13


def test_a_bad_image_is_named():
  error = errors.BadImageError("cat/1.jpg", "it is cut off", remedy="Copy it")
  assert str(error) == "cat/1.jpg: it is cut off. Copy it."
  assert (error.name, error.reason) == ("cat/1.jpg", "it is cut off")
