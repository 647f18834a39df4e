"""JSON of users: what is refused, and that all of it is read in one place."""

import json
import pathlib
import re

import numpy as np
import pytest

from paws_jax import json_text

PACKAGE = pathlib.Path(__file__).parent.parent / "paws_jax"
# Messages between processes of one version, and values just made.
_OWN = {"distributed/agree.py", "config/recipe.py", "evaluation/result_rows.py"}


@pytest.mark.parametrize(
  ("text", "problem"),
  [
    ("[" * 100_000 + "]" * 100_000, "more than 64 levels deep"),
    ("[" * 200 + "]" * 200, "more than 64 levels deep"),
    ('{"a":' * 100_000, "more than 64 levels deep"),
    ("[1, NaN]", "NaN, which is no JSON number"),
    ('{"a": -Infinity}', "-Infinity, which is no JSON number"),
    ("[[1e999]]", "a number above 1.8e308"),
    ("1" * 5000, "a number of thousands of digits"),
    ("[" + "1" * 100 + "]", "an integer of 100 digits"),
    ("", "it is empty"),
    (b" \n", "it is empty"),
    (b'{"a": "\xff"}', "not UTF-8"),
    ("{", "line 1 column 2"),
    ("{'a': 1}", "line 1 column 2"),
    (b"\x00" * 40, "line 1 column 1"),
  ],
)
def test_hostile_texts_are_a_value_error(text, problem):
  with pytest.raises(ValueError, match=problem) as raised:
    json_text.parse(text)
  assert len(str(raised.value)) < 200


def test_a_very_long_text_is_not_parsed(monkeypatch):
  monkeypatch.setattr(json_text, "_MAX_BYTES", 10)
  assert json_text.parse("[1, 2, 3]") == [1, 2, 3]
  with pytest.raises(ValueError, match="11 bytes, more than 10"):
    json_text.parse("[1, 2, 3,4]")


def test_other_texts_are_read_as_they_are():
  value = {"a": [1, 2.5, None, True, "ä\udcff"], "b": {"c": [2**64 - 1, -1]}}
  text = json.dumps(value)
  assert json_text.parse(text) == json_text.parse(text.encode()) == value
  assert json_text.parse(b"\xef\xbb\xbf[1]") == [1]
  assert json_text.parse("[" * 64 + "]" * 64)
  # Means in a checkpoint may be of nothing.
  means = json_text.parse("[NaN, -Infinity, 1.0]", non_finite=True)
  np.testing.assert_equal(means, [np.nan, -np.inf, 1])


def test_all_json_of_users_is_read_here():
  direct = {
    path.relative_to(PACKAGE).as_posix()
    for path in PACKAGE.rglob("*.py")
    if re.search(r"\bjson\.loads?\(", path.read_text(encoding="utf-8"))
  }
  assert direct == {"json_text.py", *_OWN}
