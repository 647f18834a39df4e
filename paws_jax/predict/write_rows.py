"""Images in, rows out: batch by batch, for those that have no row yet."""

from __future__ import annotations

import os
import pathlib
from collections.abc import Callable
from collections.abc import Iterable
from collections.abc import Iterator
from collections.abc import Mapping

from paws_jax import errors
from paws_jax.classifier import image_list
from paws_jax.classifier import preprocessing as preprocessing_lib
from paws_jax.predict import find_images
from paws_jax.predict import rows_file
from paws_jax.runs import progress as progress_lib

# Gives each batch of some images with the rows of those that could be read.
Stream = Callable[
  [image_list.ImageList],
  Iterator[tuple[image_list.Batch, Iterable[list[str]]]],
]


def check_not_input(
  images: str, found: find_images.ImageFiles, target: pathlib.Path, what: str
) -> None:
  """Refuses to write in the place of the list of the images.

  Args:
    images: --images.
    found: what it means.
    target: where the rows are to be written.
    what: the rows, for the message: "predictions".

  Raises:
    InputError: both are one file.
  """
  if target.exists() and os.path.samefile(found.given, target):
    raise errors.InputError(
      f"--images={images} is {target}, where the {what} would be written: "
      f"name another file with --output=FILE{target.suffix}."
    )


def write(
  found: find_images.ImageFiles,
  file: rows_file.RowsFile,
  stream: Stream,
  preprocessing: preprocessing_lib.Preprocessing,
  *,
  noun: str,
) -> None:
  """Adds the rows of all images that have none; prints what a user must know.

  Args:
    found: the images.
    file: opened; closed by the caller.
    stream: makes the rows.
    preprocessing: of the images.
    noun: name of the rows: "predictions".

  Raises:
    errors.BadImageError: when no image at all can be read.
  """
  if file.notice:
    print(file.notice)
  names = [name for name in found.names if name not in file.done]
  if len(names) < len(found):
    print(f"{len(found) - len(names)} of {len(found)} images have a row")
  gone = len(file.done) - (len(found) - len(names))
  if gone:
    print(
      f"{file.path.name} keeps rows of images that are not there any more: "
      f"{gone}; to be rid of them, move it away"
    )
  if names:
    images = image_list.ImageList(
      [found.path(name) for name in names], preprocessing, names=names
    )
    _write(images, file, stream)
  if not file.done:
    path, reason = file.unreadable[0]
    listed = file.list_unreadable()
    raise errors.BadImageError(
      path,
      f"{reason}, and none of the {len(found)} images can be read",
      remedy=f"Repair them; all are listed in {listed}",
    )
  listed = file.finish()
  print(f"{noun:12} {file.path}")
  bad = len(file.unreadable)
  print(
    f"{len(found) - bad} of {len(found)} images are {file.outcome}"
    + (f"; {bad} cannot be read, see {listed}" if bad else "")
  )


def _write(
  images: image_list.ImageList, file: rows_file.RowsFile, stream: Stream
) -> None:
  progress = ImageProgress(
    total_steps=len(images), first_step=0, images_per_step=1
  )
  count = 0
  try:
    for batch, rows in stream(images):
      file.write(rows)
      file.add_unreadable(
        {images.name(place): reason for place, reason in batch.bad.items()}
      )
      count += len(batch.places) + len(batch.bad)
      progress.show(count, {"unreadable": len(file.unreadable)})
  finally:
    progress.end()


class ImageProgress(progress_lib.Progress):
  """The progress line of training, about images."""

  def _line(self, step: int, metrics: Mapping[str, float]) -> str:
    bad = int(metrics["unreadable"])
    # What training has to say there comes after a step's number.
    line = super()._line(step, {}).replace("step ", "image ", 1)
    return line + (f"  {bad} unreadable" if bad else "")
