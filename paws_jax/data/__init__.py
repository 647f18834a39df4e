"""Batches and views, the contracts between data and train step."""

from paws_jax.data.batch import Array
from paws_jax.data.batch import Canvases
from paws_jax.data.batch import Crops
from paws_jax.data.batch import Features
from paws_jax.data.batch import HostBatch
from paws_jax.data.batch import Views
from paws_jax.data.batch import batch_specs
from paws_jax.data.uncut import Uncut

__all__ = [
  "Array",
  "Canvases",
  "Crops",
  "Features",
  "HostBatch",
  "Uncut",
  "Views",
  "batch_specs",
]
