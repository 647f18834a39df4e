"""Which classifier a task works with: of this recipe, newest, or told."""

import dataclasses
import types

import pytest

from paws_jax import config as config_lib
from paws_jax import errors
from paws_jax.predict import source
from paws_jax.runs import workdir as workdir_lib
from paws_jax.training import save_classifier
from tests import random_classifier


@pytest.fixture
def run(tmp_path):
  """A run's directory with a classifier and a fine-tuned one, of step 10."""
  workdir_lib.prepare(tmp_path, config_lib.resolve(random_classifier.recipe()))
  (tmp_path / workdir_lib.CHECKPOINTS / "10").mkdir(parents=True)
  made = of_step(10)
  save_classifier.save(made, tmp_path / workdir_lib.CLASSIFIER)
  origin = {**made.origin, "finetuned": True}
  tuned = dataclasses.replace(made, origin=origin)
  save_classifier.save(tuned, tmp_path / workdir_lib.FINETUNED)
  return tmp_path


def of_step(step):
  return dataclasses.replace(random_classifier.make(), origin={"step": step})


def find(run, *, classifier=None, head="soft_nn", **changes):
  config = random_classifier.recipe()
  config.update_from_flattened_dict(
    {name.replace("__", "."): value for name, value in changes.items()}
  )
  return source.find(
    config_lib.resolve(config), str(run), classifier=classifier, head=head
  )


@pytest.mark.parametrize("head", ["soft_nn", "finetuned"])
def test_another_recipe_is_refused(run, head):
  assert find(run, head=head).class_names == random_classifier.CLASSES
  with pytest.raises(errors.WorkdirError, match=r"method\.temperature: "):
    find(run, head=head, method__temperature=0.5)
  with pytest.raises(errors.WorkdirError, match=r"data\.split_seed: 0 th"):
    find(run, head=head, data__split_seed=3)


@pytest.mark.parametrize("head", ["soft_nn", "finetuned"])
def test_the_batch_is_that_of_the_command_line(run, head):
  few = find(run, head=head, eval__batch_size=3).make()
  assert few.batch_size == 3
  # Rows that were predicted stay those of this classifier.
  assert few.digest == find(run, head=head, eval__batch_size=4).make().digest


def test_an_old_fine_tuned_classifier_is_told(run, capsys):
  find(run, head="finetuned")
  assert not capsys.readouterr().out
  (run / workdir_lib.CHECKPOINTS / "20").mkdir()
  find(run, head="finetuned")
  (line,) = capsys.readouterr().out.splitlines()
  assert "fine-tuned from step 10, and the run has a checkpoint of step" in line


def test_a_fine_tuned_classifier_may_have_no_head(run):
  tuned = str(run / workdir_lib.FINETUNED)
  assert not find(run, classifier=tuned, head="finetuned").has_head
  other = str(run / workdir_lib.CLASSIFIER)
  with pytest.raises(ValueError, match="classifier is not fine-tuned: leave"):
    find(run, classifier=other, head="finetuned")


def test_a_class_head_is_none_that_was_fine_tuned(run, tmp_path):
  made = random_classifier.make(class_head=True)
  directory = tmp_path / "saved"
  made.save(directory)
  assert find(run, classifier=str(directory)).has_head
  with pytest.raises(errors.InputError, match="saved is not fine-tuned: leave"):
    find(run, classifier=str(directory), head="finetuned")
  # One that was fine-tuned before that was noted has another head.
  random_classifier.make(head=True).save(tmp_path / "old")
  assert find(run, classifier=str(tmp_path / "old"), head="finetuned").has_head
  origin = {**made.origin, "finetuned": True}
  dataclasses.replace(made, origin=origin).save(tmp_path / "tuned")
  tuned = find(run, classifier=str(tmp_path / "tuned"), head="finetuned")
  assert tuned.has_head


def _trained(made, step, head=None):
  """What `restore.load` gives, as far as `find` reads it."""
  dataset = types.SimpleNamespace(
    class_names=made.class_names,
    labelled=types.SimpleNamespace(labels=made.support_bank.labels),
  )
  experiment = types.SimpleNamespace(dataset=dataset)
  return types.SimpleNamespace(step=step, experiment=experiment, head=head)


@pytest.mark.parametrize("head", [None, {"kernel": 0, "bias": 0}])
def test_a_class_head_is_known_before_it_is_saved(run, monkeypatch, head):
  (run / workdir_lib.CHECKPOINTS / "20").mkdir()
  trained = _trained(of_step(20), 20, head)
  monkeypatch.setattr(source.restore, "load", lambda *unused: trained)
  assert find(run).has_head == (head is not None)


def test_a_damaged_checkpoint_is_passed_over_once(run, monkeypatch, capsys):
  (run / workdir_lib.CHECKPOINTS / "20").mkdir()
  made = of_step(10)
  trained = _trained(made, 10)
  monkeypatch.setattr(source.restore, "load", lambda *unused: trained)
  monkeypatch.setattr(
    source.save_classifier, "from_trained", lambda trained: made
  )
  find(run).make()
  assert "of step 10: the one there is of step 10" in capsys.readouterr().out
  find(run).make()
  assert not capsys.readouterr().out
  (run / workdir_lib.CHECKPOINTS / "30").mkdir()
  find(run).make()
  assert "making" in capsys.readouterr().out


def test_a_users_file_is_seen_before_a_run_is_restored(run):
  (run / workdir_lib.CHECKPOINTS / "20").mkdir()
  (run / workdir_lib.CLASSIFIER / "mine.txt").touch()
  with pytest.raises(errors.WorkdirError, match=r"\(mine\.txt\)"):
    find(run)


def test_a_classifier_that_cannot_tell_what_is_known_is_made_anew(run):
  directory = run / workdir_lib.CLASSIFIER
  config = random_classifier.recipe()
  assert not source._why_anew(config_lib.resolve(config), directory)
  config.method = config_lib.method_section(
    "ropaws", {"in_domain_temperature": 0.5}
  )
  reason = source._why_anew(config_lib.resolve(config), directory)
  assert reason == "its in_domain_temperature is None, and the run's 0.5"
  made = dataclasses.replace(of_step(10), in_domain_temperature=0.5)
  save_classifier.save(made, directory)
  assert not source._why_anew(config_lib.resolve(config), directory)


def test_a_classifier_that_cannot_be_kept_is_used(run, monkeypatch, capsys):
  (run / workdir_lib.CHECKPOINTS / "20").mkdir()
  made = of_step(20)
  dataset = types.SimpleNamespace(
    class_names=made.class_names,
    labelled=types.SimpleNamespace(labels=made.support_bank.labels),
  )
  trained = types.SimpleNamespace(
    step=20, experiment=types.SimpleNamespace(dataset=dataset), head=None
  )
  monkeypatch.setattr(source.restore, "load", lambda *unused: trained)
  monkeypatch.setattr(
    source.save_classifier, "from_trained", lambda trained: made
  )

  def refuse(*unused):
    raise PermissionError(13, "Permission denied")

  monkeypatch.setattr(source.save_classifier, "save", refuse)
  assert find(run).make() is made
  assert "classifier cannot be written" in capsys.readouterr().out
