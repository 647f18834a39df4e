"""Losses in PyTorch, for benchmarks/torch_side/step.py."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch.nn import functional

_TARGET_THRESHOLD = 1e-4
_TINY = torch.finfo(torch.float32).tiny


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

  def vote(queries, supports):
    logits = _cosines(queries, supports) / section["temperature"]
    return torch.softmax(logits, -1) @ label_rows

  def sharpen(probs):
    powers = probs ** (1 / section["sharpen_temperature"])
    return powers / powers.sum(-1, keepdim=True)

  probs = vote(z, z_supports)
  with torch.no_grad():
    per_view = sharpen(vote(h, h_supports))
    per_view = per_view.unflatten(0, (num_large, -1))
    total = per_view.sum(0)
    # A large view is held to the mean of the others, a small one to that of
    # all.
    large = ((total - per_view) / (num_large - 1)).flatten(0, 1)
    num_small = len(probs) // len(total) - num_large
    small = (total / num_large).repeat(num_small, 1)
    targets = torch.cat([large, small])
    targets = torch.where(targets < _TARGET_THRESHOLD, 0.0, targets)
  loss = _cross_entropy(targets, probs)
  if section["me_max"]:
    mean = sharpen(probs).mean(0).clamp_min(_TINY)
    loss = loss + (mean * mean.log()).sum()
  if section["support_loss_weight"]:
    # Appendix E.
    support_loss = suncet_loss(
      z_supports, label_rows, temperature=section["temperature"]
    )
    loss = loss + section["support_loss_weight"] * support_loss
  return loss


def suncet_loss(
  z: torch.Tensor, label_rows: torch.Tensor, *, temperature: float
) -> torch.Tensor:
  """Cross-entropy of each image's label under a vote of all others.

  It is that of method "supervised" (SuNCEt, 2020).

  Args:
    z: [n, D].
    label_rows: [n, C].
    temperature: of the vote.

  Returns:
    Scalar, the mean over the images.
  """
  logits = _cosines(z, z) / temperature
  itself = torch.eye(len(z), dtype=torch.bool, device=z.device)
  weights = torch.softmax(logits.masked_fill(itself, -math.inf), -1)
  return _cross_entropy(label_rows, weights @ label_rows)


def _cosines(queries: torch.Tensor, keys: torch.Tensor) -> torch.Tensor:
  queries = functional.normalize(queries.float(), dim=-1)
  return queries @ functional.normalize(keys.float(), dim=-1).T


def _cross_entropy(targets: torch.Tensor, probs: torch.Tensor) -> torch.Tensor:
  return -(targets * probs.clamp_min(_TINY).log()).sum(-1).mean()
