"""Labels of a fit: the user's values, and the classes they stand for."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np

from paws_jax import errors
from paws_jax import text
from paws_jax.data.labels import label_names
from paws_jax.data.sources import listed_files

UNLABELLED = -1
_HOW = (
  "an image without a label has -1, None or NaN (scikit-learn's rule for "
  "semi-supervised learning)"
)


@dataclasses.dataclass(frozen=True, eq=False)
class Labels:
  """Labels of n images.

  Attributes:
    classes: the user's values [C], sorted.
    codes: int32 [n], places in `classes`; -1 without a label.
    names: C texts, for files and messages.
  """

  classes: np.ndarray
  codes: np.ndarray
  names: tuple[str, ...]


def encode(
  y: Any, *, num_images: int, real_labels: str = "", least: int = 2
) -> Labels:
  """Finds the classes of labels.

  Args:
    y: texts, or integers, floats without a fraction or booleans, in any
      sequence; -1, None, NaN, NA and "" for an image without a label.
    num_images: of X.
    real_labels: field `data.real_labels`: texts that look like missing labels
      and are names of classes.
    least: classes that there must be.

  Raises:
    InputError: says what is wrong with which label.
  """
  listed = _listed(y, num_images)
  labelled = np.array([not is_missing(value) for value in listed], bool)
  places = np.flatnonzero(labelled)
  values = [listed[i] for i in places]
  _check_values(values, places, real_labels)
  if not values and least:
    raise errors.InputError(
      f"y gives none of the {num_images} images a label: label some images of "
      f"each class; {_HOW}."
    )
  plain = isinstance(y, np.ndarray) and y.dtype != object and y.ndim == 1
  known = y[places] if plain else np.array(values)
  classes, found = np.unique(known, return_inverse=True)
  if len(classes) < least:
    raise errors.InputError(
      f"y names one class only ({text.printable(classes[0])}): whatever the "
      f"image, it would be predicted. Label images of two or more; {_HOW}."
    )
  codes = np.full(len(listed), UNLABELLED, np.int32)
  codes[places] = found
  return Labels(classes, codes, _names(classes))


def is_missing(value: Any) -> bool:
  """Whether a value says that an image has no label."""
  if isinstance(value, str):
    return not value.strip()
  # NaN and NaT are not equal to themselves, and pandas.NA is to nothing.
  if value is None or type(value).__name__ in ("NAType", "NaTType"):
    return True
  if not _is_number(value) or isinstance(value, (bool, np.bool_)):
    return False
  return bool(value != value or value == UNLABELLED)


def _listed(y: Any, num_images: int) -> list[Any]:
  """Returns one value for each image."""
  if y is None:
    raise errors.InputError(
      "y is missing: give one label for each image; "
      f"{_HOW}. Only a folder or a table of images has labels of its own."
    )
  if isinstance(y, (str, bytes)) or not hasattr(y, "__len__"):
    raise errors.InputError(
      f"y is a {type(y).__name__}: give a list or an array with one label for "
      "each image."
    )
  shape = np.shape(y) if hasattr(y, "shape") else (len(y),)
  if len(shape) != 1:
    raise errors.InputError(
      f"y has the shape {list(shape)}: give one label for each image, [n]. Of "
      "rows of zeros and ones, y.argmax(axis=1)."
    )
  if shape[0] != num_images:
    raise errors.InputError(
      f"X holds {text.count(num_images, 'image')} but y "
      f"{text.count(shape[0], 'label')}: give each image one; {_HOW}."
    )
  # An index of a table does not count.
  return list(y.tolist() if isinstance(y, np.ndarray) else y)


def _is_number(value: Any) -> bool:
  return isinstance(value, (bool, np.bool_, int, float, np.number))


def _check_values(
  values: list[Any], places: np.ndarray, real_labels: str
) -> None:
  """Refuses labels that are no classes."""
  for value, place in zip(values, places, strict=True):
    at = f"y[{place}] is {text.printable(repr(value))}"
    if isinstance(value, str):
      _check_text(value, at)
    elif not _is_number(value) or isinstance(
      value, (complex, np.complexfloating)
    ):
      raise errors.InputError(
        f"{at}, a {type(value).__name__}: a label is a text or an integer."
      )
    elif value != np.floor(value) or np.isinf(value):
      raise errors.InputError(
        f"{at}: Unknown label type: continuous. Labels name classes. "
        f"{label_names.CLASSES_OF_NUMBERS}."
      )
  texts = [value for value in values if isinstance(value, str)]
  if texts and len(texts) < len(values):
    other = next(value for value in values if not isinstance(value, str))
    raise errors.InputError(
      f"y mixes texts ({text.printable(repr(texts[0]))}) and numbers "
      f"({other}): name all classes in one way; {_HOW}."
    )
  found = label_names.missing(texts, real_labels=real_labels)
  if found:
    raise errors.InputError(
      f"y has the label {text.first_few(map(repr, found))}, which programs "
      f"write where a label is missing: {_HOW}. NumPy makes texts of them in "
      "arrays of texts: use a list, or dtype=object. If it is the name of a "
      f"class, say so: data__real_labels={','.join(found)!r}."
    )


def _check_text(value: str, at: str) -> None:
  """Refuses texts that are no names."""
  if value.strip() == str(UNLABELLED):
    raise errors.InputError(
      f"{at}, as a text: for an image without a label give the number -1 or "
      "None. NumPy makes texts of them in arrays of texts: use a list, or "
      "dtype=object."
    )
  if value != value.strip() or not text.is_writable(value):
    raise errors.InputError(
      f"{at}: leave out spaces before and after a name, and characters that "
      "are half of a surrogate pair."
    )


def _names(classes: np.ndarray) -> tuple[str, ...]:
  """Texts of classes: "cat", "3", "True"."""
  if classes.dtype.kind == "f":
    classes = classes.astype(np.int64)
  names = tuple(str(value) for value in classes.tolist())
  forms: dict[str, str] = {}
  for name in names:
    other = forms.setdefault(listed_files.in_one_form(name), name)
    if other is not name:
      raise errors.InputError(
        f"the classes {other!r} and {name!r} look the same, and differ in "
        "their Unicode form: unicodedata.normalize('NFC', name) makes them one."
      )
  return names


def table_names(names: tuple[str, ...]) -> tuple[str, ...]:
  """Texts of classes in a table, where integers count from 0 without gaps.

  Others get zeros in front, so that they are names: "03", "07".

  Raises:
    InputError: two classes are the same number.
  """
  numbers = all(name.removeprefix("-").isdecimal() for name in names)
  if not numbers or names == tuple(map(str, range(len(names)))):
    return names
  forms: dict[int, str] = {}
  for name in names:
    other = forms.setdefault(int(name), name)
    if other != name:
      raise errors.InputError(
        f"the classes {other!r} and {name!r} are the same number: give one of "
        "them another name."
      )
  width = max(map(len, names)) + 1
  return tuple(f"{int(name):0{width}d}" for name in names)
