"""Optimisers in PyTorch, for benchmarks/torch_side/step.py."""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

_LARS_EPSILON = 1e-8


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


def create_update(
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
