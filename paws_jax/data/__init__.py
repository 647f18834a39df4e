"""What flows from data to the train step; the contracts are in `data.batch`."""

from paws_jax.data.batch import Canvases
from paws_jax.data.batch import HostBatch
from paws_jax.data.batch import Views
from paws_jax.data.batch import batch_specs

__all__ = ["Canvases", "HostBatch", "Views", "batch_specs"]
