"""Held out images are labelled, and not trained on."""

import dataclasses

import numpy as np
import pytest

from paws_jax import config as config_lib
from paws_jax.data import load_dataset
from paws_jax.data.labels import copies
from paws_jax.finetune import holdout
from tests import tiny_recipe


def _recipe(labels_per_class=5, **changes):
  config = tiny_recipe.get_config()
  config.data.labels_per_class = labels_per_class
  config.finetune.update(**changes)
  return config


def _parts(config):
  dataset = load_dataset.load(
    config_lib.Data(**config.data), config_lib.build_views(config.views)
  )
  return dataset, holdout.create(config_lib.resolve(config), dataset)


@pytest.mark.parametrize(
  ("share", "held_of_each"), [(0.2, 1), (0.4, 2), (0.01, 1), (0.75, 4)]
)
def test_a_share_of_each_class_is_held_out(share, held_of_each):
  dataset, parts = _parts(_recipe(holdout_fraction=share))
  assert len(parts.scored) == 10 * held_of_each
  np.testing.assert_array_equal(
    np.bincount(parts.scored.labels), [held_of_each] * 10
  )
  np.testing.assert_array_equal(
    np.bincount(parts.fit.labels), [5 - held_of_each] * 10
  )
  assert np.all(np.diff(parts.ids) > 0)
  # Together they are the labelled images, and none is in both.
  fit = {parts.fit.name(i) for i in range(len(parts.fit))}
  scored = {parts.scored.name(i) for i in range(len(parts.scored))}
  labelled = dataset.labelled
  assert fit | scored == {labelled.name(i) for i in range(50)}
  assert not fit & scored
  assert fit == {f"train {row}" for row in parts.ids}


def test_images_and_labels_stay_together():
  dataset, parts = _parts(_recipe())
  labelled = dataset.labelled
  by_name = {labelled.name(i): i for i in range(len(labelled))}
  for part in (parts.fit, parts.scored):
    for i in range(len(part)):
      place = by_name[part.name(i)]
      assert part.labels[i] == labelled.labels[place]
      np.testing.assert_array_equal(
        part.images[i : i + 1][0], labelled.images[place]
      )
    assert part.readable.shape == (len(part),)


def test_the_draw_follows_the_split_seed_and_not_the_run_seed():
  config = _recipe()
  first = _parts(config)[1]
  config.seed = 5
  again = _parts(config)[1]
  assert first.hash == again.hash
  np.testing.assert_array_equal(first.ids, again.ids)
  config.data.split_seed = 5
  assert _parts(config)[1].hash != first.hash


def test_one_label_cannot_be_both():
  with pytest.raises(
    ValueError,
    match=r"10 of 10 classes.*'0' \(1\).*at least 2.*'none'.*'paper'",
  ):
    _parts(_recipe(1))


def test_nothing_is_held_out_where_nothing_is_chosen():
  dataset, parts = _parts(_recipe(1, holdout="none", learning_rates=(1.0,)))
  assert parts.scored is None
  assert parts.hash is None
  assert parts.fit is dataset.labelled
  np.testing.assert_array_equal(parts.ids, dataset.split.labelled_ids)


def _others(dataset, labels):
  """Three images of each class that are not labelled."""
  free = np.setdiff1d(np.arange(len(labels)), dataset.split.labelled_ids)
  return np.concatenate([free[labels[free] == k][:3] for k in range(10)])


@pytest.fixture(scope="module")
def all_labels():
  """Of the training set."""
  config = _recipe(0, holdout="none", learning_rates=(1.0,))
  return _parts(config)[0].labelled.labels


def test_more_labelled_images_may_be_listed(tmp_path, all_labels):
  dataset, _ = _parts(_recipe())
  rows = _others(dataset, all_labels)
  path = tmp_path / "more.txt"
  path.write_text("\n".join(map(str, rows)))
  config = _recipe(holdout="paper", holdout_file=str(path))
  dataset, parts = _parts(config)
  # All labelled images are trained on, and these are not among them.
  np.testing.assert_array_equal(parts.ids, dataset.split.labelled_ids)
  assert {parts.scored.name(i) for i in range(30)} == {
    f"train {row}" for row in rows
  }
  np.testing.assert_array_equal(parts.scored.labels, all_labels[np.sort(rows)])


def test_the_list_is_relative_to_the_current_directory(
  tmp_path, monkeypatch, all_labels
):
  dataset, _ = _parts(_recipe())
  rows = _others(dataset, all_labels)
  (tmp_path / "more.txt").write_text("\n".join(map(str, rows)))
  config = _recipe(holdout="paper", holdout_file="more.txt")
  with pytest.raises(FileNotFoundError, match=r"holdout_file = 'more\.txt'"):
    _parts(config)
  monkeypatch.chdir(tmp_path)
  assert len(_parts(config)[1].scored) == len(rows)


def _with_copies(dataset, groups):
  labelled = dataclasses.replace(dataset.labelled, find_copies=lambda: groups)
  return dataclasses.replace(dataset, labelled=labelled)


def test_copies_are_on_one_side():
  config = _recipe(holdout_fraction=0.4)
  dataset, alone = _parts(config)
  labels = dataset.labelled.labels
  groups = np.arange(50)
  for k in range(10):
    first, second, third = np.flatnonzero(labels == k)[:3]
    groups[second] = groups[third] = first
  recipe = config_lib.resolve(config)
  parts = holdout.create(recipe, _with_copies(dataset, groups))
  fit = np.searchsorted(dataset.split.labelled_ids, parts.ids)
  held = np.setdiff1d(np.arange(50), fit)
  assert not set(groups[fit]) & set(groups[held])
  # Of three different images of a class one is held out.
  first = np.unique(groups[held])
  np.testing.assert_array_equal(np.bincount(labels[first]), [1] * 10)
  assert len(held) > 10
  unchanged = holdout.create(recipe, _with_copies(dataset, np.arange(50)))
  assert unchanged.hash == alone.hash != parts.hash


def test_a_class_of_copies_of_one_image_cannot_be_parted():
  config = _recipe()
  dataset, _ = _parts(config)
  labels, groups = dataset.labelled.labels, np.arange(50)
  groups[labels == 4] = np.flatnonzero(labels == 4)[0]
  with pytest.raises(ValueError, match=r"1 of 10 .* different .*'4' \(1\)"):
    holdout.create(config_lib.resolve(config), _with_copies(dataset, groups))


def test_listed_copies_of_what_is_trained_on_are_left_out(
  tmp_path, all_labels, capsys
):
  dataset, _ = _parts(_recipe())
  rows = np.sort(_others(dataset, all_labels))
  path = tmp_path / "more.txt"
  path.write_text("\n".join(map(str, rows)))
  config = _recipe(holdout="paper", holdout_file=str(path))
  dataset, alone = _parts(config)
  trained, recipe = dataset.split.labelled_ids, config_lib.resolve(config)
  pixels = np.array(dataset.train_images)
  pixels[rows[[3, 8]]] = pixels[trained[0]]
  copied = dataclasses.replace(
    dataset, find_copies=lambda ids: copies.of_arrays(pixels[ids])
  )
  parts = holdout.create(recipe, copied)
  assert {parts.scored.name(i) for i in range(len(parts.scored))} == {
    f"train {row}" for row in np.delete(rows, [3, 8])
  }
  assert parts.hash != alone.hash
  assert "2 of 30 images are left out" in capsys.readouterr().out
  pixels[rows] = pixels[trained[0]]
  with pytest.raises(ValueError, match=r"each of the 30 images .* is a copy"):
    holdout.create(recipe, copied)


def test_listed_images_that_are_trained_on_are_refused(tmp_path, all_labels):
  dataset, _ = _parts(_recipe())
  taken = dataset.split.labelled_ids[:2]
  rows = np.concatenate([_others(dataset, all_labels), taken])
  path = tmp_path / "more.txt"
  path.write_text("\n".join(map(str, rows)))
  message = (
    f"finetune.holdout_file = .* lists 2 of the 50.*row {taken[0]} .*remove"
  )
  with pytest.raises(ValueError, match=message):
    _parts(_recipe(holdout="paper", holdout_file=str(path)))


@pytest.mark.parametrize("kind", ["stratified", "none"])
def test_unreadable_images_are_neither_trained_on_nor_held_out(kind):
  config = _recipe(holdout=kind, learning_rates=(1.0,))
  dataset, whole = _parts(config)
  labels, rows = dataset.labelled.labels, dataset.split.labelled_ids
  readable = np.ones(50, bool)
  readable[[3, 17]] = False
  parts = holdout.create(config_lib.resolve(config), dataset, readable)
  np.testing.assert_array_equal(parts.labelled_ids, rows[readable])
  np.testing.assert_array_equal(whole.labelled_ids, rows)
  used = [parts.fit, *([parts.scored] if parts.scored else [])]
  names = [part.name(i) for part in used for i in range(len(part))]
  assert sorted(names) == sorted(f"train {row}" for row in rows[readable])
  by_name = {dataset.labelled.name(i): i for i in range(50)}
  for part in used:
    for i in range(len(part)):
      place = by_name[part.name(i)]
      assert part.labels[i] == labels[place]
      np.testing.assert_array_equal(
        part.images[i : i + 1][0], dataset.labelled.images[place]
      )
  assert {f"train {row}" for row in parts.ids} == {
    parts.fit.name(i) for i in range(len(parts.fit))
  }


def test_a_class_of_which_nothing_can_be_read_is_named():
  config = _recipe(holdout="none", learning_rates=(1.0,))
  dataset, _ = _parts(config)
  with pytest.raises(ValueError, match=r"can be read of .*'digits'.*9 of 10"):
    holdout.create(
      config_lib.resolve(config), dataset, dataset.labelled.labels != 4
    )


def test_a_list_need_not_hold_every_class(tmp_path, all_labels):
  dataset, _ = _parts(_recipe())
  rows = _others(dataset, all_labels)[:6]
  path = tmp_path / "more.txt"
  path.write_text("\n".join(map(str, rows)))
  _, parts = _parts(_recipe(holdout="paper", holdout_file=str(path)))
  assert set(parts.scored.labels) == {0, 1}
  assert len(parts.scored) == 6


def test_a_wrong_list_is_told_by_its_own_field(tmp_path):
  config = _recipe(holdout="paper", holdout_file=str(tmp_path / "none.txt"))
  with pytest.raises(FileNotFoundError, match=r"^finetune.holdout_file = "):
    _parts(config)
  path = tmp_path / "short.txt"
  config.finetune.holdout_file = str(path)
  for text, message in (("0\n99999\n", "out of range"), ("", "lists no image")):
    path.write_text(text)
    with pytest.raises(
      ValueError, match=rf"^finetune.holdout_file = .*{message}"
    ):
      _parts(config)
