"""A program as a TensorFlow SavedModel."""

from __future__ import annotations

import pathlib
from typing import Any

import jax

from paws_jax import errors
from paws_jax import packages
from paws_jax import tf_runtime
from paws_jax.export import program as program_lib

SIGNATURE = "serving_default"


def missing() -> str:
  """Why a SavedModel cannot be made here, and the remedy; "": it can.

  TensorFlow itself is loaded only by `write`: it takes seconds.
  """
  if not packages.is_installed("tensorflow"):
    return (
      "it needs TensorFlow, which is not installed: pip install "
      "'tensorflow-cpu>=2.21'"
    )
  if not packages.is_installed("jax.experimental.jax2tf"):
    return (
      f"jax {jax.__version__} has no jax.experimental.jax2tf any more: install "
      "jax 0.10, or export stablehlo instead"
    )
  return ""


def check_versions() -> None:
  """Has TensorFlow run a small program of JAX, to see whether it can.

  Raises:
    MissingPackageError: it cannot, since JAX is much newer.
  """
  tf = tf_runtime.load()
  from jax.experimental import jax2tf

  converted = jax2tf.convert(
    lambda x: x + 1,
    polymorphic_shapes=["b"],
    with_gradient=False,
    native_serialization_platforms=program_lib.PLATFORMS,
  )
  vector = tf.TensorSpec([None], tf.float32)
  run = tf.function(converted, autograph=False, input_signature=[vector])
  try:
    run(tf.zeros([1]))
  except tf.errors.InvalidArgumentError as error:
    raise errors.MissingPackageError(
      f"TensorFlow {tf.__version__} cannot read programs of jax "
      f"{jax.__version__}, which is newer: pip install 'jax<0.11' for "
      "--targets=savedmodel, or export stablehlo instead"
    ) from error


def write(
  program: program_lib.Program, directory: pathlib.Path
) -> dict[str, Any]:
  """Writes the program with its weights as variables.

  Variables lie in files of their own; constants would have to fit into the 2 GB
  of a protocol buffer.

  Args:
    program: what to write.
    directory: an empty one.

  Returns:
    Entries of model.json about it.

  Raises:
    MissingPackageError: this TensorFlow cannot read programs of this JAX.
    OSError, tensorflow.errors.OpError: when it cannot be written.
  """
  tf = tf_runtime.load()
  from jax.experimental import jax2tf

  check_versions()
  converted = jax2tf.convert(
    program.apply,
    polymorphic_shapes=[None, "b, ..."],
    # The gradient is a second copy of the program, and nobody trains this.
    with_gradient=False,
    native_serialization_platforms=program_lib.PLATFORMS,
  )
  module = tf.Module()
  module.weights = {
    name: tf.Variable(array, trainable=False)
    for name, array in program.weights.items()
  }
  images = tf.TensorSpec([None, *program.image_shape], tf.uint8, name="images")
  module.predict = tf.function(
    lambda images: converted(module.weights, images),
    autograph=False,
    input_signature=[images],
  )
  # The function is traced when it is saved.
  with program_lib.without_source_paths():
    tf.saved_model.save(
      module, str(directory), signatures={SIGNATURE: module.predict}
    )
  return {
    **program.interface,
    "files": {
      "format": "tensorflow.saved_model",
      "signature": SIGNATURE,
      "platforms": list(program_lib.PLATFORMS),
      "tensorflow": tf.__version__,
    },
  }
