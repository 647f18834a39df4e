"""Meta Pseudo Labels: a teacher is judged by what its student learns (2021).

Each step the student takes a step of SGD on the teacher's classes of strong
views. Where the loss of labelled images falls by that, the teacher's classes
become more probable: to first order its gradient is that of the student's loss
after the step, through the step. Both public codes have the difference with the
opposite sign, and the published one a term without gradient (docs/methods.md).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax

from paws_jax import data
from paws_jax import losses
from paws_jax import optim
from paws_jax.losses import consistency
from paws_jax.methods import base
from paws_jax.methods import class_head
from paws_jax.methods import encoding
from paws_jax.methods import tables
from paws_jax.parallel import mesh

# In `extra`, beside the averages.
_STUDENT, _STUDENT_STATS = "student", "student_statistics"
_OPTIMIZER, _BASELINE = "student_optimizer", "baseline"
# Metrics of a step that counts; the last is of the student's new weights.
_FINITE = (
  "loss",
  "student_loss",
  "grad_norm",
  "update_norm",
  "student_cross_entropy",
)


class _Teacher(NamedTuple):
  """A teacher's forward pass; rows are those of this device."""

  metrics: dict[str, jax.Array]
  batch_stats: Any
  # [b] classes of the strong views.
  taught: jax.Array


@dataclasses.dataclass(frozen=True)
class Mpl(class_head.ClassHead):
  """A teacher with UDA's loss and the student's feedback, and a student.

  The teacher's parameters are those of the state; it sees labelled images, weak
  and strong views as one BatchNorm batch. The student starts with the teacher's
  weights and is in `extra`, with its momentum and its average, which is
  evaluated. It sees labelled images and strong views, and learns no labels.
  """

  def init_extra(
    self, key: jax.Array, params: Any, batch_stats: Any, facts: base.Facts
  ) -> dict[str, Any]:
    """Copies the student from the teacher."""
    extra = super().init_extra(key, params, batch_stats, facts)
    return {
      **extra,
      _STUDENT: params,
      _STUDENT_STATS: batch_stats,
      _OPTIMIZER: self._optimizer.init(params),
      _BASELINE: jnp.zeros((), jax.tree.leaves(params)[0].dtype),
    }

  def encoder_variables(self, state: Any) -> dict[str, Any]:
    """Selects the average of the student."""
    variables = super().encoder_variables(state)
    if class_head.STATISTICS in state.extra:
      return variables
    return {**variables, "batch_stats": state.extra[_STUDENT_STATS]}

  def student_rate(self, step: jax.Array) -> jax.Array:
    """Returns the student's learning rate at a step."""
    config, total = self.config, self.facts.total_steps
    schedule = optim.delayed_cosine(
      peak_lr=config.student_lr,
      wait_steps=round(config.student_wait_share * total),
      warmup_steps=round(config.student_warmup_share * total),
      total_steps=total,
    )
    return schedule(step)

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
    """Computes the teacher's loss without feedback; `step` adds that."""
    del extra, key
    (loss, _), teacher = self._teach(params, batch_stats, batch, step)
    metrics = teacher.metrics | {"loss": loss}
    return base.Output(loss, metrics, teacher.batch_stats)

  def step(
    self,
    trainer: Any,
    state: Any,
    batch: data.Views,
    gradient_step: Callable[[Any, Any, data.Views], tuple[Any, Any]],
  ) -> tuple[Any, dict[str, jax.Array]]:
    """Takes a step of the student, then one of the teacher."""
    del gradient_step
    extra, step = state.extra, state.step

    def teach(params: Any) -> Any:
      return self._on_mesh(trainer, self._teach, batch)(
        params, state.batch_stats, step
      )

    terms, pull_back, teacher = jax.vjp(teach, state.params, has_aux=True)
    student, feedback, learned = self._learn(
      trainer, extra, batch, teacher.taught, step
    )
    baseline = extra[_BASELINE]
    if self.config.feedback != "off":
      decay = self.config.baseline_decay
      baseline = decay * baseline + (1 - decay) * feedback
      feedback = feedback - baseline
    (grads,) = pull_back((jnp.ones_like(terms[0]), feedback))
    updates, opt_state = trainer.optimizer.update(
      grads, state.opt_state, state.params
    )
    loss = terms[0] + feedback * terms[1]
    metrics = {
      **teacher.metrics,
      **learned,
      "loss": loss,
      "feedback": feedback,
      "grad_norm": optax.tree.norm(grads),
      "update_norm": optax.tree.norm(updates),
      "param_norm": optax.tree.norm(state.params),
      "learning_rate": trainer.schedule(step),
    }
    finite = state.finite
    for name in _FINITE:
      finite &= jnp.isfinite(metrics[name])
    after = state.replace(
      step=step + 1,
      params=optax.apply_updates(state.params, updates),
      batch_stats=teacher.batch_stats,
      opt_state=opt_state,
      extra=self._averaged({**extra, **student, _BASELINE: baseline}, step),
    )
    kept = jax.tree.map(
      lambda new, old: jnp.where(finite, new, old), after, state
    )
    return kept.replace(finite=finite), metrics

  @property
  def _optimizer(self) -> optax.GradientTransformation:
    """The student's; decay acts on kernels."""
    config = self.config
    return optim.sgd(
      self.student_rate,
      weight_decay=config.student_weight_decay,
      momentum=config.student_momentum,
      nesterov=True,
      lr_in_momentum=False,
    )

  def _on_mesh(
    self, trainer: Any, function: Callable[..., Any], batch: data.Views
  ) -> Callable[..., Any]:
    """Runs a function of (parameters, statistics, batch, rest) on all devices.

    Its results are scalars and statistics, the same on all devices, but for
    `_Teacher.taught`. Outside of it, parameters are differentiated.
    """
    # They stand for the arrays of a tree.
    whole: Any = mesh.REPLICATED
    spread: Any = mesh.BATCH
    rows = function == self._teach
    spec = ((whole, whole), _Teacher(whole, whole, spread))
    rest = whole if rows else spread

    def local(
      params: Any, batch_stats: Any, batch: data.Views, rest: Any
    ) -> Any:
      return function(mesh.varying(params), batch_stats, batch, rest)

    mapped = mesh.shard_map(
      local,
      trainer.mesh,
      in_specs=(whole, whole, data.batch_specs(batch), rest),
      out_specs=spec if rows else whole,
    )
    return lambda params, stats, rest: mapped(params, stats, batch, rest)

  def _teach(
    self, params: Any, batch_stats: Any, batch: data.Views, step: jax.Array
  ) -> tuple[tuple[jax.Array, jax.Array], _Teacher]:
    """Computes (loss, cross-entropy of the classes taught) of a teacher."""
    config = self.config
    logits = self.classify_weak_and_strong(params, batch_stats, batch)
    weak, strong = logits.views
    unlabelled, mask = losses.uda_loss(
      weak,
      strong,
      temperature=config.target_temperature,
      threshold=config.threshold,
      mask_on=config.mask_on,
      strict=False,
      form="ce",
    )
    taught = jnp.argmax(strong, axis=-1)
    score = jnp.mean(consistency.label_cross_entropy(strong, taught))
    loss, means = self.total(
      logits.labelled,
      unlabelled,
      batch,
      step=step,
      others={"taught": score, **class_head.pseudo_metrics(weak, mask)},
    )
    score = means.pop("taught")
    metrics = class_head.finished(means)
    return (loss, score), _Teacher(metrics, logits.batch_stats, taught)

  def _learn(
    self,
    trainer: Any,
    extra: Any,
    batch: data.Views,
    taught: jax.Array,
    step: jax.Array,
  ) -> tuple[dict[str, Any], jax.Array, dict[str, jax.Array]]:
    """Takes the student's step; returns its state, feedback and metrics."""
    config, params, stats = self.config, extra[_STUDENT], extra[_STUDENT_STATS]
    study = self._on_mesh(trainer, self._study, batch)
    judge = self._on_mesh(trainer, self._judge, batch)
    (loss, (old, later)), grads = jax.value_and_grad(study, has_aux=True)(
      params, stats, taught
    )
    updates, opt_state = self._optimizer.update(
      grads, extra[_OPTIMIZER], params
    )
    after = optax.apply_updates(params, updates)
    if config.feedback == "difference" and config.old_loss_batch == "alone":
      old, _ = judge(params, stats, taught)
    if config.feedback in ("dot", "cosine"):
      (new, later), labelled = jax.value_and_grad(judge, has_aux=True)(
        after, later, taught
      )
      feedback = self.student_rate(step) * optax.tree.vdot(labelled, grads)
      if config.feedback == "cosine":
        norms = optax.tree.norm(labelled) * optax.tree.norm(grads)
        feedback = optax.tree.vdot(labelled, grads) / jnp.maximum(norms, 1e-12)
    else:
      new, later = judge(after, later, taught)
      feedback = old - new
    if config.feedback == "off":
      feedback = jnp.zeros_like(new)
    state = {_STUDENT: after, _STUDENT_STATS: later, _OPTIMIZER: opt_state}
    metrics = {
      "student_loss": loss,
      "student_cross_entropy": new,
      "student_learning_rate": self.student_rate(step),
    }
    return state, feedback.astype(extra[_BASELINE].dtype), metrics

  def _study(
    self, params: Any, batch_stats: Any, batch: data.Views, taught: jax.Array
  ) -> tuple[jax.Array, tuple[jax.Array, Any]]:
    """Computes a student's loss, and that of the labelled images beside it."""
    strong = batch.crops["strong"][:, 0]
    logits = self.classify(params, batch_stats, [strong], batch)
    each = consistency.label_cross_entropy(
      logits.views[0], taught, smoothing=self.label_smoothing
    )
    old = self.label_loss(logits.labelled, batch, smoothing=0.0)
    means = encoding.device_means(
      {"loss": jnp.mean(each), "old": old}, self.axis_name
    )
    return means["loss"], (means["old"], logits.batch_stats)

  def _judge(
    self, params: Any, batch_stats: Any, batch: data.Views, taught: jax.Array
  ) -> tuple[jax.Array, Any]:
    """Computes the loss of the labelled images alone."""
    del taught
    logits = self.classify(params, batch_stats, [], batch)
    loss = self.label_loss(logits.labelled, batch, smoothing=0.0)
    means = encoding.device_means({"loss": loss}, self.axis_name)
    return means["loss"], logits.batch_stats

  def _averaged(self, extra: dict[str, Any], step: jax.Array) -> dict[str, Any]:
    """Moves the averages of the student after a step."""
    places = {
      class_head.AVERAGE: _STUDENT,
      class_head.STATISTICS: _STUDENT_STATS,
    }
    present = {name: extra[name] for name in places if name in extra}
    moved = tables.ema(
      present,
      {name: extra[places[name]] for name in present},
      momentum=self.ema_decay(step),
      finite=jnp.asarray(True),
    )
    return {**extra, **moved}
