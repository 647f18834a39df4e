"""A sample of the training images whose label is known but not used."""

from __future__ import annotations

import numpy as np

# More images would take longer, without a benefit.
MAX_ROWS = 1000


def sample_rows(labels: np.ndarray, labelled_ids: np.ndarray) -> np.ndarray:
  """Draws a fixed sample of the images whose label is known but not used.

  It serves to monitor a run: none of these labels may reach a train step.

  Args:
    labels: int [n], labels in the data set; -1 without one.
    labelled_ids: rows whose labels the run uses.

  Returns:
    At most MOST rows, sorted; none if all labels are used.
  """
  hidden = np.setdiff1d(np.flatnonzero(np.asarray(labels) >= 0), labelled_ids)
  # Drawn at random, as rows may be in the order of their classes.
  drawn = np.random.default_rng(0).permutation(hidden)[:MAX_ROWS]
  return np.sort(drawn)
