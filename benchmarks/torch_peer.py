"""The PAWS step of a recipe in PyTorch: what benchmarks/step.py compares with.

The same encoder, the same two BatchNorm passes, the same loss and optimiser,
on given views. Modules have the names of `paws_jax.interop.torch_names`, so
that both sides start from the same weights. Written to be fast: channels last,
fused AdamW, bfloat16 autocast where ours computes in bfloat16.

It knows nothing of JAX: it takes and returns NumPy arrays and numbers.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from collections.abc import Mapping
from collections.abc import Sequence
from typing import Any
from typing import NamedTuple

import numpy as np
import torch
from torch import nn
from torch.nn import functional

_TARGET_THRESHOLD = 1e-4
_LARS_EPSILON = 1e-8


class Views(NamedTuple):
  """Fixed, normalised float32 views; view-major, channels last."""

  # [n, H, W, Ch] views of the supports.
  support: np.ndarray
  # [n, C] smoothed label rows of the supports.
  label_rows: np.ndarray
  # [L, B, H, W, Ch].
  large: np.ndarray
  # [M, B, h, w, Ch], or None.
  small: np.ndarray | None


def _conv(
  inputs: int, outputs: int, kernel: int, stride: int = 1, bias: bool = False
) -> nn.Conv2d:
  return nn.Conv2d(
    inputs, outputs, kernel, stride, padding=kernel // 2, bias=bias
  )


class _BasicBlock(nn.Module):
  def __init__(self, inputs: int, width: int, stride: int):
    super().__init__()
    self.conv1 = _conv(inputs, width, 3, stride)
    self.bn1 = nn.BatchNorm2d(width)
    self.conv2 = _conv(width, width, 3)
    self.bn2 = nn.BatchNorm2d(width)
    self.downsample = nn.Identity()
    if stride != 1 or inputs != width:
      self.downsample = nn.Sequential(
        _conv(inputs, width, 1, stride), nn.BatchNorm2d(width)
      )

  def forward(self, x: torch.Tensor) -> torch.Tensor:
    y = functional.relu(self.bn1(self.conv1(x)))
    y = self.bn2(self.conv2(y))
    return functional.relu(y + self.downsample(x))


class _WideBlock(nn.Module):
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


class _Trunk(nn.Module):
  """Stages layer1, layer2, ... of blocks, each entered with a stride."""

  def __init__(self, block: Callable, widths: Sequence[int], count: int):
    """Takes the stem's and the stages' widths, and the blocks in a stage."""
    super().__init__()
    self.num_features = widths[-1]
    self._names = []
    for i, (inputs, width) in enumerate(itertools.pairwise(widths)):
      # A stem that is followed by a wide block keeps its resolution.
      stride = 1 if block is _WideBlock and i == 0 else 2
      blocks = [block(inputs, width, stride)]
      blocks += [block(width, width, 1) for _ in range(count - 1)]
      self._names.append(f"layer{i + 1}")
      self.add_module(self._names[-1], nn.Sequential(*blocks))

  def stages(self, x: torch.Tensor) -> torch.Tensor:
    for name in self._names:
      x = self.get_submodule(name)(x)
    return x


class _SmallResNet(_Trunk):
  def __init__(self, channels: int, stem: int, num_stages: int):
    widths = [stem * 2**i for i in range(num_stages + 1)]
    super().__init__(_BasicBlock, widths, 1)
    self.conv1 = _conv(channels, stem, 3)
    self.bn1 = nn.BatchNorm2d(stem)

  def forward(self, x: torch.Tensor) -> torch.Tensor:
    x = functional.relu(self.bn1(self.conv1(x)))
    return self.stages(x).mean((2, 3))


class _WideResNet(_Trunk):
  def __init__(self, channels: int, width: int, depth: int):
    widths = (16, 16 * width, 32 * width, 64 * width)
    super().__init__(_WideBlock, widths, (depth - 4) // 6)
    self.conv1 = _conv(channels, 16, 3, bias=True)
    self.bn1 = nn.BatchNorm2d(self.num_features)

  def forward(self, x: torch.Tensor) -> torch.Tensor:
    x = self.stages(self.conv1(x))
    return functional.relu(self.bn1(x)).mean((2, 3))


# By `model.name`: builds the trunk for images of so many channels.
_TRUNKS: dict[str, Callable[[int, int], _Trunk]] = {
  "small_resnet": lambda c, w: _SmallResNet(c, 16 * w, 2),
  "small_resnet3": lambda c, w: _SmallResNet(c, 16 * w, 3),
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
    """Takes the weights that `interop.torch_names.to_torch` gives."""
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


def paws_loss(
  h: torch.Tensor,
  z: torch.Tensor,
  h_supports: torch.Tensor,
  z_supports: torch.Tensor,
  label_rows: torch.Tensor,
  *,
  num_large: int,
  section: Mapping[str, Any],
) -> torch.Tensor:
  """The loss of section 3 of the paper, for views that are view-major.

  Args:
    h: [L·B, D], large views before the prediction head.
    z: [(L + M)·B, D], all views behind it.
    h_supports: [n, D].
    z_supports: [n, D].
    label_rows: [n, C].
    num_large: L.
    section: `method` of the recipe.
  """

  def cosines(queries, supports):
    queries = functional.normalize(queries.float(), dim=-1)
    supports = functional.normalize(supports.float(), dim=-1)
    return queries @ supports.T / section["temperature"]

  def vote(similarities):
    return torch.softmax(similarities, -1) @ label_rows

  def cross_entropy(targets, probs):
    return -(targets * probs.clamp_min(tiny).log()).sum(-1).mean()

  def sharpen(probs):
    powers = probs ** (1 / section["sharpen_temperature"])
    return powers / powers.sum(-1, keepdim=True)

  tiny = torch.finfo(torch.float32).tiny
  probs = vote(cosines(z, z_supports))
  with torch.no_grad():
    per_view = sharpen(vote(cosines(h, h_supports)))
    per_view = per_view.unflatten(0, (num_large, -1))
    total = per_view.sum(0)
    # A large view is held to the mean of the others, a small one to that of
    # all.
    large = ((total - per_view) / (num_large - 1)).flatten(0, 1)
    num_small = len(probs) // len(total) - num_large
    small = (total / num_large).repeat(num_small, 1)
    targets = torch.cat([large, small])
    targets = torch.where(targets < _TARGET_THRESHOLD, 0.0, targets)
  loss = cross_entropy(targets, probs)
  if section["me_max"]:
    mean = sharpen(probs).mean(0).clamp_min(tiny)
    loss = loss + (mean * mean.log()).sum()
  if section["support_loss_weight"]:
    # Every support under a vote of the others (appendix E).
    others = cosines(z_supports, z_supports)
    itself = torch.eye(len(others), dtype=torch.bool, device=others.device)
    others = others.masked_fill(itself, -math.inf)
    support_loss = cross_entropy(label_rows, vote(others))
    loss = loss + section["support_loss_weight"] * support_loss
  return loss


class _MomentumSGD:
  """SGD, with LARS or without; the rate is inside the momentum buffer."""

  def __init__(self, section: Mapping[str, Any], kernels: list, others: list):
    self._section, self._kernels = section, kernels
    self._parameters = kernels + others
    self._buffers = [torch.zeros_like(p) for p in self._parameters]

  @torch.no_grad()
  def __call__(self, rate: float) -> None:
    momentum = self._section["momentum"]
    kernels = [p.grad for p in self._kernels]
    self._decay(kernels)
    others = [p.grad for p in self._parameters[len(kernels) :]]
    grads = kernels + others
    torch._foreach_mul_(self._buffers, momentum)
    torch._foreach_add_(self._buffers, grads, alpha=-rate)
    if not self._section["nesterov"]:
      torch._foreach_add_(self._parameters, self._buffers)
      return
    torch._foreach_add_(self._parameters, self._buffers, alpha=momentum)
    torch._foreach_add_(self._parameters, grads, alpha=-rate)

  def _decay(self, grads: list[torch.Tensor]) -> None:
    """Adds the decay to the gradients of kernels; LARS rescales them, too."""
    decay = self._section["weight_decay"]
    if self._section["name"] == "sgd":
      torch._foreach_add_(grads, self._kernels, alpha=decay)
      return
    weight_norms = torch.stack(torch._foreach_norm(self._kernels))
    grad_norms = torch.stack(torch._foreach_norm(grads))
    ratios = self._section["trust_coefficient"] * weight_norms
    ratios = ratios / (grad_norms + decay * weight_norms + _LARS_EPSILON)
    applies = (weight_norms > 0) & (grad_norms > 0)
    ratios = torch.where(applies, ratios, 1.0)
    decays = torch.where(applies, decay, 0.0)
    weights = torch._foreach_mul(self._kernels, list(decays))
    torch._foreach_add_(grads, weights)
    torch._foreach_mul_(grads, list(ratios))


def _create_update(
  section: Mapping[str, Any], parameters: list[nn.Parameter]
) -> Callable[[float], None]:
  """Returns a function that takes a step of the given learning rate."""
  kernels = [p for p in parameters if p.ndim > 1]
  others = [p for p in parameters if p.ndim == 1]
  if section["name"] != "adamw":
    return _MomentumSGD(section, kernels, others)
  if section["nesterov"]:
    raise ValueError(
      "optim.nesterov is True, but PyTorch's AdamW has no Nesterov momentum: "
      "set it to False, or --peer=none."
    )
  optimizer = torch.optim.AdamW(
    [{"params": kernels}, {"params": others, "weight_decay": 0.0}],
    betas=(section["momentum"], section["b2"]),
    weight_decay=section["weight_decay"],
    fused=True,
  )

  def update(rate: float) -> None:
    for group in optimizer.param_groups:
      group["lr"] = rate
    optimizer.step()

  return update


class Peer:
  """Trains on fixed views, a step at a time."""

  def __init__(
    self,
    sections: Mapping[str, Mapping[str, Any]],
    state: Mapping[str, np.ndarray],
    views: Views,
    *,
    rates: Sequence[float],
    dtype: str,
    on_gpu: bool,
    compiled: bool,
  ):
    """Builds encoder and optimiser, and puts the views on the device.

    Args:
      sections: of `peer_recipe.sections`, which refuses what is not here.
      state: initial weights, under PyTorch's names.
      views: of every step.
      rates: learning rates of the first steps; the last one goes on.
      dtype: of activations, "float32" or "bfloat16".
      on_gpu: whether to use the GPU.
      compiled: whether to use torch.compile.

    Raises:
      ValueError: what the recipe asks for and the peer or PyTorch lacks.
    """
    if on_gpu and not torch.cuda.is_available():
      raise ValueError(
        "JAX runs on a GPU but this PyTorch has none: install a CUDA build of "
        "PyTorch, or run both on the CPU with JAX_PLATFORMS=cpu."
      )
    torch.backends.cudnn.benchmark = True
    self._device = torch.device("cuda" if on_gpu else "cpu")
    self._dtype = getattr(torch, dtype)
    self._section, self._rates, self._step = sections["method"], rates, 0
    self._encoder = Encoder(sections["model"], views.support.shape[-1])
    self._encoder.load(state)
    self._encoder.to(self._device, memory_format=torch.channels_last)
    self._update = _create_update(
      sections["optim"], list(self._encoder.parameters())
    )
    self._label_rows = torch.from_numpy(views.label_rows).to(self._device)
    self._support = self._images(views.support)
    self._num_large = len(views.large)
    self._large = self._images(np.concatenate(views.large))
    self._small = None
    if views.small is not None:
      self._small = self._images(np.concatenate(views.small))
    self._loss = self._compute_loss
    if compiled:
      # Two sizes of crops: static shapes are faster than one dynamic program.
      self._loss = torch.compile(self._compute_loss, dynamic=False)

  def step(self) -> torch.Tensor:
    """Takes a step; returns its loss, which may still be computed."""
    self._encoder.zero_grad(set_to_none=True)
    loss = self._loss()
    loss.backward()
    self._update(self._rates[min(self._step, len(self._rates) - 1)])
    self._step += 1
    return loss.detach()

  def run(self, num_steps: int) -> int:
    """Takes steps and waits for the last; how many."""
    for _ in range(num_steps):
      self.step()
    if self._device.type == "cuda":
      torch.cuda.synchronize()
    return num_steps

  def _images(self, array: np.ndarray) -> torch.Tensor:
    """[n, H, W, Ch] -> [n, Ch, H, W] on the device, laid out as before."""
    images = torch.from_numpy(array).permute(0, 3, 1, 2)
    return images.to(self._device).contiguous(memory_format=torch.channels_last)

  def _compute_loss(self) -> torch.Tensor:
    with torch.autocast(
      self._device.type,
      dtype=torch.bfloat16,
      enabled=self._dtype == torch.bfloat16,
    ):
      # Supports and large views are one BatchNorm batch, small ones another.
      h, z = self._encoder(torch.cat([self._support, self._large]))
      count = len(self._support)
      all_z = z[count:]
      if self._small is not None:
        all_z = torch.cat([all_z, self._encoder(self._small)[1]])
    return paws_loss(
      h[count:],
      all_z,
      h[:count],
      z[:count],
      self._label_rows,
      num_large=self._num_large,
      section=self._section,
    )
