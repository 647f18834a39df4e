"""Which training images with a hidden label are looked at."""

from __future__ import annotations

import numpy as np

# More would only take longer.
MAX_ROWS = 1000


def sample_rows(labels: np.ndarray, labelled_ids: np.ndarray) -> np.ndarray:
  """A fixed sample of the images whose label is known but not used.

  It is for watching only: none of these labels may reach a train step.

  Args:
    labels: int [n], what the data set says; -1 where it says nothing.
    labelled_ids: rows whose labels the run uses.

  Returns:
    At most MOST rows, sorted; none where no label is hidden.
  """
  hidden = np.setdiff1d(np.flatnonzero(np.asarray(labels) >= 0), labelled_ids)
  # Drawn, as classes may follow each other in any pattern.
  drawn = np.random.default_rng(0).permutation(hidden)[:MAX_ROWS]
  return np.sort(drawn)
