"""results.json: rows are appended, and nothing in the file is lost."""

import json

import pytest

from paws_jax import errors
from paws_jax.runs import results
from tests import odd_files


def test_results_are_appended(tmp_path):
  assert results.read_results(tmp_path) == []
  results.append_result(tmp_path, {"top1": 0.5})
  results.append_result(tmp_path, {"top1": 0.75, "interval": (0.7, 0.8)})
  rows = json.loads((tmp_path / results.RESULTS).read_text())
  assert rows == [{"top1": 0.5}, {"top1": 0.75, "interval": [0.7, 0.8]}]
  assert results.read_results(tmp_path) == rows
  assert [path.name for path in tmp_path.iterdir()] == [results.RESULTS]


@pytest.mark.parametrize(
  ("text", "problem"),
  [
    ("[1, 2", "is not JSON"),
    ("", "is not JSON"),
    ('{"top1": 1}', "is not a JSON list"),
    ("[1, 2]", "is not a JSON list"),
    ("[" * 100_000, "is not JSON .it is nested more than 64 levels deep"),
    ('[{"top1": NaN}]', "is not JSON .it holds NaN"),
    ('[{"top1": 1}, {"top1": "high"}]', "is damaged: top1 of its object 2"),
    ('[{"raw_pixel_top5": 1.5}]', "is damaged: raw_pixel_top5"),
    ('[{"top1_interval": [0.1]}]', "is damaged: top1_interval"),
    ('[{"steps": "10"}]', "is damaged: steps"),
    ('[{"num_test": -1}]', "is damaged: num_test"),
    ('[{"task": ["pretrain"]}]', "is damaged: task"),
    ('[{"wall_seconds": {}}]', "is damaged: wall_seconds"),
  ],
)
def test_results_that_are_no_list_are_refused(tmp_path, capsys, text, problem):
  path = tmp_path / results.RESULTS
  path.write_text(text)
  with pytest.raises(ValueError, match=f"results.json {problem}"):
    results.read_results(tmp_path)
  assert path.read_text() == text
  # When hours of work are to be noted, they are, and nothing is lost.
  results.append_result(tmp_path, {"top1": 0.5})
  assert results.read_results(tmp_path) == [{"top1": 0.5}]
  assert (tmp_path / "results.old.json").read_text() == text
  assert "It is kept as results.old.json." in capsys.readouterr().out


def test_what_somebody_has_written_stays_as_it_is(tmp_path):
  path = tmp_path / results.RESULTS
  text = '[{"top1": 0.50, "note": "caf\\u00e9", "note": 1e3},\n\n{}]'
  path.write_text(text + "\n\n", encoding="utf-8-sig")
  results.append_result(tmp_path, {"top1": 0.75})
  assert path.read_text().startswith(text[:-1])
  assert results.read_results(tmp_path)[2] == {"top1": 0.75}


def test_a_result_that_is_no_json_leaves_the_file(tmp_path):
  results.append_result(tmp_path, {"top1": 0.5})
  with pytest.raises(ValueError, match="JSON"):
    results.append_result(tmp_path, {"top1": float("nan")})
  assert results.read_results(tmp_path) == [{"top1": 0.5}]


@pytest.mark.parametrize("kind", ["pipe", "directory"])
def test_what_is_no_file_is_named_and_kept(tmp_path, kind):
  odd_files.make(tmp_path / results.RESULTS, kind)
  with pytest.raises(errors.WorkdirError, match=odd_files.KINDS[kind]):
    results.read_results(tmp_path)
  results.append_result(tmp_path, {"top1": 0.5})
  assert results.read_results(tmp_path) == [{"top1": 0.5}]
  assert (tmp_path / "results.old.json").exists()
