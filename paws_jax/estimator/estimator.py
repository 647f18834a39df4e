"""PAWS as an estimator of scikit-learn.

Examples:
  >>> model = paws_jax.PawsClassifier(train__minutes=2).fit(images, labels)
  >>> model.predict(more_images)
"""

from __future__ import annotations

import contextlib
import io
import os
from typing import Any

import numpy as np
import sklearn.base
import sklearn.exceptions

from paws_jax import errors
from paws_jax.classifier import classifier as classifier_lib
from paws_jax.estimator import fitted
from paws_jax.estimator import images as images_lib
from paws_jax.estimator import labels as labels_lib
from paws_jax.estimator import messages
from paws_jax.estimator import nearest
from paws_jax.estimator import parameters
from paws_jax.estimator import scoring
from paws_jax.estimator import training


class NotFittedError(errors.UserError, sklearn.exceptions.NotFittedError):
  """A method that needs `fit` or `load` first."""


class PawsClassifier(
  sklearn.base.TransformerMixin,
  sklearn.base.ClassifierMixin,
  parameters.Parameters,
):
  """Trains an encoder on images of which few are labelled, and classifies.

  docs/estimator.md explains each part; `Parameters.__init__` the parameters.

  Attributes:
    classes_: the user's values of the labels [C], sorted.
    classifier_: the `paws_jax.Classifier` that predicts.
    result_: the result of the run: accuracies, times, settings; after `fit`.
    support_: int [N], the rows of X that are labelled images, in the order of
      `classifier_.support_bank`; not there where X is a folder or a CSV file.
  """

  def __sklearn_tags__(self) -> Any:
    """Says that X holds images, and no table of features."""
    tags = super().__sklearn_tags__()
    tags.input_tags.two_d_array = False
    tags.input_tags.three_d_array = True
    return tags

  def __sklearn_is_fitted__(self) -> bool:
    """Whether there is a classifier."""
    return hasattr(self, "classifier_")

  def fit(self, X: Any, y: Any = None) -> PawsClassifier:
    """Trains on images, with labels for some of them.

    Args:
      X: uint8 array [n, H, W, 1 or 3] or [n, H, W]; a list of such images or
        of Pillow images, all of one size, or of paths; a table with a column
        path, and a column label unless y is given; or a folder with a folder
        of images for each class, or a CSV file (docs/own_data.md).
      y: labels [n]: texts or integers; -1, None or NaN without one. None for a
        folder, a CSV file, or a table with a column label.

    Raises:
      errors.UserError: X, y, the recipe or workdir cannot be used.
      KeyboardInterrupt: training was interrupted; says how to continue it.
    """
    fields = self._fields()
    data = self._data(X, y, fields)
    quiet: contextlib.AbstractContextManager[Any] = contextlib.nullcontext()
    if not self.verbose:
      quiet = contextlib.redirect_stdout(io.StringIO())
    with (
      messages.in_python(self.workdir),
      training.directory(self.workdir) as workdir,
      quiet,
    ):
      recipe = training.recipe(self.recipe, fields, self._seed(), data)
      made, row = training.run(recipe, data, workdir)
      made = fitted.describe(made, data, self._stored())
      if self.workdir is not None:
        fitted.save(made, workdir)
    self._use(made)
    if data.labels is not None:
      # Of the type that they have in y.
      self.classes_ = data.labels.classes
    self.result_ = row
    return self

  def _data(self, X: Any, y: Any, fields: dict[str, Any]) -> training.Data:
    images = images_lib.read(X, fields.get("data.dir", ""))
    if isinstance(images, images_lib.Place):
      if y is not None:
        raise errors.InputError(
          f"X is {images.path!r}, whose images have labels of their own: leave "
          "y out, or give a list of paths."
        )
      return training.Data(images, None)
    if isinstance(images, images_lib.Files):
      count, own = len(images.paths), images.labels
    else:
      count, own = len(images.images), None
    labels = labels_lib.encode(
      own if y is None else y,
      num_images=count,
      real_labels=fields.get("data.real_labels", ""),
    )
    return training.Data(images, labels)

  def _use(self, made: classifier_lib.Classifier) -> None:
    self.classifier_ = made
    self.classes_, self._columns = fitted.columns(made)
    self.__dict__.pop("support_", None)
    rows = fitted.rows(made)
    if rows is not None:
      self.support_ = rows

  def save(self, path: str | os.PathLike[str]) -> None:
    """Writes the classifier, as `paws_jax.Classifier.save`.

    Raises:
      NotFittedError: nothing has been fitted.
      errors.ClassifierError: the directory holds something else.
    """
    self._fitted().save(path)

  @classmethod
  def load(cls, path: str | os.PathLike[str]) -> PawsClassifier:
    """Reads what `save`, or a training run, has written.

    Args:
      path: directory of a classifier, or of a run.

    Raises:
      errors.ClassifierError: there is none, or it is damaged.
    """
    made = fitted.load(path)
    model = cls(**parameters.restored(fitted.stored_in(made)))
    model._use(made)
    return model

  def predict(self, X: Any) -> np.ndarray:
    """Classifies images.

    Args:
      X: as of `fit`; images of a list may differ in size. A folder stands for
        all images below it, sorted by path.

    Returns:
      The class of each, a value of `classes_`.

    Raises:
      NotFittedError: nothing has been fitted.
      errors.UserError: as of `Classifier.predict`.
    """
    probabilities = self.predict_proba(X)
    return self.classes_[probabilities.argmax(axis=1)]

  def predict_proba(self, X: Any) -> np.ndarray:
    """Returns float32 [n, C], probabilities in the order of `classes_`."""
    classifier = self._fitted()
    made = classifier.predict(self._images(X), num_supports=0)
    return made.probabilities[:, self._columns]

  def transform(self, X: Any) -> np.ndarray:
    """Returns embeddings float32 [n, D] of images, not normalized."""
    return self._fitted().embed(self._images(X))

  def embed(self, X: Any) -> np.ndarray:
    """The same as `transform`."""
    return self.transform(X)

  def kneighbors(
    self, X: Any, n_neighbors: int = 3, return_distance: bool = True
  ) -> Any:
    """Finds the labelled images most similar to images, which vote most.

    Args:
      X: as of `predict`.
      n_neighbors: k, at most the number of labelled images.
      return_distance: whether to return distances.

    Returns:
      Distances float32 [n, k], 1 - the cosine similarity, increasing; and
      indices int [n, k] into `classifier_.support_bank`: `support_[indices]`
      are rows of X of `fit`. Or the indices alone.
    """
    supports = self._fitted().support_bank.embeddings
    nearest.check_count(n_neighbors, len(supports))
    found = nearest.find(self.transform(X), supports, n_neighbors)
    return found if return_distance else found[1]

  def score(self, X: Any, y: Any = None, sample_weight: Any = None) -> float:
    """Returns the accuracy on the images that have a label.

    Args:
      X: as of `fit`.
      y: as of `fit`; None for a folder of classes, or a table with labels.
      sample_weight: weights [n] of the images.

    Raises:
      errors.InputError: no image has a label, or labels are of another kind
        than those of `fit`.
    """
    self._fitted()
    if y is None:
      X, y = scoring.with_labels(X, self._fields())
    return scoring.accuracy(
      self.predict(X), y, classes=self.classes_, weights=sample_weight
    )

  def _images(self, X: Any) -> Any:
    return images_lib.to_classify(X, self._fields().get("data.dir", ""))

  def _fitted(self) -> classifier_lib.Classifier:
    if not hasattr(self, "classifier_"):
      raise NotFittedError(
        "this PawsClassifier is not fitted yet: call fit(X, y) first, or "
        "PawsClassifier.load(path)."
      )
    return self.classifier_
