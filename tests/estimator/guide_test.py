"""The example of docs/estimator.md runs as it is written."""

import pathlib
import re

import numpy as np
import pytest

pytestmark = [pytest.mark.unoptimized, pytest.mark.devices(2)]
PAGE = pathlib.Path(__file__).parents[2] / "docs" / "estimator.md"


@pytest.mark.slow
def test_the_example_runs(tmp_path, monkeypatch, capsys):
  monkeypatch.chdir(tmp_path)
  text = PAGE.read_text(encoding="utf-8")
  code = re.search(r"<!-- test: example -->\n\n```python\n(.*?)```", text, re.S)
  names = {}
  exec(compile(code[1], str(PAGE), "exec"), names)
  said = capsys.readouterr().out
  assert re.search(r"^step 110/110", said, re.M)
  model, test = names["model"], names["test"]
  # Chance is 10 %.
  assert model.score(test, names["test_labels"]) > 0.6
  np.testing.assert_array_equal(
    names["loaded"].predict(test), model.predict(test)
  )
