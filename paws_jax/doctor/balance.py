"""Findings about classes with many more labels than others."""

from __future__ import annotations

from typing import Any

import numpy as np

from paws_jax import config as config_lib
from paws_jax.data.sources import catalog
from paws_jax.doctor import findings

# Labels of the most frequent class, in units of those of the rarest: reported,
# and to be checked.
_REPORTED, _CHECKED = 3, 10


def class_balance(
  report: findings.Report,
  listing: catalog.Catalog,
  labelled_ids: np.ndarray,
  recipe: config_lib.Recipe,
) -> None:
  """Reports unequal numbers of labels, and what `method.prior` makes of them.

  Args:
    report: receives the findings.
    listing: the catalog.
    labelled_ids: int [m], the training images whose label is used.
    recipe: the recipe.
  """
  if not len(labelled_ids):
    return
  counts = np.bincount(
    listing.train.labels[labelled_ids], minlength=listing.num_classes
  )
  least, most = int(counts.argmin()), int(counts.argmax())
  if counts[most] < _REPORTED * max(counts[least], 1):
    return
  names = listing.class_names
  text = (
    f"labels are unbalanced: {counts[most]:,} of {names[most]!r} and "
    f"{counts[least]:,} of {names[least]!r}"
  )
  advice, is_in_force = _prior(recipe.method)
  if recipe.support.sampling != "uniform":
    text += "; each step takes as many of one class as of another, so that "
    text += "votes are not biased"
  text = f"{text}. {advice}"
  if counts[most] >= _CHECKED * max(counts[least], 1) and not is_in_force:
    report.warning(text)
  else:
    report.say(text)
  report.say(
    "accuracy of unbalanced test images says little about rare classes: "
    "--task=evaluate gives mean_per_class_top1, too"
  )


def _prior(method: Any) -> tuple[str, bool]:
  """Returns advice about the prior, and whether nothing is left to set."""
  if not hasattr(method, "prior"):
    return "Labelling more images of rare classes helps", True
  if not method.me_max:
    return (
      "method.me_max is False: nothing keeps rare classes in use, and "
      "method.prior has no effect",
      True,
    )
  if method.prior == "labels":
    return (
      "method.prior is 'labels': me-max expects the unlabelled images to have "
      "classes as often as the labelled ones. If you labelled rare classes "
      "more often than they occur, give their shares with method.prior=given",
      True,
    )
  if method.prior == "estimate":
    return (
      "method.prior is 'estimate': me-max expects shares that are estimated "
      "from the labels before the first step, and with the run's own "
      "predictions after each epoch",
      True,
    )
  if method.prior == "given":
    shares = ", ".join(
      f"{100 * share:.3g} %" for share in method.prior_probs[:5]
    )
    more = ", ..." if len(method.prior_probs) > 5 else ""
    return (
      f"method.prior is 'given': me-max expects shares of {shares}{more} among "
      "the unlabelled images",
      True,
    )
  return (
    "method.prior is 'uniform': me-max assigns all classes equally many "
    "unlabelled images, too many to rare ones if the unlabelled images are as "
    "unbalanced as the labels. In that case set --config.method.prior=labels; "
    "if you know their shares, --config.method.prior=given with "
    "method.prior_probs; if the unlabelled images are balanced, leave it",
    False,
  )
