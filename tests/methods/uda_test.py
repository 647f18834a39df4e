"""UDA: what it shares with the other methods with a class head."""

import pytest

from tests import toy_method

pytestmark = pytest.mark.unoptimized


def test_labels_are_smoothed_as_the_recipe_says():
  """The networks, images and labels are those of FixMatch."""
  uda, fixmatch = (
    toy_method.create(name=name, label_smoothing=0.3)
    for name in ("uda", "fixmatch")
  )
  views = toy_method.views_of(uda, toy_method.make_views(num_small=0))
  actual, expected = (
    toy_method.measure(each, views)["cross_entropy"] for each in (uda, fixmatch)
  )
  assert actual == pytest.approx(expected, rel=1e-12)
