"""A recipe's training step in PyTorch, for benchmarks/step/step.py.

The same encoder, the same BatchNorm passes, the same loss and optimiser, on
given views; of methods, PAWS and its supervised baseline. Written to be fast:
channels last, fused AdamW, bfloat16 autocast where ours computes in bfloat16.

It knows nothing of JAX: it takes and returns NumPy arrays and numbers.
"""

from __future__ import annotations

from collections.abc import Mapping
from collections.abc import Sequence
from typing import Any
from typing import NamedTuple

import numpy as np
import torch

from benchmarks.torch_side import losses as torch_losses
from benchmarks.torch_side import models as torch_models
from benchmarks.torch_side import optim as torch_optim


class Views(NamedTuple):
  """Fixed, normalised float32 views; view-major, channels last."""

  # [n, H, W, Ch] views of the supports.
  support: np.ndarray
  # [n, C] smoothed label rows of the supports.
  label_rows: np.ndarray
  # [L, B, H, W, Ch], or None: the method takes no unlabelled images.
  large: np.ndarray | None
  # [M, B, h, w, Ch], or None.
  small: np.ndarray | None


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
    self._encoder = torch_models.Encoder(
      sections["model"], views.support.shape[-1]
    )
    self._encoder.load(state)
    self._encoder.to(self._device, memory_format=torch.channels_last)
    self._update = torch_optim.create_update(
      sections["optim"], list(self._encoder.parameters())
    )
    self._label_rows = torch.from_numpy(views.label_rows).to(self._device)
    self._support = self._images(views.support)
    self._num_large, self._large = 0, None
    if views.large is not None:
      self._num_large = len(views.large)
      self._large = self._images(np.concatenate(views.large))
    self._small = None
    if views.small is not None:
      self._small = self._images(np.concatenate(views.small))
    self._loss = self._paws_loss
    if self._section["name"] == "supervised":
      self._loss = self._supervised_loss
    if compiled:
      # Two sizes of crops: static shapes are faster than one dynamic program.
      self._loss = torch.compile(self._loss, dynamic=False)

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

  def _autocast(self) -> torch.autocast:
    return torch.autocast(
      self._device.type,
      dtype=torch.bfloat16,
      enabled=self._dtype == torch.bfloat16,
    )

  def _supervised_loss(self) -> torch.Tensor:
    with self._autocast():
      _, z = self._encoder(self._support)
    return torch_losses.suncet_loss(
      z, self._label_rows, temperature=self._section["temperature"]
    )

  def _paws_loss(self) -> torch.Tensor:
    with self._autocast():
      # Supports and large views are one BatchNorm batch, small ones another.
      h, z = self._encoder(torch.cat([self._support, self._large]))
      count = len(self._support)
      all_z = z[count:]
      if self._small is not None:
        all_z = torch.cat([all_z, self._encoder(self._small)[1]])
    return torch_losses.paws_loss(
      h[count:],
      all_z,
      h[:count],
      z[:count],
      self._label_rows,
      num_large=self._num_large,
      section=self._section,
    )
