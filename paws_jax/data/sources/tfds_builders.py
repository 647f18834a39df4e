"""Opens prepared TFDS data sets of classified images, without downloads."""

from __future__ import annotations

import difflib
import re
from typing import Any

from paws_jax import errors
from paws_jax import packages
from paws_jax import tf_runtime


def open_builder(directory: str, tfds_name: str) -> Any:
  """Opens a builder, from prepared files if possible.

  Args:
    directory: a prepared data set, which is read without its builder's code,
      or a TFDS data_dir ("" for TFDS' default).
    tfds_name: "name" or "name/config:version"; may be "" when `directory` is
      itself a prepared data set.

  Returns:
    A tfds.core.DatasetBuilder, whose data may not be prepared yet.

  Raises:
    ValueError: an unknown name or version, or another one in the directory.
  """
  # First, since TFDS imports TensorFlow without our settings.
  packages.require("data.source='tfds'", "tensorflow", "tensorflow_datasets")
  tf_runtime.load()
  import tensorflow_datasets as tfds
  from etils import epath

  if directory and (epath.Path(directory) / "dataset_info.json").exists():
    builder = tfds.builder_from_directory(directory)
    _check_name(builder, directory, tfds_name)
    return builder
  # "namespace:name" would download and run foreign code.
  if not tfds_name or re.match(r"[\w-]+:[a-zA-Z]", tfds_name):
    raise errors.InputError(
      f"data.tfds_name = {tfds_name!r} and data.dir = {directory!r} name no "
      'data set: give tfds_name as "name" or "name/config:version", or the '
      "directory that holds dataset_info.json"
    )
  try:
    return tfds.builder(tfds_name, data_dir=directory or None)
  # DatasetNotFoundError is a ValueError; an unknown version fails an assertion.
  except (ValueError, AssertionError) as error:
    names = tfds.list_builders(with_community_datasets=False)
    asked = re.split("[/:]", tfds_name)[0]
    if asked in names:
      # TFDS puts its own arguments before the reason.
      reason = str(error).partition('}": ')[2] or str(error)
      raise errors.InputError(
        f"data.tfds_name = {tfds_name!r} is unknown to TFDS, which has "
        f"{asked!r} in other configs or versions: choose one of them. Reason "
        f"given by TFDS: {reason.strip()}"
      ) from error
    near = difflib.get_close_matches(asked, names, n=5) or ["cifar10", "mnist"]
    raise errors.InputError(
      f"data.tfds_name = {tfds_name!r} is unknown to TFDS, and data.dir = "
      f"{directory!r} holds no prepared data set of that name: choose another "
      f"name. Similar ones of the {len(names)} in tfds.list_builders(): {near}"
    ) from error


def _check_name(builder: Any, directory: str, tfds_name: str) -> None:
  """Refuses a name with a part that the prepared data set does not have."""
  full_name = builder.info.full_name
  name, *rest = re.split("[/:]", tfds_name)
  # A version may be given as "3.*.*".
  wrong = [p for p in rest if "*" not in p and p not in full_name.split("/")]
  if wrong or name not in ("", builder.name):
    raise errors.InputError(
      f"data.tfds_name = {tfds_name!r}, but data.dir = {directory!r} holds "
      f"{full_name!r}: correct one of the two"
    )


def check_features(name: str, features: Any) -> None:
  """Refuses features other than those of image classification."""
  import tensorflow_datasets as tfds

  for key, kind in (
    ("image", tfds.features.Image),
    ("label", tfds.features.ClassLabel),
  ):
    if key not in features or not isinstance(features[key], kind):
      raise errors.InputError(
        f"{name} has the features {sorted(features)}, but needs {key!r} as "
        f"tfds.features.{kind.__name__}: choose an image classification set"
      )


def how_to_prepare(builder: Any) -> str:
  """Returns a message with the command that prepares a data set."""
  name = builder.info.full_name
  root = _root(builder)
  return (
    f"{name} is not prepared in data.dir = {root!r}, and training "
    "downloads nothing: run this once, on a machine with a network:\n"
    '  python -c "import tensorflow_datasets as tfds; '
    f"tfds.builder({name!r}, data_dir={root!r})"
    '.download_and_prepare()"'
  )


def how_to_convert(builder: Any) -> str:
  """Returns a message with the command that converts it to array_record."""
  return (
    "run this once (it needs pip install apache-beam):\n"
    f"  tfds convert_format --dataset_version_dir={builder.data_dir} "
    f"--out_dir={_root(builder)}-array_record/{builder.info.full_name} "
    "--out_file_format=array_record"
  )


def _root(builder: Any) -> str:
  """Returns the TFDS data_dir of a data set."""
  return str(builder.data_dir).removesuffix(f"/{builder.info.full_name}")
