"""Random views and evaluation crops of image batches, on device."""

from typing import TYPE_CHECKING

from paws_jax import _moved
from paws_jax.augment.crop import crop_boxes
from paws_jax.augment.crop import evaluation_view
from paws_jax.augment.views import crop_tries
from paws_jax.augment.views import distort_views
from paws_jax.augment.views import jitter_factors
from paws_jax.augment.views import multi_views
from paws_jax.augment.views import normalize
from paws_jax.config.views import build_from_fields as ViewsConfig

__all__ = [
  "ViewsConfig",
  "crop_boxes",
  "crop_tries",
  "distort_views",
  "evaluation_view",
  "jitter_factors",
  "multi_views",
  "normalize",
]

if not TYPE_CHECKING:
  __getattr__ = _moved.names_of(__name__)
