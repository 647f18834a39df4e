"""A trained encoder with the labelled images that vote: classes for any image.

Examples:
  >>> classifier = paws_jax.Classifier.load("runs/quickstart/classifier")
  >>> predictions = classifier.predict(["a.jpg", "b.png"])
  >>> predictions.predicted_classes
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import os
from collections.abc import Callable
from collections.abc import Iterator
from collections.abc import Mapping
from collections.abc import Sequence
from typing import Any

import numpy as np

from paws_jax import errors
from paws_jax import text
from paws_jax.classifier import files
from paws_jax.classifier import image_list
from paws_jax.classifier import on_device
from paws_jax.classifier import predictions as predictions_lib
from paws_jax.classifier import preprocessing as preprocessing_lib
from paws_jax.classifier import summary
from paws_jax.classifier import support_bank as support_bank_lib
from paws_jax.classifier import vote
from paws_jax.data.sources import listed_files
from paws_jax.runs import workdir as workdir_lib


@dataclasses.dataclass(frozen=True, eq=False)
class Classifier:
  """Classifies images by a vote of labelled ones; immutable.

  PAWS-NN of the paper (section 5, 2021), or the head of a fine-tuned encoder.

  Attributes:
    class_names: K of them, in the order of the labels.
    temperature: τ of the vote.
    support_bank: the N supports: embeddings [N, D], labels [N], names,
      thumbnails.
    model: section `model` of the run's recipe.
    variables: {"params", "batch_stats"} of the encoder, float32 on the host.
    preprocessing: what happens to an image before the encoder.
    head: None; or kernel [d, K] and bias [K], which decide instead of the vote.
      Embeddings are then features after one layer of the projection head.
    in_domain_temperature: of `losses.in_domain_probability`, which predictions
      then have; None: the encoder was not trained to tell, or a head decides.
    batch_size: most images that are embedded at once.
    origin: where it comes from: dataset, step, split_hash.
  """

  class_names: tuple[str, ...]
  temperature: float
  support_bank: support_bank_lib.SupportBank
  model: Mapping[str, Any]
  variables: Mapping[str, Any]
  preprocessing: preprocessing_lib.Preprocessing
  head: predictions_lib.Head | None = None
  in_domain_temperature: float | None = None
  batch_size: int = 256
  origin: Mapping[str, Any] = dataclasses.field(default_factory=dict)

  @classmethod
  def load(cls, directory: str | os.PathLike[str]) -> Classifier:
    """Reads a directory that `save` has written.

    Raises:
      ValueError: when there is none, when a file is damaged, or when the
        weights are not those of the model.
    """
    return cls(**files.read(directory))

  def save(self, directory: str | os.PathLike[str]) -> None:
    """Writes a directory; one that holds a classifier is replaced.

    Raises:
      ValueError: when it holds something else, or is that of a run.
      OSError: when it cannot be written.
    """
    workdir_lib.check_not_own(directory, str(directory))
    files.write(directory, files.pack(vars(self)))

  def __repr__(self) -> str:
    """Five lines for a reader."""
    return summary.summarize(self)

  def __getstate__(self) -> dict[str, Any]:
    """What is pickled: the attributes, without compiled programs."""
    return {f.name: getattr(self, f.name) for f in dataclasses.fields(self)}

  @functools.cached_property
  def digest(self) -> str:
    """Hex sha256 of weights, support bank and settings, not `batch_size`."""
    # What is predicted does not depend on it.
    same = dataclasses.replace(self, batch_size=1)
    settings = files.pack(vars(same))[files.SETTINGS]
    return hashlib.sha256(settings).hexdigest()

  @property
  def num_classes(self) -> int:
    """K."""
    return len(self.class_names)

  @property
  def bank(self) -> support_bank_lib.SupportBank:
    """Former name of `support_bank`."""
    return self.support_bank

  def predict(
    self, images: Any, *, num_supports: int = 3
  ) -> predictions_lib.Predictions:
    """Classifies images.

    Args:
      images: uint8 [n, H, W, Ch], levels from 0 to 255, Ch 1 or 3; or such
        images of any sizes, [h, w] or [h, w, Ch], Pillow images or paths, in a
        list, an array, a column of a table, or from a generator. Grey is made
        of colors where the encoder wants it, and vice versa.
      num_supports: k, how many supports to name for each image.

    Raises:
      TypeError, ValueError: for what are no images, and for a support bank
        of one class.
      errors.BadImageError: naming an image that cannot be read; a ValueError.
      errors.NonFiniteError: naming images whose embeddings are not finite.
    """
    listed = image_list.ImageList(images, self.preprocessing)
    parts = self.stream(listed, num_supports=num_supports)
    return predictions_lib.concatenate(
      [predictions for _, predictions in parts]
    )

  def embed(self, images: Any, *, layer: str = "projection") -> np.ndarray:
    """Embeds images.

    Args:
      images: as of `predict`.
      layer: "projection", which the vote compares or a head reads; or
        "features", those of the trunk.

    Returns:
      float32 [n, D], not normalized.

    Raises:
      TypeError, ValueError, errors.NonFiniteError: as `predict`, but for the
        support bank.
    """
    listed = image_list.ImageList(images, self.preprocessing)
    parts = self.embedded(listed, layer=layer)
    return np.concatenate([rows for _, rows in parts])

  def add_class(self, name: str, images: Any) -> Classifier:
    """A classifier that knows one more class, without training.

    Args:
      name: of the new class.
      images: of it, as of `predict`; one will do, several are better.

    Raises:
      TypeError, ValueError, errors.NonFiniteError: as `embed`; for a name that
        is taken or blank; for a classifier with a head.
    """
    listed = image_list.ImageList(images, self.preprocessing)
    return self.add_from(name, listed)[0]

  def add_from(
    self, name: str, images: image_list.ImageList, *, skip_bad: bool = False
  ) -> tuple[Classifier, dict[str, str]]:
    """As `add_class`, and the images left out for what reason, by name.

    Raises:
      errors.BadImageError: also when all images are left out.
    """
    check_new_class(name, self.class_names, has_head=self.head is not None)
    shape = self.support_bank.thumbnails.shape[1:]
    rows, thumbnails, names, bad = [], [], [], {}
    for batch, embeddings in self.embedded(images, skip_bad=skip_bad):
      rows.append(embeddings)
      thumbnails.append(support_bank_lib.thumbnails(batch.pixels, shape))
      names += [images.name(place) for place in batch.places]
      bad.update({images.name(at): why for at, why in batch.bad.items()})
    if not names:
      first, reason = next(iter(bad.items()))
      raise errors.BadImageError(
        f"class {name!r}, {first}",
        f"{reason}, and none of its {len(images)} images can be read",
        remedy="Repair them, or give others",
      )
    added = support_bank_lib.SupportBank(
      embeddings=np.concatenate(rows),
      labels=np.full(len(names), self.num_classes, np.int32),
      names=tuple(names),
      thumbnails=np.concatenate(thumbnails),
    )
    extended = dataclasses.replace(
      self,
      class_names=(*self.class_names, name),
      support_bank=self.support_bank.extended(added),
    )
    return extended, bad

  def stream(
    self,
    images: image_list.ImageList,
    *,
    num_supports: int = 3,
    skip_bad: bool = False,
  ) -> Iterator[tuple[image_list.Batch, predictions_lib.Predictions]]:
    """Classifies any number of images, batch by batch.

    Images are decoded ahead, and the next batch is on the device while the
    caller does something with this one.

    Args:
      images: the images.
      num_supports: as of `predict`.
      skip_bad: whether images that cannot be read are left out; `Batch.bad`
        tells them.

    Raises:
      ValueError, errors.NonFiniteError: as `predict`.
    """
    self.check_support_bank()
    if not isinstance(num_supports, (int, np.integer)) or num_supports < 0:
      raise errors.InputError(
        f"num_supports is {num_supports!r}: give a whole number, 0 or more."
      )
    size = self._batch_rows(len(images))

    def decide(batch: image_list.Batch) -> predictions_lib.Predictions:
      features = self._device.embed(batch, images, size)
      made = self._vote(features, num_supports=num_supports, size=size)
      names = [images.name(place) for place in batch.places]
      predictions_lib.check(made, names)
      return made

    return on_device.one_ahead(decide, images.batches(size, skip_bad=skip_bad))

  def embedded(
    self,
    images: image_list.ImageList,
    *,
    layer: str = "projection",
    skip_bad: bool = False,
  ) -> Iterator[tuple[image_list.Batch, np.ndarray]]:
    """Embeds any number of images, batch by batch; see `embed`, `stream`."""
    size = self._batch_rows(len(images))

    def embed(batch: image_list.Batch) -> np.ndarray:
      return self._device.embed(batch, images, size, layer)

    return on_device.one_ahead(embed, images.batches(size, skip_bad=skip_bad))

  @functools.cached_property
  def _device(self) -> on_device.OnDevice:
    return on_device.OnDevice(
      model=self.model,
      variables=self.variables,
      preprocessing=self.preprocessing,
      has_head=self.head is not None,
    )

  @functools.cached_property
  def _vote(self) -> Callable[..., predictions_lib.Predictions]:
    return vote.make_voter(
      self.support_bank,
      num_classes=self.num_classes,
      temperature=self.temperature,
      head=self.head,
      in_domain_temperature=self.in_domain_temperature,
      class_names=tuple(self.class_names),
      mesh=self._device.mesh,
    )

  def _batch_rows(self, count: int) -> int:
    """A power of two for few images, so that few programs are compiled."""
    return min(self.batch_size, 1 << max(count - 1, 0).bit_length())

  def check_support_bank(self) -> None:
    """Raises ValueError when all supports are of one class."""
    if self.head is None:
      check_voters(self.support_bank.labels, self.class_names)


def check_voters(labels: np.ndarray, class_names: Sequence[str]) -> None:
  """Refuses supports that can vote for one class only.

  Args:
    labels: int [N], places in `class_names`.
    class_names: of the classifier.

  Raises:
    ValueError: saying how to add a class.
  """
  present = np.unique(labels)
  if len(present) < 2:
    names = text.first_few([class_names[k] for k in present])
    raise errors.InputError(
      f"the {len(labels)} supports are of {len(present)} class "
      f"({names or 'none'}): whatever the image, they would vote for it. Add "
      "another class (--task=predict --add_class=NAME=DIR, or "
      "Classifier.add_class)."
    )


def check_new_class(
  name: str, class_names: Sequence[str], *, has_head: bool
) -> None:
  """Refuses to add a class that a classifier cannot take.

  Args:
    name: of the class.
    class_names: those that are there.
    has_head: whether a fine-tuned head decides.

  Raises:
    ValueError: for a name that is taken, blank, or has spaces around it, and
      for a head.
  """
  if not isinstance(name, str) or not name.strip():
    raise errors.InputError(
      f"a class cannot be called {name!r}: give it a name."
    )
  if name != name.strip() or not text.is_writable(name):
    raise errors.InputError(
      f"a class cannot be called {name!r}: leave out spaces before and after "
      "the name, and characters that are half of a surrogate pair."
    )
  if listed_files.in_one_form(name) in map(
    listed_files.in_one_form, class_names
  ):
    raise errors.InputError(
      f"class {name!r} is there already: give the new one another name. "
      f"Classes are {text.first_few(class_names)}."
    )
  if has_head:
    raise errors.InputError(
      f"class {name!r} cannot be added to a fine-tuned head or a class head, "
      "which knows the classes it was trained on only: use a classifier whose "
      "labelled images vote."
    )
