"""Losses of the methods, as pure functions of arrays.

All computation is in float32 or wider. Functions with an `axis_name` may be
called inside `jax.shard_map`: anchors (or queries) are then the rows of this
device, and returned values are global, equal on all devices, unless documented
otherwise. Take gradients outside the `shard_map`; they are those of the global
mean.
"""

from __future__ import annotations

from paws_jax.losses import blocks
from paws_jax.losses import byol
from paws_jax.losses import feature_rank
from paws_jax.losses import fixmatch
from paws_jax.losses import mean_shift
from paws_jax.losses import mean_teacher
from paws_jax.losses import moco
from paws_jax.losses import paws
from paws_jax.losses import pseudo_label
from paws_jax.losses import ropaws
from paws_jax.losses import simclr
from paws_jax.losses import similarity
from paws_jax.losses import simsiam
from paws_jax.losses import suncet
from paws_jax.losses import swav
from paws_jax.losses import uda

AxisName = similarity.AxisName
MIN_NORM = similarity.MIN_NORM
TARGET_THRESHOLD = paws.TARGET_THRESHOLD

in_blocks = blocks.in_blocks
normalize = similarity.normalize
# The former name.
normalise = normalize
cosine_similarities = similarity.cosine_similarities
label_rows = similarity.label_rows
soft_nearest_neighbours = similarity.soft_nearest_neighbours
vote_weights = similarity.vote_weights
sharpen = similarity.sharpen
cross_entropy = similarity.cross_entropy
negative_entropy = similarity.negative_entropy

paws_predictions = paws.paws_predictions
paws_targets = paws.paws_targets
paws_objective = paws.paws_objective
paws_loss = paws.paws_loss

suncet_loss = suncet.suncet_loss
suncet_rows = suncet.suncet_rows
nt_xent_loss = simclr.nt_xent_loss
nt_xent_rows = simclr.nt_xent_rows

moco_loss = moco.moco_loss
byol_loss = byol.byol_loss
simsiam_loss = simsiam.simsiam_loss
sinkhorn = swav.sinkhorn
swav_loss = swav.swav_loss
nearest_members = mean_shift.nearest_members
mean_shift_loss = mean_shift.mean_shift_loss

fixmatch_loss = fixmatch.fixmatch_loss
uda_loss = uda.uda_loss
tsa_cross_entropy = uda.tsa_cross_entropy
tsa_threshold = uda.tsa_threshold
pseudo_label_loss = pseudo_label.pseudo_label_loss
mean_teacher_loss = mean_teacher.mean_teacher_loss

in_domain_probability = ropaws.in_domain_probability
effective_rank = feature_rank.effective_rank
