"""Tests of the pieces that messages are made of."""

import pytest

from paws_jax import text


@pytest.mark.parametrize(
  ("count", "expected"),
  [
    (0, ""),
    (1, "0"),
    (3, "0, 1, 2"),
    (4, "0, 1, 2 and 1 more"),
    (2003, "0, 1, 2 and 2,000 more"),
  ],
)
def test_first_few_counts_the_items_it_leaves_out(count, expected):
  assert text.first_few(range(count), most=3) == expected


def test_first_few_takes_an_iterator_and_lists_five():
  assert text.first_few(map(repr, "abcdefg")) == (
    "'a', 'b', 'c', 'd', 'e' and 2 more"
  )


def test_first_few_separates_the_count_as_it_separates_items():
  assert text.first_few("abc", most=2, separator="; ") == "a; b; and 1 more"
  lines = text.first_few("abc", most=2, separator="\n  ")
  assert lines.splitlines() == ["a", "  b", "  and 1 more"]


@pytest.mark.parametrize(
  ("number", "expected"),
  [(0, "0"), (0.012345, "0.0123"), (999.4, "999"), (1234.5, "1,234")],
)
def test_numbers_are_rounded_without_exponents(number, expected):
  assert text.rounded(number) == expected


def test_texts_of_files_are_shown_on_one_line_without_controls():
  assert text.printable("a\x1b[2J\nb\u202eä") == "a?[2J?b?ä"
  assert text.printable("x" * 300, most=3) == "xxx... (300 characters)"


@pytest.mark.parametrize(
  ("arguments", "expected"),
  [
    ((1, "image"), "1 image"),
    ((0, "image"), "0 images"),
    ((1200, "class", "classes"), "1,200 classes"),
  ],
)
def test_a_number_has_the_form_of_its_noun(arguments, expected):
  assert text.count(*arguments) == expected
