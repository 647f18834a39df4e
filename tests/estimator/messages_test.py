"""What messages of commands become in a program."""

import pytest

import paws_jax
from paws_jax import errors
from paws_jax.estimator import messages
from paws_jax.runs import recipe as recipe_lib
from tests.estimator import tiny_fit


@pytest.mark.parametrize(
  ("message", "wanted"),
  [
    ("nothing of a recipe, nor of file.py.", ""),
    (
      "/r is in use: choose another --workdir.",
      "/r is in use: choose another workdir.",
    ),
    (
      "Continue it with --config.train.epochs=5, or choose another --workdir.",
      "Continue it with train__epochs=5, or choose another workdir.",
    ),
    ("give --config.data.dir=DIR.", "give data__dir=DIR."),
    ("--config.data.real_labels='NA'", "data__real_labels='NA'"),
    ("say --config.data.on_bad_image=skip.", "say data__on_bad_image='skip'."),
    (
      "Give the recipe with --config and",
      "Give the recipe with recipe=... and",
    ),
    (
      "train.epochs is 3, and train.epochs of views.small.size.",
      "train.epochs is 3, and train.epochs of views.small.size. PawsClassifier "
      "takes fields as parameters: train__epochs=..., views__small__size=...",
    ),
  ],
)
def test_flags_become_parameters(message, wanted):
  assert messages.rewritten(message, "/r") == (wanted or message)


def test_a_command_becomes_a_fit(tmp_path):
  advice = recipe_lib.how_to_continue(tmp_path / "run", None)
  found = messages.rewritten(f"The data have changed. {advice}", "a run")
  assert found == (
    "The data have changed. To train on the data as they are now, from the "
    "weights of this run: workdir=ANOTHER, model__init_from='a run'."
  )


@pytest.mark.parametrize(
  ("fields", "words"),
  [
    (
      {"train__batch_size": 64},
      r"64 but there are 24 .*train__batch_size=\.\.\.",
    ),
    (
      {"optim__warmup_epochs": 2},
      r"lower the warm-up or .*: optim__warmup_epochs=\.\.\., train__epochs=",
    ),
  ],
)
def test_the_first_steps_on_few_images(fields, words):
  model = paws_jax.PawsClassifier(tiny_fit.RECIPE, **tiny_fit.FIELDS)
  with pytest.raises(errors.InputError, match=words):
    model.set_params(**fields).fit(tiny_fit.images(), tiny_fit.labels())


def test_a_bucket_that_is_closed_is_named(monkeypatch):
  class OpError(Exception):
    """As TensorFlow's, which is none of OSError's."""

  def refuse(*_):
    raise OpError("403: no access\nand more")

  kinds = (OSError, OpError)
  monkeypatch.setattr(messages.workdir_lib, "storage_errors", lambda: kinds)
  monkeypatch.setattr(paws_jax.estimator.training, "run", refuse)
  model = paws_jax.PawsClassifier(
    tiny_fit.RECIPE, workdir="gs://bucket/run", **tiny_fit.FIELDS
  )
  with pytest.raises(
    errors.WorkdirError, match=r"'gs://bucket/run' cannot .*\(403: no access\)"
  ):
    model.fit(tiny_fit.images(), tiny_fit.labels())
