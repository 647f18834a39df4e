"""Labels that are no class names: missing ones, several in one, numbers."""

from __future__ import annotations

import collections
import re
import shlex
from collections.abc import Iterable
from collections.abc import Sequence
from typing import Any

from paws_jax import errors
from paws_jax import text

# What programs write where a value is missing, in lower case.
_MISSING = frozenset(
  (
    *("nan", "-nan", "+nan", "nat", "none", "null", "nil", "undefined"),
    *("na", "n/a", "n.a.", "n.a", "<na>", "<nan>", "<none>", "<null>"),
    *("#n/a", "#na", "#n/a n/a", "#null!", "#value!", "#ref!", "#div/0!"),
    *("#name?", "#num!", "1.#ind", "-1.#ind", "1.#qnan", "-1.#qnan", "\\n"),
    *("#nv", "#n/d", "#n/b", "n\\a", "pd.na", "np.nan", "numpy.nan", "pd.nat"),
    *("float('nan')", "na_character_", "na_integer_", "na_real_", "<nat>"),
    *("(nan)", "(na)", "(n/a)", "(none)", "(null)", "[null]", "[none]"),
    *("<missing>", "#missing", "nan.0"),
  )
)
# Errors of spreadsheets in any language: "#WERT!", "Err:502".
_ERROR = re.compile(r"#\S+[!?]|Err:\d{3}")
# Words for it that may name a class, too.
_DOUBTFUL = frozenset(
  (
    *("missing", "unknown", "not labelled", "not labeled"),
    *("no label", "nolabel", "no_label", "tbd", "todo", "blank", "empty"),
    *("(blank)", "(empty)", "(missing)", "(unknown)", "not available"),
    *("not applicable", "not annotated", "unannotated", "not assigned"),
    *("unassigned", "untagged", "no_class"),
    *("n/d", "n.d.", "s/d", "k.a.", "inf", "-inf", "+inf", "infinity"),
    *("-infinity", "-9999", "-999", "-99"),
  )
)
# Of names with these characters no other sign is needed ...
_CERTAIN = ("|", ";", "\n", "\t", "\uff5c", "\uff1b")
# ... with these each part must be found in another name, too ...
_LIKELY = (
  *("::", "//", "--", "__", "  ", " and ", ",", "/", "+", "&", ":", "\\"),
  *("#", ">", "\uff0c", "\u3001", "\u00b7", "\u2022"),
)
# ... and with these each part must be a class of its own.
_POSSIBLE = (" ", "_", "-")
_NUMBER = re.compile(r"[-+]?(\d+([.,]\d*)?|[.,]\d+)(e[-+]?\d+)?", re.IGNORECASE)
# Fewer classes of numbers than these are digits, grades or stars.
_FEW_NUMBERS = 10
CLASSES_OF_NUMBERS = (
  "This software sorts images into classes: each number is a class of its own, "
  "whose order and distance to others count for nothing. To predict a "
  "measurement, give each range of it a name, as in '20 to 30', and use the "
  "names as labels"
)


def is_missing(label: str) -> bool:
  """Whether programs write this label where one is missing."""
  plain = label.strip()
  if plain.casefold() in _MISSING:
    return True
  # "#wow!" may be a name.
  is_error = plain.isupper() or plain.startswith("Err:")
  return is_error and _ERROR.fullmatch(plain) is not None


def missing(labels: Iterable[str], *, real_labels: str) -> list[str]:
  """Returns the labels that stand for a missing one.

  Args:
    labels: of images or classes.
    real_labels: field `data.real_labels`: those that are names here.
  """
  real = {name.strip().casefold() for name in real_labels.split(",")}
  return [
    label
    for label in dict.fromkeys(labels)
    if is_missing(label) and label.strip().casefold() not in real
  ]


def remedy(found: Sequence[str]) -> str:
  """Returns how a class may have such a name all the same."""
  names = ",".join(label.strip() for label in found)
  return (
    f"if {text.first_few(map(repr, found))} is the name of a class, say so: "
    f"--config.data.real_labels={shlex.quote(names)}"
  )


def check_folders(
  where: str, names: Sequence[str], *, real_labels: str
) -> None:
  """Refuses class folders that are named like a missing label."""
  found = missing(names, real_labels=real_labels)
  if found:
    raise errors.InputError(
      f"{where} has the class folder {text.first_few(map(repr, found))}, a "
      "name that programs write where a label is missing: move images without "
      "a label to another folder, and set data.unlabelled_dir to it; "
      + remedy(found)
    )


def warnings(
  class_names: Sequence[str], labels: Sequence[Any]
) -> tuple[str, ...]:
  """Returns lines about labels that are probably not meant as classes.

  Args:
    class_names: the classes.
    labels: one for each labelled image.
  """
  return (
    *_several_in_one(class_names),
    *_measurements(class_names, len(labels)),
    *_placeholders(class_names),
  )


def _several_in_one(class_names: Sequence[str]) -> list[str]:
  """Returns a line about classes that are combinations of labels."""
  names = set(class_names)
  found: dict[str, None] = {}
  for separator in (*_CERTAIN, *_LIKELY, *_POSSIBLE):
    parts = {
      name: [part.strip() for part in name.strip(" []{}()").split(separator)]
      for name in class_names
      if separator in name.strip()
    }
    # How many names have a part, alone or with others.
    uses = collections.Counter(
      part for some in parts.values() for part in set(some)
    )
    uses.update(name for name in names if name not in parts)
    orders = collections.Counter(tuple(sorted(some)) for some in parts.values())
    for name, some in parts.items():
      if len(some) < 2 or not all(some):
        continue
      reordered = orders[tuple(sorted(some))] > 1
      if (
        separator in _CERTAIN
        or reordered
        or (separator in _LIKELY and all(uses[part] > 1 for part in some))
        or all(part in names for part in some)
      ):
        found[name] = None
  # A list, tuple or set as Python, JSON and databases write it.
  written = re.compile(r"\[.*\]|\{.*\}|\(.*,.*\)|frozenset\(.*\)", re.DOTALL)
  found |= dict.fromkeys(filter(written.fullmatch, class_names))
  if not found:
    return []
  listed = text.first_few(map(repr, found))
  return [
    f"{len(found)} of {len(class_names)} classes look like several labels in "
    f"one ({listed}). An image has one label here, so that each combination is "
    "a class of its own, which knows nothing of the others: give each image "
    "one label, or leave it without"
  ]


def _measurements(class_names: Sequence[str], num_images: int) -> list[str]:
  """Returns a line about numbers that are to be predicted as numbers."""
  if not all(_NUMBER.fullmatch(name.strip()) for name in class_names):
    return []
  values = [float(name.replace(",", ".")) for name in class_names]
  fractions = [
    name
    for name, value in zip(class_names, values, strict=True)
    if not value.is_integer()
  ]
  most = max(_FEW_NUMBERS, num_images // 2)
  if not fractions and len(class_names) <= most:
    return []
  listed = text.first_few(map(repr, fractions or class_names))
  return [
    f"the labels are numbers ({listed}), {len(class_names):,} different ones "
    f"for {num_images:,} images. {CLASSES_OF_NUMBERS}"
  ]


def _placeholders(class_names: Sequence[str]) -> list[str]:
  """Returns a line about classes whose name may stand for a missing label."""
  negative = [n for n in class_names if re.fullmatch(r"\s*-\d.*", n)]
  found = [
    name
    for name in class_names
    if name.strip().casefold() in _DOUBTFUL
    or not any(character.isalnum() for character in name)
    # Other programs number what has no label -1.
    or ([name] == negative and re.fullmatch(r"-\d+(\.0*)?", name.strip()))
  ]
  # Where all are signs, signs are what is classified.
  if not found or len(found) == len(class_names):
    return []
  return [
    f"the class name {text.first_few(map(repr, found))} may stand for a "
    "missing label: if it does, leave the label empty (with folders: move the "
    "images, and set data.unlabelled_dir)"
  ]
