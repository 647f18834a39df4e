import numpy as np
import pytest

from paws_jax import errors
from paws_jax.estimator import labels as labels_lib


class NAType:
  """As pandas.NA, which has no truth value."""

  def __eq__(self, other):
    return self

  __hash__ = object.__hash__

  def __bool__(self):
    raise TypeError("boolean value of NA is ambiguous")


def encode(y, **options):
  return labels_lib.encode(y, num_images=len(y), **options)


@pytest.mark.parametrize(
  ("y", "classes", "codes"),
  [
    (["cat", "ant", None, "cat"], ["ant", "cat"], [1, 0, -1, 1]),
    (["cat", -1, float("nan"), "ant"], ["ant", "cat"], [1, -1, -1, 0]),
    (["cat", NAType(), "", "ant"], ["ant", "cat"], [1, -1, -1, 0]),
    (np.array(["cat", "ant", ""]), ["ant", "cat"], [1, 0, -1]),
    (np.array(["cat", None, "ant"], object), ["ant", "cat"], [1, -1, 0]),
    ([7, 3, -1, 7], [3, 7], [1, 0, -1, 1]),
    ([-5, 3, -1], [-5, 3], [0, 1, -1]),
    (np.array([2, 0, -1], np.int8), np.array([0, 2], np.int8), [1, 0, -1]),
    (np.array([2.0, 0.0, np.nan]), np.array([0.0, 2.0]), [1, 0, -1]),
    ([True, False, None], [False, True], [1, 0, -1]),
    ([np.int64(4), 2, None], [2, 4], [1, 0, -1]),
  ],
)
def test_classes_keep_the_values_of_the_user(y, classes, codes):
  found = encode(y)
  assert found.codes.tolist() == codes
  assert found.codes.dtype == np.int32
  np.testing.assert_array_equal(found.classes, classes)
  assert found.classes.dtype == np.asarray(classes).dtype


@pytest.mark.parametrize(
  ("y", "names"),
  [
    ([3, 7], ("3", "7")),
    ([3.0, 7.0], ("3", "7")),
    ([True, False], ("False", "True")),
    (["b", "a"], ("a", "b")),
  ],
)
def test_names_are_texts(y, names):
  assert encode(y).names == names


@pytest.mark.parametrize(
  ("names", "listed"),
  [
    (("0", "1", "2"), ("0", "1", "2")),
    (("0", "2"), ("00", "02")),
    (("3", "10"), ("003", "010")),
    (("-5", "-2"), ("-05", "-02")),
    (("a", "7"), ("a", "7")),
  ],
)
def test_integers_with_gaps_are_names_in_a_table(names, listed):
  assert labels_lib.table_names(names) == listed


def test_classes_that_are_the_same_number_are_refused_in_a_table():
  with pytest.raises(errors.InputError, match="'03' and '3' are the same"):
    labels_lib.table_names(("03", "3", "4"))


@pytest.mark.parametrize(
  ("y", "words"),
  [
    (None, "y is missing: give one label for each image; .* -1, None or NaN"),
    ("cat", "y is a str: give a list"),
    (3, "y is a int: give a list"),
    ([[0, 1], [1, 0]], "y\\[0\\] is .* a list: a label is a text"),
    (np.eye(2), r"shape \[2, 2\]: give one .*y\.argmax"),
    (["a", "b", "a"], "X holds 2 images but y 3 labels"),
    ([-1, None], "none of the 2 images a label"),
    (["a", None], r"one class only \(a\)"),
    ([4, -1], r"one class only \(4\)"),
    ([0.5, 1.0], r"y\[0\] is 0\.5: Unknown label type: continuous"),
    ([float("inf"), 1.0], "Unknown label type: continuous"),
    ([1j, 1], "a complex: a label is a text or an integer"),
    ([b"a", b"b"], "a bytes: a label is a text or an integer"),
    (["a", 1], r"mixes texts \('a'\) and numbers \(1\)"),
    (["a", "nan"], "label 'nan', which programs write .* data__real_labels"),
    (np.array(["a", None], str), "label 'None', .* dtype=object"),
    (["a", "-1"], "as a text: .*number -1 or None"),
    (["a ", "b"], "leave out spaces before and after a name"),
    (["a\ud800", "b"], "half of a surrogate pair"),
    (["\u00e9", "e\u0301"], "look the same, and differ in their Unicode form"),
  ],
)
def test_labels_that_are_none_are_refused(y, words):
  with pytest.raises(errors.InputError, match=words):
    labels_lib.encode(y, num_images=2)


def test_a_name_that_looks_missing_can_be_one():
  assert encode(["NA", "b"], real_labels="NA").names == ("NA", "b")


def test_labels_for_scoring_may_be_of_one_class():
  assert encode(["a", None], least=1).names == ("a",)
  with pytest.raises(errors.InputError, match="none of the 1 images"):
    encode([None], least=1)
