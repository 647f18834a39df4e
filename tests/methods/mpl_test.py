"""Meta Pseudo Labels: golden steps, the exact gradient, its feedbacks."""

import json
import types

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from paws_jax import optim
from paws_jax.methods import class_head
from paws_jax.methods import mpl
from paws_jax.parallel import mesh as mesh_lib
from paws_jax.training import state as state_lib
from tests import golden_reference
from tests import semi_trajectory

pytestmark = pytest.mark.unoptimized
# Sizes of the network of the meta gradient.
_META = {"H": 16, "D": 6, "K": 4}


def _trainer(optimizer, lr):
  mesh = mesh_lib.make_mesh(jax.devices()[:1])
  return types.SimpleNamespace(
    mesh=mesh, optimizer=optimizer, schedule=lambda step: jnp.asarray(lr)
  )


def _golden_method(config, x64, **fields):
  return semi_trajectory.make(
    "mpl",
    {
      "threshold": config["threshold"],
      "target_temperature": config["T"],
      "unlabelled_weight": config["lambda_u"],
      "ramp_share": 0.5,
      "baseline_decay": config["baseline"],
      "student_lr": config["student_lr"],
      "student_weight_decay": config["weight_decay"],
      **fields,
    },
    config,
    x64,
    smoothing=config["label_smoothing"],
    total_steps=2 * config["uda_steps"],
    axis_name=mesh_lib.AXES,
  )


def _start(method, config, x64):
  teacher, student = (
    semi_trajectory.weights(method, config, x64, config[f"{name}_prefix"])
    for name in ("teacher", "student")
  )
  extra = method.init_extra(None, *student, method.facts)
  optimizer = semi_trajectory.optimizer(
    config | {"lr": config["teacher_lr"]}, schedule="constant", total_steps=4
  )
  state = state_lib.TrainState(
    step=jnp.zeros((), jnp.int32),
    params=teacher[0],
    batch_stats=teacher[1],
    opt_state=optimizer.init(teacher[0]),
    finite=jnp.asarray(True),
    extra=extra,
  )
  return _trainer(optimizer, config["teacher_lr"]), state


def _stepper(method, trainer):
  return jax.jit(lambda state, views: method.step(trainer, state, views, None))


@pytest.fixture
def constant_rate(monkeypatch):
  """The student of the golden files has the same rate in all steps."""
  monkeypatch.setattr(
    mpl.Mpl,
    "student_rate",
    lambda self, step: jnp.asarray(self.config.student_lr, float),
  )


@pytest.mark.usefixtures("constant_rate")
@pytest.mark.parametrize("x64", [True, False], ids=["x64", "float32"])
def test_it_takes_the_steps_of_the_golden_file(x64):
  arrays, config = golden_reference.load("semi/mpl_trajectory_hard_oldnew")
  with jax.enable_x64(x64):
    method = _golden_method(config, x64, old_loss_batch="joint")
    trainer, state = _start(method, config, x64)
    step = _stepper(method, trainer)
    crops = {"weak": ["x_weak"], "strong": ["x_strong"]}
    for t in range(config["steps"]):
      views = semi_trajectory.views(arrays, t, x64, crops)
      state, metrics = step(state, views)
      for name, key in (
        ("cross_entropy", "teacher_loss_x"),
        ("consistency", "teacher_loss_u"),
        ("mask_rate", "mask_mean"),
        ("student_loss", "student_loss"),
        ("student_cross_entropy", "student_new"),
        ("feedback", "feedback"),
        ("loss", "teacher_loss"),
      ):
        np.testing.assert_allclose(
          metrics[name],
          arrays[f"{key}_f64"][t],
          rtol=1e-9 if x64 else 1e-4,
          err_msg=key,
        )
      extra = state.extra
      for prefix, params, stats in (
        ("teacher", state.params, state.batch_stats),
        ("student", extra["student"], extra["student_statistics"]),
      ):
        semi_trajectory.assert_network(
          semi_trajectory.network(params, stats),
          arrays,
          t,
          config[f"{prefix}_prefix"],
          x64,
        )


@pytest.mark.usefixtures("constant_rate")
@pytest.mark.parametrize("feedback", ["difference", "dot", "off"])
def test_feedbacks_of_the_first_step(feedback):
  """Alone, the loss before is that of the labelled images as after it."""
  arrays, config = golden_reference.load("semi/mpl_trajectory_hard_oldnew")
  with jax.enable_x64(True):
    method = _golden_method(config, True, feedback=feedback)
    trainer, state = _start(method, config, True)
    crops = {"weak": ["x_weak"], "strong": ["x_strong"]}
    views = semi_trajectory.views(arrays, 0, True, crops)
    _, metrics = _stepper(method, trainer)(state, views)
  old, new = (arrays[f"student_{name}_f64"][0] for name in ("old_alone", "new"))
  product = arrays["first_order_product_f64"][0]
  expected = {"difference": old - new, "dot": product, "off": 0.0}[feedback]
  # A hundredth of the first feedback is its mean, which is subtracted.
  np.testing.assert_allclose(
    metrics["feedback"], config["baseline"] * expected, rtol=1e-9
  )


@pytest.mark.usefixtures("constant_rate")
def test_the_cosine_is_that_of_the_two_gradients():
  """It is the product without its lengths and the student's rate."""
  arrays, config = golden_reference.load("semi/mpl_trajectory_hard_oldnew")
  with jax.enable_x64(True):
    dot, cosine = (
      _golden_method(config, True, feedback=name) for name in ("dot", "cosine")
    )
    trainer, state = _start(dot, config, True)
    crops = {"weak": ["x_weak"], "strong": ["x_strong"]}
    views = semi_trajectory.views(arrays, 0, True, crops)

    def length(function, params, stats, taught):
      on_mesh = dot._on_mesh(trainer, function, views)
      grads = jax.grad(lambda params: on_mesh(params, stats, taught)[0])(params)
      return optax.tree.norm(grads)

    @jax.jit
    def compare(extra, taught):
      after, product, _ = dot._learn(trainer, extra, views, taught, state.step)
      _, found, _ = cosine._learn(trainer, extra, views, taught, state.step)
      old, new = (
        (tree[mpl._STUDENT], tree[mpl._STUDENT_STATS])
        for tree in (extra, after)
      )
      first = length(dot._study, *old, taught)
      return product, found, first * length(dot._judge, *new, taught)

    taught = jnp.arange(len(views.crops["strong"]), dtype=jnp.int32) % 2
    product, found, lengths = jax.device_get(compare(state.extra, taught))
  assert 0 < abs(found) <= 1
  np.testing.assert_allclose(
    found * lengths * config["student_lr"], product, rtol=1e-9
  )


@pytest.mark.usefixtures("constant_rate")
def test_a_student_that_is_not_heard_ends_the_run_when_it_diverges():
  """Its loss before the step is finite, and the teacher's is, too."""
  arrays, config = golden_reference.load("semi/mpl_trajectory_hard_oldnew")
  method = _golden_method(
    config, False, feedback="off", student_lr=3e38, student_weight_decay=0.0
  )
  trainer, state = _start(method, config, False)
  crops = {"weak": ["x_weak"], "strong": ["x_strong"]}
  views = semi_trajectory.views(arrays, 0, False, crops)
  after, metrics = _stepper(method, trainer)(state, views)
  assert np.isfinite(metrics["loss"])
  assert np.isfinite(metrics["student_loss"])
  assert not after.finite
  jax.tree.map(np.testing.assert_array_equal, after.extra, state.extra)


@pytest.mark.usefixtures("constant_rate")
def test_the_average_of_the_student_may_begin_as_the_plain_mean():
  arrays, config = golden_reference.load("semi/mpl_trajectory_hard_oldnew")
  with jax.enable_x64(True):
    method = _golden_method(config, True, ema_warmup=True, ema_decay=0.99)
    trainer, state = _start(method, config, True)
    crops = {"weak": ["x_weak"], "strong": ["x_strong"]}
    views = semi_trajectory.views(arrays, 0, True, crops)
    before = jax.device_get(state.extra)
    after, _ = _stepper(method, trainer)(state, views)
    after = jax.device_get(after.extra)
  jax.tree.map(
    lambda average, old, new: np.testing.assert_allclose(
      average, (old + new) / 2, rtol=1e-12
    ),
    after[class_head.AVERAGE],
    before[mpl._STUDENT],
    after[mpl._STUDENT],
  )


def _meta():
  """(method, student's extra, teacher, views, golden arrays)."""
  arrays, config = golden_reference.load("semi/mpl_meta_gradient")
  fields = {
    "student_lr": config["student_lr"],
    "student_weight_decay": 0.0,
    "student_momentum": 0.0,
  }
  method = semi_trajectory.make(
    "mpl", fields, _META, True, axis_name=mesh_lib.AXES, norm=False
  )
  teacher, student = (
    semi_trajectory.weights(method, _META, True, name)[0]
    for name in ("teacher", "student")
  )
  for params in (teacher, student):
    del params["trunk"]["bn1"]
  stacked = {
    "x": arrays["x"][None],
    "labels": arrays["labels"][None],
    "u": arrays["x_unlabelled"][None],
  }
  views = semi_trajectory.views(
    stacked, 0, True, {"weak": ["u"], "strong": ["u"]}
  )
  return method, student, teacher, views, arrays


@pytest.mark.usefixtures("constant_rate")
def test_the_feedback_is_the_exact_gradient_through_the_student_s_step():
  """Its sign above all: public codes have the opposite one, or none."""
  with jax.enable_x64(True):
    method, student, teacher, views, arrays = _meta()
    extra = method.init_extra(None, student, {}, method.facts)
    trainer = _trainer(optax.sgd(0.1), 0.1)

    @jax.jit
    def learn(label):
      _, feedback, _ = method._learn(
        trainer, extra, views, label[None], jnp.int32(0)
      )
      return feedback

    labels = range(_META["K"])
    feedback = np.array([learn(jnp.int32(label)) for label in labels])
    np.testing.assert_allclose(feedback, arrays["h_f64"], rtol=1e-6)

    def logits(params):
      features = method.encoder.apply(
        {"params": class_head.of_encoder(params)},
        views.crops["strong"][:, 0],
        train=False,
        method="features",
      )
      return class_head.apply_head(params[class_head.HEAD], features)

    def expected(params):
      log_probs = jax.nn.log_softmax(logits(params)[0])
      weights = jax.lax.stop_gradient(jnp.exp(log_probs)) * feedback
      return -jnp.sum(weights * log_probs)

    gradient = jax.grad(expected)(teacher)
  trunk = gradient["trunk"]["fc1"]
  layer = gradient[class_head.HEAD]
  ours = [trunk["kernel"].T, trunk["bias"], layer["kernel"].T, layer["bias"]]
  exact = [
    arrays[f"exact_soft_grad.{name}_f64"]
    for name in ("fc1.weight", "fc1.bias", "fc2.weight", "fc2.bias")
  ]
  ours, exact = (
    np.concatenate([np.ravel(each) for each in part]) for part in (ours, exact)
  )
  cosine = ours @ exact / np.linalg.norm(ours) / np.linalg.norm(exact)
  assert cosine > 0.999999
  assert 0.99 < np.linalg.norm(ours) / np.linalg.norm(exact) < 1.01


def test_the_student_s_rate_waits_rises_and_falls():
  path = golden_reference.DIRECTORY / "semi" / "schedules.json"
  case = json.loads(path.read_text(encoding="utf-8"))["mpl_student_release"]
  schedule = optim.delayed_cosine(
    peak_lr=case["base"],
    wait_steps=case["wait"],
    warmup_steps=case["warmup"],
    total_steps=case["total"],
  )
  steps = jnp.arange(case["total"] + 1)
  np.testing.assert_allclose(
    schedule(steps), case["values"], rtol=1e-5, atol=1e-8
  )
