"""Mean Teacher: predictions agree with those of the average weights (2017)."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any
from typing import ClassVar

import jax
import jax.numpy as jnp

from paws_jax import data
from paws_jax import losses
from paws_jax.methods import base
from paws_jax.methods import class_head

# Key of the teacher's running statistics among those of the student.
_TEACHER = "teacher"


@dataclasses.dataclass(frozen=True)
class MeanTeacher(class_head.ClassHead):
  """A student and its average, the teacher, which see different weak views.

  Labelled images and the student's views are one BatchNorm batch. The teacher
  runs in training mode on its own views, of which its running statistics are.
  """

  view_counts: ClassVar[Mapping[str, int]] = {"weak": 2}

  def init(
    self, key: jax.Array, views: data.Views, facts: base.Facts
  ) -> tuple[Any, Any]:
    """Draws the student, whose statistics the teacher starts with."""
    params, batch_stats = super().init(key, views, facts)
    return params, _with_teacher(batch_stats, batch_stats)

  def load_encoder(
    self, params: Any, batch_stats: Any, variables: Any
  ) -> tuple[Any, Any]:
    """Puts weights into the encoder, and their statistics into the teacher."""
    params, batch_stats = super().load_encoder(params, batch_stats, variables)
    return params, _with_teacher(batch_stats, variables["batch_stats"])

  def encoder_variables(self, state: Any) -> dict[str, Any]:
    """Selects the teacher."""
    variables = super().encoder_variables(state)
    return {**variables, "batch_stats": variables["batch_stats"][_TEACHER]}

  def ramp_shape(self, progress: jax.Array) -> jax.Array:
    """Computes the share of the weight after a share of the ramp."""
    if self.config.ramp == "exp":
      return jnp.exp(-5 * (1 - progress) ** 2)
    return progress

  def loss(
    self,
    params: Any,
    batch_stats: Any,
    extra: Any,
    batch: data.Views,
    *,
    step: jax.Array,
    key: jax.Array | None,
  ) -> base.Output:
    """Computes the losses of labelled and unlabelled images."""
    del key
    crops = batch.crops["weak"]
    own = {k: v for k, v in batch_stats.items() if k != _TEACHER}
    student = self.classify(params, own, [crops[:, 0]], batch)
    teacher = self.classify(
      jax.lax.stop_gradient(extra[class_head.AVERAGE]),
      batch_stats[_TEACHER],
      [crops[:, 1]],
    )
    unlabelled = losses.mean_teacher_loss(
      student.views[0], teacher.views[0], kind=self.config.consistency
    )
    loss, means = self.total(
      student.labelled, unlabelled, batch, step=step, others={}
    )
    stats = _with_teacher(student.batch_stats, teacher.batch_stats)
    return base.Output(loss, {"loss": loss} | means, stats)


def _with_teacher(batch_stats: Any, teacher: Any) -> dict[str, Any]:
  """Adds the teacher's statistics to those of the student."""
  copied = jax.tree.map(jnp.copy, dict(teacher))
  return {**batch_stats, _TEACHER: jax.lax.stop_gradient(copied)}
