import numpy as np
import pytest

from paws_jax import errors
from paws_jax.estimator import nearest


def test_neighbors_are_those_of_scikit_learn():
  from sklearn import neighbors

  rng = np.random.default_rng(0)
  supports = rng.normal(size=(9, 4)).astype(np.float32)
  queries = rng.normal(size=(5, 4)).astype(np.float32)
  wanted = neighbors.NearestNeighbors(metric="cosine").fit(supports)
  distances, indices = nearest.find(queries, supports, 3)
  for found, other in zip(
    (distances, indices), wanted.kneighbors(queries, 3), strict=True
  ):
    np.testing.assert_allclose(found, other, atol=1e-6)


def test_equal_supports_come_in_their_order():
  rows = np.ones((3, 2), np.float32)
  distances, indices = nearest.find(rows[:1], rows, 3)
  assert indices.tolist() == [[0, 1, 2]]
  assert (distances >= 0).all()


@pytest.mark.parametrize("count", [0, 4, -1, 1.0, None])
def test_a_number_of_neighbors_that_there_are_not_is_refused(count):
  with pytest.raises(errors.InputError, match="whole number from 1 to 3"):
    nearest.check_count(count, 3)
