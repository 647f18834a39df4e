"""The one place that imports TensorFlow, which reads and decodes images."""

from __future__ import annotations

import os
from typing import Any


def load() -> Any:
  """TensorFlow, kept off the GPUs, whose memory it would take whole.

  Its kernels of oneDNN, which decoding does not use, are left off where nobody
  has asked for them: they announce themselves on every start.

  Returns:
    The module.

  Raises:
    RuntimeError: something else in this process has made it take the GPUs
      already.
  """
  os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "0")
  import tensorflow as tf

  if tf.config.get_visible_devices("GPU"):
    tf.config.set_visible_devices([], "GPU")
  return tf
