"""Unequal numbers of labels, and what the prior makes of them."""

import numpy as np
import pytest

from paws_jax import config as config_lib
from paws_jax.config import methods
from paws_jax.data.sources import catalog
from paws_jax.doctor import balance
from paws_jax.doctor import findings


def report(capsys, counts, method="paws", **changes):
  """Returns the number of warnings, and what is printed."""
  labels = np.repeat(np.arange(len(counts), dtype=np.int32), counts)
  unlabelled = np.full(50, -1, np.int32)
  files = catalog.Files("/", tuple(map(str, range(len(labels) + 50))))
  listing = catalog.Catalog(
    "toy",
    tuple(f"k{k}" for k in range(len(counts))),
    catalog.Part(files, np.concatenate([labels, unlabelled])),
  )
  config = config_lib.base(method)
  flat = {name.replace("__", "."): value for name, value in changes.items()}
  config.update_from_flattened_dict(flat)
  made = findings.Report()
  balance.class_balance(
    made, listing, np.arange(len(labels)), config_lib.resolve(config)
  )
  assert made.num_problems == 0
  return made.num_warnings, capsys.readouterr().out


@pytest.mark.parametrize("counts", [(4, 4, 4), (2, 4, 5), (1, 2)])
def test_nearly_equal_numbers_are_not_reported(capsys, counts):
  assert report(capsys, counts) == (0, "")


@pytest.mark.parametrize(("counts", "warnings"), [((6, 2), 0), ((40, 3, 4), 1)])
def test_unequal_numbers_and_the_uniform_prior(capsys, counts, warnings):
  found, text = report(capsys, counts)
  assert found == warnings
  assert f"{counts[0]} of 'k0' and {counts[1]} of 'k1'" in text
  assert "method.prior is 'uniform'" in text
  assert "--config.method.prior=labels" in text
  assert "mean_per_class_top1" in text


def test_a_class_without_a_label_counts_as_one(capsys):
  assert report(capsys, (2, 0)) == (0, "")
  assert "3 of 'k0' and 0 of 'k1'" in report(capsys, (3, 0))[1]


@pytest.mark.parametrize(
  ("changes", "words"),
  [
    ({"method__prior": "labels"}, "as often as the labelled ones"),
    ({"method__prior": "estimate"}, "shares that are estimated from the"),
    (
      {"method__prior": "given", "method__prior_probs": (0.9, 0.1)},
      "expects shares of 90 %, 10 % among",
    ),
    ({"method__me_max": False}, "method.prior has no effect"),
  ],
)
def test_a_prior_that_is_in_force_is_not_proposed(capsys, changes, words):
  found, text = report(capsys, (50, 2), **changes)
  assert found == 0
  assert words in text
  assert "--config" not in text


@pytest.mark.parametrize("name", sorted(methods.METHODS))
def test_a_method_without_a_prior_is_not_given_one(capsys, name):
  found, text = report(capsys, (50, 2), name)
  has = hasattr(methods.config_class(name)(), "prior")
  assert ("method.prior" in text) == has == bool(found)
  assert "50 of 'k0'" in text


def test_votes_are_balanced_unless_labels_are_one_stream(capsys):
  assert "votes are not biased" in report(capsys, (50, 2))[1]
  changes = {"support__sampling": "uniform", "support__batch_size": 4}
  assert "votes are not" not in report(capsys, (50, 2), **changes)[1]
