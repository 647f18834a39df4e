"""Section `data` of a recipe."""

from __future__ import annotations

import dataclasses
import os

from paws_jax import errors
from paws_jax.config import fields

# Which pipelines serve a source.
_PIPELINES = {
  "digits": ("memory",),
  "idx": ("memory",),
  "tfds": ("memory", "host"),
  "folder": ("host",),
  "arrays": ("memory",),
}
_PATHS = ("dir", "manifest", "labels_file", "unlabelled_dir", "test_dir")


@dataclasses.dataclass(frozen=True)
class Data(fields.Section):
  """Which images there are, and which of them are labelled."""

  # "digits" (scikit-learn), "idx" (MNIST family, from `dir`), "tfds", "folder"
  # (your own images), or "arrays" (those that a program gives PawsClassifier).
  source: str = fields.field("digits", fields.one_of(*_PIPELINES))
  # "memory": all images lie on the devices (digits, idx, small tfds); "host":
  # they are read and decoded during training (folder, tfds).
  pipeline: str = fields.field("memory", fields.one_of("memory", "host"))
  # Directory of the idx files or of the images, or TFDS data_dir ("" is TFDS'
  # own default).
  dir: str = fields.field("")
  # Of source "folder": CSV file that lists images (relative to `dir`), labels
  # and splits. "": `dir` holds a folder of labelled images for every class ...
  manifest: str = fields.field("")
  # ... and this one unlabelled images, at any depth; "": none.
  unlabelled_dir: str = fields.field("")
  # A folder of test images for every class, also beside a manifest that lists
  # no test images; "": none.
  test_dir: str = fields.field("")
  # Class names that programs write where a label is missing, and that are
  # refused elsewhere, with commas between them: "NA,none".
  real_labels: str = fields.field("")
  # TFDS builder, "name" or "name/config:version"; read when source is "tfds".
  tfds_name: str = fields.field("")
  # Images are resized once to squares of this side in pixels, bilinearly (0:
  # kept as they are). Crops have whole-pixel boxes: enlarging tiny images
  # gives them more places to be.
  image_size: int = fields.field(0, fields.SIDE_OR_0)
  # Which training images are labelled: so many of each class, drawn by
  # `split_seed` (this and `labels_fraction` 0: all that have a label) ...
  labels_per_class: int = fields.field(4, fields.NOT_NEGATIVE)
  # ... or this fraction of each class ...
  labels_fraction: float = fields.field(0.0, fields.PROBABILITY)
  # Seed of that draw, and of the hold-out of fine-tuning.
  split_seed: int = fields.field(0, fields.SEED)
  # ... or those whose rows or file names stand in this file, one a line; then
  # labels_per_class is 0.
  labels_file: str = fields.field("")
  # Probability that a labelled image gets the label of another class, for runs
  # about noisy labels ...
  label_noise: float = fields.field(0.0, fields.FRACTION)
  # ... and the seed of that draw, which is the same in every run.
  label_noise_seed: int = fields.field(0, fields.SEED)
  # Labelled images are unlabelled images as well, as in the paper.
  include_labelled: bool = fields.field(True)
  # Of pipeline "host": side in pixels of the square on which an image is
  # shipped to the devices; larger ones are reduced first.
  canvas_size: int = fields.field(512, fields.SIDE)
  # Where these squares wait: in the memory of the "device", or of its "host",
  # from which each chunk of `train.chunks` is sent whenever it is encoded (with
  # views.crop_on "device", steps_per_call 1, canvas_size a multiple of 32).
  canvas_memory: str = fields.field("device", fields.one_of("device", "host"))
  # An image that cannot be read: "error" stops the run, "skip" puts another one
  # in its place and says so.
  on_bad_image: str = fields.field("error", fields.one_of("error", "skip"))
  # Images of more pixels are not decoded: a small file can hold a huge one.
  max_pixels: int = fields.field(
    178_956_970,
    ("in [1, 2147483647]", lambda x: 1 <= x < 2**31),
  )
  # Value of a pixel that becomes 255, in files that can hold it: 4095 for 12
  # bits in files of 16. 0: the largest one that a file can hold.
  white_level: int = fields.field(0, fields.between(0, 65535))
  # What decodes images of pipeline "host": "tensorflow" or "pillow", with the
  # same result; "auto": TensorFlow on more than 8 cores if it is installed.
  decoder: str = fields.field(
    "auto", fields.one_of("auto", "tensorflow", "pillow")
  )
  # Memory of each process for decoded labelled images, in units of 2^20 bytes.
  support_cache_mb: int = fields.field(1024, fields.NOT_NEGATIVE)

  def with_home(self) -> Data:
    """Returns the section with "~" at the start of paths replaced."""
    paths = {name: os.path.expanduser(getattr(self, name)) for name in _PATHS}
    return dataclasses.replace(self, **paths)

  def check(self) -> None:
    """Refuses fields that contradict each other."""
    if self.pipeline not in _PIPELINES[self.source]:
      allowed = " or ".join(map(repr, _PIPELINES[self.source]))
      raise errors.InputError(
        f"data.pipeline is {self.pipeline!r} but data.source is "
        f"{self.source!r}: it must be {allowed} for this source."
      )
    self._check_labels()
    if self.tfds_name and self.source != "tfds":
      raise errors.InputError(
        f"data.tfds_name is {self.tfds_name!r} but data.source is "
        f"{self.source!r}: only 'tfds' reads it; set it to ''."
      )
    if self.pipeline == "host" and self.image_size:
      raise errors.InputError(
        f"data.image_size is {self.image_size} but data.pipeline is 'host': "
        "leave it 0; views.large.size and data.canvas_size say what images "
        "become."
      )
    if self.white_level and self.pipeline != "host":
      raise errors.InputError(
        f"data.white_level is {self.white_level} but data.pipeline is "
        f"{self.pipeline!r}: only images that are decoded during training "
        "('host') have a white level; leave it 0."
      )
    self._check_folders()

  def _check_labels(self) -> None:
    """Refuses two choices of labelled images at once."""
    if self.labels_per_class and self.labels_fraction:
      raise errors.InputError(
        f"data.labels_per_class is {self.labels_per_class} and "
        f"data.labels_fraction is {self.labels_fraction:g}: set one of them to "
        "0."
      )
    for name in ("labels_per_class", "labels_fraction"):
      value = getattr(self, name)
      if self.labels_file and value:
        raise errors.InputError(
          f"data.labels_file is {self.labels_file!r} but data.{name} is "
          f"{value:g}: the file tells all labelled images; set {name} to 0, or "
          "labels_file to ''."
        )

  def _check_folders(self) -> None:
    """Refuses places of images that another source or a manifest replaces."""
    for name in ("manifest", "unlabelled_dir", "test_dir", "real_labels"):
      value = getattr(self, name)
      if value and self.source != "folder":
        raise errors.InputError(
          f"data.{name} is {value!r} but data.source is {self.source!r}: only "
          "'folder' reads it."
        )
    if self.unlabelled_dir and self.manifest:
      raise errors.InputError(
        f"data.unlabelled_dir is {self.unlabelled_dir!r} but data.manifest is "
        "given: the manifest lists all training images, those without a label "
        "with an empty one; leave the other one empty."
      )
