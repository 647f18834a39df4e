"""The notice before a longer run raises its learning rate again."""

import json
import math
import re

import pytest

from paws_jax.config import upgrade
from paws_jax.runs import workdir
from paws_jax.training import longer_run
from tests import used_workdir

# Rates 0 to 1 in the first epoch, then half a cosine to 0.1.
RATES = {
  "optim__start_lr": 0.0,
  "optim__peak_lr": 1.0,
  "optim__final_lr": 0.1,
  "optim__warmup_epochs": 1.0,
}


def recipe(epochs, **changes):
  return used_workdir.recipe(**RATES | {"train__epochs": epochs, **changes})


def trained(path, epochs, step):
  """A workdir whose newest checkpoint is of a run of so many epochs."""
  workdir.prepare(path, recipe(epochs))
  meta = path / workdir.CHECKPOINTS / str(step) / "meta"
  meta.mkdir(parents=True)
  text = json.dumps({"meta": {"recipe": upgrade.write(recipe(epochs))}})
  (meta / "metadata").write_text(json.dumps({"text": text}))
  return path


def notice(path, epochs, **changes):
  return longer_run.notice(path, recipe(epochs, **changes), steps_per_epoch=10)


def test_the_numbers_of_a_finished_run(tmp_path):
  text = notice(trained(tmp_path, 11, 110), 21)
  # Half of the longer cosine is over.
  assert "had fallen to 0.1 at step 110 of 110" in text
  assert "train.epochs=21 it continues at 0.55 (5.5 times as much)" in text
  assert "falls to 0.1 until step 210" in text
  assert "stop now (Ctrl-C)" in text
  assert f"--config.model.init_from={tmp_path}" in text


def test_the_numbers_on_the_way(tmp_path):
  text = notice(trained(tmp_path, 11, 60), 21)
  now = 0.1 + 0.9 * 0.5 * (1 + math.cos(math.pi * 50 / 200))
  assert "had fallen to 0.55 at step 60 of 110" in text
  assert float(re.search(r"continues at (\S+)", text)[1]) == pytest.approx(
    now, abs=1e-3
  )


def test_from_zero_there_is_no_ratio(tmp_path):
  path = trained(tmp_path, 11, 110)
  text = notice(path, 21, optim__final_lr=0.0)
  assert "had fallen to 0 at" in text
  assert "times" not in text


@pytest.mark.parametrize(
  ("epochs", "step", "now"),
  [
    # As long as before, and shorter.
    (11, 110, 11),
    (11, 110, 10),
    # The warm-up is the same.
    (11, 10, 21),
  ],
)
def test_a_rate_that_does_not_rise_is_no_news(tmp_path, epochs, step, now):
  assert not notice(trained(tmp_path, epochs, step), now)


def test_a_constant_rate_is_no_news(tmp_path):
  path = trained(tmp_path, 11, 110)
  assert not notice(path, 21, optim__final_lr=1.0)


def test_without_a_checkpoint_there_is_nothing_to_say(tmp_path):
  workdir.prepare(tmp_path, recipe(11))
  assert not notice(tmp_path, 21)


def test_a_checkpoint_without_a_recipe_is_of_the_stored_one(tmp_path):
  path = used_workdir.make(tmp_path, **RATES | {"train__epochs": 6})
  assert "laid out for train.epochs=6" in notice(path, 21)
