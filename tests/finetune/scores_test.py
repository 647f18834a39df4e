"""Which epoch is the best, and whose weights are kept."""

import types

import jax.numpy as jnp
import numpy as np
import pytest

from paws_jax import errors
from paws_jax.data import dataset
from paws_jax.finetune import holdout
from paws_jax.finetune import scores as scores_lib
from paws_jax.finetune import sweep


def _score(top1, cross_entropy=1.0):
  return {"top1": top1, "cross_entropy": cross_entropy}


@pytest.mark.parametrize(
  ("scores", "best"),
  [
    ([_score(0.2), _score(0.8), _score(0.5)], 2),
    ([_score(0.2), _score(0.5), _score(0.8)], 3),
    ([_score(0.8), _score(0.5), _score(0.2)], 1),
    # Of equal accuracies the likelier answers, of all equal the first.
    ([_score(0.5, 2.0), _score(0.5, 1.0), _score(0.5, 3.0)], 2),
    ([_score(0.5), _score(0.5), _score(0.5)], 1),
  ],
)
def test_the_weights_of_the_best_epoch_are_kept(scores, best):
  left = iter(scores)
  kept = scores_lib.Scores(lambda params, state: next(left), 7)
  for epoch in (1, 2, 3):
    state = types.SimpleNamespace(
      params=jnp.full(2, epoch), batch_stats={"m": jnp.full(1, -epoch)}
    )
    kept.add(state, 7 * epoch)
    # As the next step does.
    state.params.delete()
    state.batch_stats["m"].delete()
  assert kept.epoch == best
  assert kept.best == scores[best - 1]
  assert kept.history == scores
  np.testing.assert_array_equal(kept.kept["params"], best)
  np.testing.assert_array_equal(kept.kept["batch_stats"]["m"], -best)


def test_the_best_member_is_chosen_and_the_first_of_equals():
  members = [
    sweep.Member(rate, 1, score, (), "", 0.0, None, None)
    for rate, score in (
      (0.1, None),
      (0.2, _score(0.5)),
      (0.3, _score(0.5)),
      (0.4, _score(0.5, 0.9)),
      (0.5, _score(0.4, 0.1)),
    )
  ]
  assert sweep.choose(members[:3]).learning_rate == 0.2
  assert sweep.choose(members).learning_rate == 0.4


class _Images(np.ndarray):
  """Some of which cannot be read."""

  readable = np.array([True, False, True, True])


class _Protocol:
  votes = True

  def embed(self, params, batch_stats, images):
    return np.asarray(images[:]).reshape(len(images), -1) * params

  def probabilities(self, params, queries, supports, support_labels):
    self.voted = (supports, support_labels)
    if params == 0:
      return np.full((len(queries), 3), np.nan)
    return np.eye(3)[queries[:, 0].astype(int)] * 0.8 + 0.1


def _part(pixels, labels):
  images = np.asarray(pixels, np.float32).reshape(-1, 1, 1, 1).view(_Images)
  return dataset.LabelledImages(images, np.asarray(labels), str)


def test_unreadable_images_neither_count_nor_vote():
  protocol = _Protocol()
  held = _part([0, 1, 2, 1], [0, 0, 2, 0])
  parts = holdout.HoldOut(
    labelled_ids=np.arange(4),
    ids=np.arange(4),
    fit=_part([0, 1, 2, 0], [0, 1, 2, 0]),
    scored=held,
    hash="",
  )
  score = scores_lib.scorer(protocol, parts)(1.0, None)
  # Of three: right, right, and one that its class had 0.1 for.
  assert score["top1"] == pytest.approx(2 / 3)
  expected = -np.log([0.9, 0.9, 0.1]).mean()
  assert score["cross_entropy"] == pytest.approx(expected)
  assert score["num_images"] == 3
  supports, labels = protocol.voted
  np.testing.assert_array_equal(supports[:, 0], [0, 2, 0])
  np.testing.assert_array_equal(labels, [0, 2, 0])


@pytest.mark.parametrize(
  ("params", "message"),
  [(np.nan, "embeddings .* not finite"), (0, "probabilities .* not finite")],
)
def test_numbers_that_are_not_finite_are_no_score(params, message):
  part = _part([0, 1, 2, 1], [0, 0, 2, 0])
  parts = holdout.HoldOut(
    labelled_ids=np.arange(4), ids=np.arange(4), fit=part, scored=part, hash=""
  )
  with pytest.raises(errors.NonFiniteError, match=message):
    scores_lib.scorer(_Protocol(), parts)(params, None)
