"""Encoders in PyTorch, for benchmarks/torch_side/step.py.

The trunks and heads of `paws_jax.models`. Modules have the names of
`paws_jax.weights.torch_names`, so that both sides start from the same weights.
"""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Mapping
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn import functional


def _conv(
  inputs: int, outputs: int, kernel: int, stride: int = 1, bias: bool = False
) -> nn.Conv2d:
  return nn.Conv2d(
    inputs, outputs, kernel, stride, padding=kernel // 2, bias=bias
  )


def _downsample(inputs: int, outputs: int, stride: int) -> nn.Module:
  if stride == 1 and inputs == outputs:
    return nn.Identity()
  return nn.Sequential(
    _conv(inputs, outputs, 1, stride), nn.BatchNorm2d(outputs)
  )


class _BasicBlock(nn.Module):
  expansion = 1

  def __init__(self, inputs: int, width: int, stride: int):
    super().__init__()
    self.conv1 = _conv(inputs, width, 3, stride)
    self.bn1 = nn.BatchNorm2d(width)
    self.conv2 = _conv(width, width, 3)
    self.bn2 = nn.BatchNorm2d(width)
    self.downsample = _downsample(inputs, width, stride)

  def forward(self, x: torch.Tensor) -> torch.Tensor:
    y = functional.relu(self.bn1(self.conv1(x)))
    y = self.bn2(self.conv2(y))
    return functional.relu(y + self.downsample(x))


class _WideBlock(nn.Module):
  expansion = 1

  def __init__(self, inputs: int, width: int, stride: int):
    super().__init__()
    self.bn1 = nn.BatchNorm2d(inputs)
    self.conv1 = _conv(inputs, width, 3, bias=True)
    self.bn2 = nn.BatchNorm2d(width)
    self.conv2 = _conv(width, width, 3, stride, bias=True)
    self.shortcut = nn.Identity()
    if stride != 1 or inputs != width:
      self.shortcut = nn.Sequential(_conv(inputs, width, 1, stride, bias=True))

  def forward(self, x: torch.Tensor) -> torch.Tensor:
    y = self.conv1(functional.relu(self.bn1(x)))
    y = self.conv2(functional.relu(self.bn2(y)))
    return y + self.shortcut(x)


class _Bottleneck(nn.Module):
  expansion = 4

  def __init__(self, inputs: int, width: int, stride: int):
    super().__init__()
    outputs = self.expansion * width
    self.conv1 = _conv(inputs, width, 1)
    self.bn1 = nn.BatchNorm2d(width)
    self.conv2 = _conv(width, width, 3, stride)
    self.bn2 = nn.BatchNorm2d(width)
    self.conv3 = _conv(width, outputs, 1)
    self.bn3 = nn.BatchNorm2d(outputs)
    self.downsample = _downsample(inputs, outputs, stride)

  def forward(self, x: torch.Tensor) -> torch.Tensor:
    y = functional.relu(self.bn1(self.conv1(x)))
    y = functional.relu(self.bn2(self.conv2(y)))
    y = self.bn3(self.conv3(y))
    return functional.relu(y + self.downsample(x))


class _Trunk(nn.Module):
  """Stages layer1, layer2, ... of blocks, each entered with stride 2."""

  def __init__(
    self,
    block: Callable,
    stem: int,
    stages: Sequence[tuple[int, int]],
    *,
    first_stride: int = 2,
  ):
    """Takes the stem's width, and the width and blocks of each stage."""
    super().__init__()
    self._names, inputs, stride = [], stem, first_stride
    for i, (width, count) in enumerate(stages, 1):
      outputs = block.expansion * width
      blocks = [block(inputs, width, stride)]
      blocks += [block(outputs, width, 1) for _ in range(count - 1)]
      self._names.append(f"layer{i}")
      self.add_module(self._names[-1], nn.Sequential(*blocks))
      inputs, stride = outputs, 2
    self.num_features = inputs

  def stages(self, x: torch.Tensor) -> torch.Tensor:
    for name in self._names:
      x = self.get_submodule(name)(x)
    return x


class _ResNet(_Trunk):
  def __init__(self, channels: int, stem: int, counts: Sequence[int]):
    stages = [(stem * 2**i, count) for i, count in enumerate(counts)]
    # The stem has reduced its images by 4.
    super().__init__(_Bottleneck, stem, stages, first_stride=1)
    self.conv1 = _conv(channels, stem, 7, stride=2)
    self.bn1 = nn.BatchNorm2d(stem)

  def forward(self, x: torch.Tensor) -> torch.Tensor:
    x = functional.relu(self.bn1(self.conv1(x)))
    x = functional.max_pool2d(x, 3, stride=2, padding=1)
    return self.stages(x).mean((2, 3))


class _SmallResNet(_Trunk):
  def __init__(
    self,
    channels: int,
    stem: int,
    stages: Sequence[tuple[int, int]],
    *,
    first_stride: int = 2,
  ):
    stages = [(stem * factor, count) for factor, count in stages]
    super().__init__(_BasicBlock, stem, stages, first_stride=first_stride)
    self.conv1 = _conv(channels, stem, 3)
    self.bn1 = nn.BatchNorm2d(stem)

  def forward(self, x: torch.Tensor) -> torch.Tensor:
    x = functional.relu(self.bn1(self.conv1(x)))
    return self.stages(x).mean((2, 3))


class _WideResNet(_Trunk):
  def __init__(self, channels: int, width: int, depth: int):
    count = (depth - 4) // 6
    stages = [(16 * width * 2**i, count) for i in range(3)]
    # The stem keeps the resolution, and so does the first stage.
    super().__init__(_WideBlock, 16, stages, first_stride=1)
    self.conv1 = _conv(channels, 16, 3, bias=True)
    self.bn1 = nn.BatchNorm2d(self.num_features)

  def forward(self, x: torch.Tensor) -> torch.Tensor:
    x = self.stages(self.conv1(x))
    return functional.relu(self.bn1(x)).mean((2, 3))


# By `model.name`: builds the trunk for images of so many channels, at
# `model.width`.
_TRUNKS: dict[str, Callable[[int, int], _Trunk]] = {
  "resnet50": lambda c, w: _ResNet(c, 64 * w, (3, 4, 6, 3)),
  "resnet101": lambda c, w: _ResNet(c, 64 * w, (3, 4, 23, 3)),
  "resnet200": lambda c, w: _ResNet(c, 64 * w, (3, 24, 36, 3)),
  "resnet_tiny": lambda c, w: _ResNet(c, 4 * w, (1, 1, 1, 1)),
  "small_resnet": lambda c, w: _SmallResNet(c, 16 * w, ((2, 1), (4, 1))),
  "small_resnet3": lambda c, w: _SmallResNet(
    c, 16 * w, ((2, 1), (4, 1), (8, 1))
  ),
  "resnet18_cifar": lambda c, w: _SmallResNet(
    c, 64 * w, ((1, 2), (2, 2), (4, 2), (8, 2)), first_stride=1
  ),
  "wide_resnet10": lambda c, w: _WideResNet(c, w, 10),
  "wide_resnet16": lambda c, w: _WideResNet(c, w, 16),
  "wide_resnet28": lambda c, w: _WideResNet(c, w, 28),
  "wide_resnet40": lambda c, w: _WideResNet(c, w, 40),
}


class _Projection(nn.Module):
  def __init__(self, inputs: int, hidden: int, outputs: int):
    super().__init__()
    self.fc1, self.bn1 = nn.Linear(inputs, hidden), nn.BatchNorm1d(hidden)
    self.fc2, self.bn2 = nn.Linear(hidden, hidden), nn.BatchNorm1d(hidden)
    self.fc3 = nn.Linear(hidden, outputs)

  def forward(self, x: torch.Tensor) -> torch.Tensor:
    x = functional.relu(self.bn1(self.fc1(x)))
    x = functional.relu(self.bn2(self.fc2(x)))
    return self.fc3(x)


class _Prediction(nn.Module):
  def __init__(self, outputs: int):
    super().__init__()
    self.bn1, self.fc1 = (
      nn.BatchNorm1d(outputs),
      nn.Linear(outputs, outputs // 4),
    )
    self.bn2 = nn.BatchNorm1d(outputs // 4)
    self.fc2 = nn.Linear(outputs // 4, outputs)

  def forward(self, x: torch.Tensor) -> torch.Tensor:
    return self.fc2(functional.relu(self.bn2(self.fc1(self.bn1(x)))))


class Encoder(nn.Module):
  """Images to h and z, before and after the prediction head."""

  def __init__(self, section: Mapping[str, Any], channels: int):
    """Builds the encoder of section `model`.

    Raises:
      ValueError: an encoder that has no counterpart here.
    """
    super().__init__()
    name, outputs = section["name"], section["output_dim"]
    if name not in _TRUNKS:
      raise ValueError(
        f"model.name is {name!r}, which the PyTorch peer lacks; it has "
        f"{', '.join(_TRUNKS)}: choose one, or --peer=none."
      )
    self.trunk = _TRUNKS[name](channels, section["width"])
    hidden = section["projection_hidden_dim"] or self.trunk.num_features
    self.fc = _Projection(self.trunk.num_features, hidden, outputs)
    self.pred = _Prediction(outputs) if section["prediction_head"] else None
    for module in self.modules():
      if isinstance(module, (nn.BatchNorm1d, nn.BatchNorm2d)):
        module.momentum = 1 - section["bn_momentum"]
    if isinstance(self.trunk, _WideResNet):
      self.trunk.bn1.momentum = 1 - section["final_bn_momentum"]

  def load(self, state: Mapping[str, np.ndarray]) -> None:
    """Takes the weights that `torch_names.to_torch` gives."""
    heads = ("fc.", "pred.")
    self.load_state_dict(
      {
        key if key.startswith(heads) else f"trunk.{key}": torch.tensor(value)
        for key, value in state.items()
      }
    )

  def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """[n, Ch, H, W] -> h, z [n, D]."""
    h = self.fc(self.trunk(x))
    return h, h if self.pred is None else self.pred(h)
