"""The import of TensorFlow, without GPUs."""

from __future__ import annotations

import os
from typing import Any

from paws_jax import packages


def load() -> Any:
  """Imports TensorFlow and hides the GPUs, whose entire memory it would take.

  Its oneDNN kernels, which decoding does not use, are disabled unless the
  environment sets them: they print a line at every start.

  Returns:
    The module `tensorflow`.

  Raises:
    MissingPackageError: TensorFlow is not installed.
    RuntimeError: TensorFlow already uses the GPUs in this process.
  """
  packages.require("this", "tensorflow")
  os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "0")
  import tensorflow as tf

  if tf.config.get_visible_devices("GPU"):
    tf.config.set_visible_devices([], "GPU")
  return tf
