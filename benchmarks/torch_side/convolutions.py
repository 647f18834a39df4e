"""Single convolutions in PyTorch, for benchmarks/step/convolutions.py.

Channels last, as fast as PyTorch has them. It knows nothing of JAX: it takes
NumPy arrays and what `step_convolutions.Convolution` tells.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch.nn import functional

# From images NHWC, and from kernels HWIO, to channels first.
_IMAGES, _KERNEL = (0, 3, 1, 2), (3, 2, 0, 1)


def make(
  convolution: Any, left: np.ndarray, right: np.ndarray, *, on_gpu: bool
) -> Callable[[], torch.Tensor]:
  """A convolution or one of its gradients, on operands that stay.

  Args:
    convolution: a `step_convolutions.Convolution`.
    left: float32 images [n, H, W, Ch]; of "gradient by input" the cotangent
      [n, H', W', D].
    right: float32 kernel [h, w, Ch, D]; of "gradient by kernel" the cotangent.
    on_gpu: whether to use the GPU.

  Returns:
    A function that computes the result: its axes are channels first, its memory
    channels last.

  Raises:
    ValueError: padding that PyTorch lacks, or a GPU that it does not see.
  """
  if any(low != high for low, high in convolution.padding):
    raise ValueError(
      "PyTorch pads both sides alike, but a convolution of the step has "
      f"padding {convolution.padding}: use --peer=none."
    )
  if on_gpu and not torch.cuda.is_available():
    raise ValueError(
      "JAX runs on a GPU but this PyTorch has none: install a CUDA build of "
      "PyTorch, or use --peer=none."
    )
  torch.backends.cudnn.benchmark = True
  options = {
    "device": "cuda" if on_gpu else "cpu",
    "dtype": getattr(torch, convolution.dtype),
  }

  def place(array: np.ndarray, order: tuple[int, ...]) -> torch.Tensor:
    tensor = torch.from_numpy(array).permute(order).to(**options)
    return tensor.contiguous(memory_format=torch.channels_last)

  pads = [low for low, _ in convolution.padding]
  strides = list(convolution.strides)
  if convolution.kind == "forward":
    images, kernel = place(left, _IMAGES), place(right, _KERNEL)
    return lambda: functional.conv2d(images, kernel, None, strides, pads)
  # What a gradient does not depend on counts by its shape only.
  if convolution.kind == "gradient by input":
    cotangent, kernel = place(left, _IMAGES), place(right, _KERNEL)
    images = place(np.zeros(convolution.images, np.float32), _IMAGES)
  else:
    images, cotangent = place(left, _IMAGES), place(right, _IMAGES)
    kernel = place(np.zeros(convolution.kernel, np.float32), _KERNEL)
  by_input = convolution.kind == "gradient by input"
  wanted = [by_input, not by_input, False]

  def backward() -> torch.Tensor:
    gradients = torch.ops.aten.convolution_backward(
      cotangent,
      images,
      kernel,
      None,
      strides,
      pads,
      [1, 1],
      False,
      [0, 0],
      1,
      wanted,
    )
    return gradients[0] if by_input else gradients[1]

  return backward


def wait(on_gpu: bool) -> None:
  """Waits for what has been computed."""
  if on_gpu:
    torch.cuda.synchronize()
