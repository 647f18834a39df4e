"""The train step on 1 to 8 devices, its collectives, and the loop."""

import collections
import contextlib
import dataclasses
import functools
import re

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import linen as nn

from paws_jax import config as config_lib
from paws_jax import errors
from paws_jax import methods
from paws_jax import models
from paws_jax import optim
from paws_jax.data import memory_pipeline
from paws_jax.data import sampling
from paws_jax.methods import paws
from paws_jax.models import batch_norm
from paws_jax.models import heads
from paws_jax.parallel import mesh as mesh_lib
from paws_jax.training import loop
from paws_jax.training import state as state_lib
from paws_jax.training import step as step_lib
from paws_jax.training import views as views_lib
from tests import quick_compile

BASE = config_lib.base()
PLAIN = {
  "flip_probability": 0.0,
  "jitter_probability": 0.0,
  "grey_probability": 0.0,
  "blur_probability": 0.0,
}
VIEWS = config_lib.Views(
  mean=(0.5,),
  std=(0.25,),
  specs={
    "large": config_lib.ViewSpec(count=2, size=8, scale=(0.5, 1.0), **PLAIN),
    "small": config_lib.ViewSpec(count=1, size=6, scale=(0.3, 0.6), **PLAIN),
  },
)
# PAWS with me-max, temperatures 0.1 and 0.25.
# What is only watched has tests of its own, and a gather of its own size.
METHOD = dict(BASE.method) | {"health_metrics": False}
NUM_IMAGES, NUM_CLASSES, BATCH = 40, 5, 16
# With and without a prediction head, on four devices.
MAX_ALL_REDUCES = {True: 18, False: 12}


class Trunk(nn.Module):
  """One convolution with BatchNorm, or pooled pixels where convs are slow."""

  settings: batch_norm.LayerSettings
  conv: bool

  @nn.compact
  def __call__(self, x, *, train, mask=None):
    x = x.astype(self.settings.dtype)
    if self.conv:
      x = nn.Conv(
        6,
        (3, 3),
        dtype=self.settings.dtype,
        param_dtype=self.settings.param_dtype,
        name="conv",
      )(x)
      x = nn.relu(self.settings.batch_norm("bn")(x, train=train, mask=mask))
      return x.mean((1, 2))
    x = nn.avg_pool(x, (2, 2), (2, 2))[:, :3, :3]
    return x.reshape(x.shape[0], -1)


def make_encoder(
  *,
  prediction=False,
  conv=True,
  dtype=jnp.float32,
  axis_name=None,
  group_axis_name=None,
):
  settings = batch_norm.LayerSettings(
    momentum=0.9,
    dtype=dtype,
    param_dtype=dtype,
    axis_name=axis_name,
    group_axis_name=group_axis_name,
  )
  return models.Encoder(
    trunk=Trunk(settings, conv),
    projection=heads.ProjectionHead(
      hidden_dim=8, output_dim=8, settings=settings
    ),
    prediction=heads.PredictionHead(output_dim=8, settings=settings)
    if prediction
    else None,
  )


def _images():
  """Images of five classes, each a pattern of its own under noise."""
  rng = np.random.default_rng(3)
  patterns = rng.uniform(40, 215, (NUM_CLASSES, 10, 10, 1))
  labels = np.arange(NUM_IMAGES) % NUM_CLASSES
  noise = rng.normal(0, 20, (NUM_IMAGES, 10, 10, 1))
  images = np.clip(patterns[labels] + noise, 0, 255).astype(np.uint8)
  return images, labels.astype(np.int32)


_QUICKLY = functools.partial(quick_compile.quick_compile, exact=True)


@dataclasses.dataclass(frozen=True)
class Setup:
  trainer: state_lib.Trainer
  pipeline: memory_pipeline.InMemory
  quick: bool

  def state(self):
    inputs = self.pipeline.inputs(0, 1)
    batch = jax.eval_shape(self.pipeline.batch, inputs, jnp.int32(0))
    state = step_lib.init_state(self.trainer, batch)
    return step_lib.add_extra(self.trainer, state)

  @functools.cache  # noqa: B019
  def call(self, num_steps=1):
    """(compiled program, initial state on the host)."""
    call = step_lib.make_train_call(self.trainer, self.pipeline, num_steps)
    inputs = self.pipeline.inputs(0, num_steps)
    with _QUICKLY() if self.quick else contextlib.nullcontext():
      state = self.state()
      return call.lower(state, inputs).compile(), jax.device_get(state)

  def run(self, num_calls, *, steps_per_call=1):
    """(state, metrics [steps]) on the host, after each call from the first."""
    call, state = self.call(steps_per_call)
    state = mesh_lib.replicate(state, self.trainer.mesh)
    states, rows = [], []
    for i in range(num_calls):
      inputs = self.pipeline.inputs(i * steps_per_call, steps_per_call)
      state, metrics = call(state, inputs)
      # A copy: what is donated next may be a view of the same memory.
      states.append(jax.tree.map(np.array, jax.device_get(state)))
      rows.append(jax.device_get(metrics))
    return states, jax.tree.map(lambda *x: np.concatenate(x), *rows)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Breaking(paws.Paws):
  """A method whose loss, or its gradient alone, is NaN at one step."""

  kind: str
  at: int

  def loss(self, params, batch_stats, extra, batch, *, step, key):
    output = super().loss(params, batch_stats, extra, batch, step=step, key=key)
    loss, now = output.loss, step == self.at
    if self.kind == "loss":
      loss = loss * jnp.where(now, jnp.nan, 1)
    else:
      # The root of zero: its value is zero, and its slope infinite.
      # A loss belongs to all devices, the parameters here to one.
      zero = 0 * sum(jnp.sum(leaf) for leaf in jax.tree.leaves(params))
      zero = jax.lax.pmean(zero, mesh_lib.AXES)
      loss += jnp.sqrt(jnp.where(now, zero, 1)) - jnp.where(now, 0, 1)
    metrics = output.metrics | {"loss": loss}
    return output._replace(loss=loss, metrics=metrics)


@functools.cache
def make_setup(
  num_devices,
  *,
  conv=True,
  prediction=False,
  dtype=jnp.float32,
  images_per_class=2,
  peak_lr=0.05,
  num_groups=1,
  breaks=None,
  broken_step=None,
  quick=True,
  observed=False,
):
  """A run on the first devices; 10 supports by default."""
  group_size = num_devices // num_groups
  mesh = mesh_lib.make_mesh(
    jax.devices()[:num_devices], bn_group_size=group_size
  )
  images, labels = _images()
  index = sampling.label_index(
    np.arange(20), labels, class_names=tuple("abcde")
  )
  encoder = make_encoder(
    prediction=prediction,
    conv=conv,
    dtype=dtype,
    **mesh_lib.batch_norm_axes(0 if num_groups == 1 else group_size),
  )
  method = methods.create(
    METHOD,
    encoder=encoder,
    label_smoothing=0.1,
    axis_name=mesh_lib.AXES,
  )
  if breaks in ("loss", "gradient"):
    fields = {
      field.name: getattr(method, field.name)
      for field in dataclasses.fields(method)
    }
    method = Breaking(**fields, kind=breaks, at=broken_step)
  schedule = optim.warmup_cosine(
    start_lr=peak_lr / 4,
    peak_lr=peak_lr,
    final_lr=peak_lr / 10,
    warmup_steps=2,
    total_steps=50,
  )
  if breaks == "update":
    good = schedule
    schedule = lambda step: jnp.where(step == broken_step, jnp.nan, good(step))  # noqa: E731
  optimizer = optim.sgd(
    schedule, weight_decay=1e-4, momentum=0.9, nesterov=False
  )
  return Setup(
    trainer=state_lib.Trainer(
      method=method,
      optimizer=optimizer,
      schedule=schedule,
      views=views_lib.step_views(method, VIEWS),
      num_support_views=1,
      seed=7,
      mesh=mesh,
      observe=optim.observer(dict(BASE.optim)) if observed else None,
    ),
    pipeline=memory_pipeline.InMemory(
      images,
      index,
      support=config_lib.Support(
        **dict(BASE.support)
        | {
          "classes_per_step": NUM_CLASSES,
          "images_per_class": images_per_class,
        }
      ),
      batch_size=BATCH,
      seed=7,
      mesh=mesh,
    ),
    quick=quick,
  )


def _assert_close(actual, expected, rtol):
  """Leaves agree relative to each one's largest magnitude."""
  for (path, a), b in zip(
    jax.tree.leaves_with_path(actual), jax.tree.leaves(expected), strict=True
  ):
    a, b = np.asarray(a), np.asarray(b)
    assert a.shape == b.shape
    np.testing.assert_allclose(
      a,
      b,
      rtol=0,
      atol=rtol * max(np.abs(b).max(), 1e-3),
      err_msg=jax.tree_util.keystr(path),
    )


def _plain_steps(num_steps, *, dtype):
  """The steps of `make_setup(1, prediction=True)`, written out plainly."""
  setup = make_setup(1, prediction=True, dtype=dtype)
  trainer, pipeline = setup.trainer, setup.pipeline
  method = methods.create(
    METHOD,
    encoder=make_encoder(prediction=True, dtype=dtype),
    label_smoothing=0.1,
  )

  @jax.jit
  def step_of(params, stats, opt_state, views, step):
    def loss_of(params):
      output = method.loss(params, stats, {}, views, step=step, key=None)
      return output.loss, output.batch_stats

    (loss, stats), grads = jax.value_and_grad(loss_of, has_aux=True)(params)
    updates, opt_state = trainer.optimizer.update(grads, opt_state, params)
    params = optax.apply_updates(params, updates)
    return params, stats, opt_state, loss, optax.tree.norm(grads)

  @jax.jit
  def views_of(inputs, step):
    return views_lib.make_views(
      pipeline.batch(inputs, step),
      seed=7,
      step=step,
      views=views_lib.step_views(method, VIEWS),
      num_support_views=1,
    )

  _, state = setup.call()
  carried = state.params, state.batch_stats, state.opt_state
  losses = []
  with _QUICKLY():
    for step in range(num_steps):
      inputs = pipeline.inputs(step, 1)
      views = views_of(inputs, jnp.int32(step))
      *carried, loss, grad_norm = step_of(*carried, views, jnp.int32(step))
      losses.append((loss, grad_norm))
  return carried, np.array(losses)


@pytest.mark.slow
def test_a_step_equals_one_written_out_for_one_device():
  with jax.enable_x64(True):
    setup = make_setup(4, prediction=True, dtype=jnp.float64)
    states, metrics = setup.run(3)
    expected, losses = _plain_steps(3, dtype=jnp.float64)
  final = states[-1]
  actual = (final.params, final.batch_stats, final.opt_state)
  _assert_close(actual, tuple(expected), 1e-9)
  _assert_close(metrics["loss"], losses[:, 0], 1e-9)
  _assert_close(metrics["grad_norm"], losses[:, 1], 1e-9)
  assert final.step == 3


# On two devices every method is tried in tests/methods/laws_test.py.
@pytest.mark.slow
@pytest.mark.parametrize("num_devices", [4, 8])
def test_three_steps_do_not_depend_on_the_devices_in_float64(num_devices):
  # 10 supports: 4 devices hold 2 rows of padding, 8 devices 6.
  with jax.enable_x64(True):
    expected, one = _float64_run(1)
    actual, many = _float64_run(num_devices)
  assert many["loss"].dtype == np.float64
  _assert_close(actual[-1], expected[-1], 1e-9)
  _assert_close(many, one, 1e-9)


@pytest.mark.slow
def test_half_a_row_of_padding_for_each_device_changes_nothing():
  # 105 supports on 2 devices are 52.5 for each, as 6,720 are on 128.
  settings = {"images_per_class": 21, "dtype": jnp.float64}
  with jax.enable_x64(True):
    expected, one = make_setup(1, **settings).run(3)
    actual, two = make_setup(2, **settings).run(3)
  _assert_close(actual[-1], expected[-1], 1e-9)
  _assert_close(two, one, 1e-9)


def _float64_run(num_devices):
  return make_setup(num_devices, prediction=True, dtype=jnp.float64).run(3)


@pytest.mark.slow
def test_three_steps_do_not_depend_on_the_devices_in_float32():
  # Optimized, as users' programs are.
  settings = {"prediction": True, "peak_lr": 0.01, "quick": False}
  expected, one = make_setup(1, **settings).run(3)
  actual, many = make_setup(4, **settings).run(3)
  _assert_close(actual[-1].params, expected[-1].params, 1e-4)
  _assert_close(actual[-1].batch_stats, expected[-1].batch_stats, 1e-4)
  _assert_close(many, one, 1e-4)


@pytest.mark.slow
def test_two_batch_norm_groups_give_the_same_on_two_and_four_devices():
  settings = {"images_per_class": 4, "num_groups": 2, "dtype": jnp.float64}
  with jax.enable_x64(True):
    expected, two = make_setup(2, **settings).run(2)
    actual, four = make_setup(4, **settings).run(2)
    _, ungrouped = make_setup(4, **settings | {"num_groups": 1}).run(2)
  _assert_close(actual[-1], expected[-1], 1e-9)
  _assert_close(four, two, 1e-9)
  assert abs(ungrouped["loss"][0] - four["loss"][0]) > 1e-3


def test_a_scan_of_steps_equals_single_steps():
  single, single_metrics = make_setup(2, conv=False).run(8)
  scanned, scanned_metrics = make_setup(2, conv=False).run(2, steps_per_call=4)
  # Eight steps of two an epoch: the scan runs over borders of epochs.
  assert make_setup(2, conv=False).pipeline.steps_per_epoch == 2
  _assert_close(scanned[0], single[3], 1e-6)
  _assert_close(scanned[1], single[7], 1e-6)
  _assert_close(scanned_metrics, single_metrics, 1e-6)
  assert np.all(np.diff(single_metrics["loss"]) != 0)
  np.testing.assert_allclose(
    single_metrics["learning_rate"],
    jax.vmap(make_setup(2, conv=False).trainer.schedule)(jnp.arange(8)),
    rtol=1e-6,
  )


def test_the_state_that_goes_in_is_donated():
  setup = make_setup(2, conv=False)
  call, state = setup.call()
  state = mesh_lib.replicate(state, setup.trainer.mesh)
  call(state, setup.pipeline.inputs(0, 1))
  assert all(leaf.is_deleted() for leaf in jax.tree.leaves(state))


def test_training_from_random_weights_does_not_collapse():
  setup = make_setup(2, conv=False)
  states, metrics = setup.run(25, steps_per_call=4)
  # At collapse all predictions are uniform, so are the targets.
  assert metrics["target_confidence"][-20:].mean() > 2 / NUM_CLASSES
  assert metrics["me_max_kl"][-20:].mean() < 0.3
  images, labels = _images()
  crops = (images[:, 1:9, 1:9] / 255 - 0.5) / 0.25
  encoder = make_encoder(conv=False)
  _, z = encoder.apply(
    {"params": states[-1].params, "batch_stats": states[-1].batch_stats},
    crops,
    train=False,
  )
  z = np.asarray(z / jnp.linalg.norm(z, axis=-1, keepdims=True))
  assert z.std(axis=0).mean() > 0.1
  # Classes lie apart: the means of two are further than rows of one.
  means = np.stack([z[labels == k].mean(0) for k in range(NUM_CLASSES)])
  within = np.linalg.norm(z - means[labels], axis=-1).mean()
  between = np.linalg.norm(means[:, None] - means[None], axis=-1)
  assert between[np.triu_indices(NUM_CLASSES, 1)].min() > within


_COLLECTIVE = re.compile(
  r" = (?P<shape>\(.*?\)|\S+) (?P<kind>all-gather|all-reduce|reduce-scatter|"
  r"collective-permute|all-to-all|collective-broadcast)(-start)?\("
)


def _collectives(setup, num_steps=1):
  """Shapes of the collectives in the compiled program, by kind."""
  found = collections.defaultdict(list)
  for match in _COLLECTIVE.finditer(setup.call(num_steps)[0].as_text()):
    found[match["kind"]].append(match["shape"])
  return dict(found)


@pytest.mark.slow
@pytest.mark.parametrize("prediction", [True, False])
def test_the_only_gather_is_that_of_the_support_embeddings(prediction):
  found = _collectives(
    make_setup(4, prediction=prediction, peak_lr=0.01, quick=False)
  )
  # Ten supports padded to twelve, three on each device; h and z are one
  # gather.
  each = "6,8" if prediction else "3,8"
  # XLA may spread the twelve padded ids and gather them again: 48 bytes.
  gathered = [g for g in found.pop("all-gather") if not g.startswith("s32[12]")]
  assert len(gathered) == 1, gathered
  assert gathered[0].startswith(f"f32[4,{each}]")
  (scattered,) = found.pop("reduce-scatter")
  # Only z has a gradient.
  assert scattered.startswith("f32[3,8]")
  # BatchNorm's sums, forward and backward; me-max; metrics; gradients.
  assert len(found.pop("all-reduce")) <= MAX_ALL_REDUCES[prediction]
  assert not found


@pytest.mark.slow
def test_trust_ratios_are_reported_and_move_nothing_between_devices():
  plain, observed = (
    make_setup(2, conv=False, observed=observed) for observed in (False, True)
  )
  states, metrics = observed.run(2)
  low, middle, high = (
    metrics[f"trust_ratio_{name}"] for name in ("min", "median", "max")
  )
  assert np.all((low > 0) & (low < middle) & (middle < high) & (high < 1))
  # Watching changes nothing, and costs no collective.
  expected, without = plain.run(2)
  assert not any("trust" in name for name in without)
  _assert_close(states[-1], expected[-1], 1e-6)
  count = {k: len(v) for k, v in _collectives(plain).items()}
  assert {k: len(v) for k, v in _collectives(observed).items()} == count


def test_the_size_of_the_weights_is_reported():
  setup = make_setup(2, conv=False)
  _, first = setup.call()
  _, metrics = setup.run(1)
  np.testing.assert_allclose(
    metrics["param_norm"][0], float(optax.tree.norm(first.params)), rtol=1e-5
  )


def test_a_scan_has_the_collectives_of_one_step():
  setup = make_setup(2, conv=False)
  count = {k: len(v) for k, v in _collectives(setup).items()}
  assert {k: len(v) for k, v in _collectives(setup, 4).items()} == count


@pytest.mark.parametrize(
  ("breaks", "steps_per_call"),
  [
    ("loss", 4),
    pytest.param("gradient", 1, marks=pytest.mark.slow),
    pytest.param("update", 1, marks=pytest.mark.slow),
  ],
)
def test_the_state_before_a_number_that_is_not_finite_is_kept(
  breaks, steps_per_call
):
  setup = make_setup(2, conv=False, breaks=breaks, broken_step=2)
  states, metrics = setup.run(
    8 // steps_per_call, steps_per_call=steps_per_call
  )
  good, _ = make_setup(2, conv=False).run(2)
  for state in states[2 // steps_per_call :]:
    assert not state.finite
    assert state.step == 2
    _assert_close(state.replace(finite=good[1].finite), good[1], 1e-6)
  name = {"loss": "loss", "gradient": "grad_norm", "update": "update_norm"}
  assert np.isfinite(metrics[name[breaks]][:2]).all()
  assert not np.isfinite(metrics[name[breaks]][2])


class FakePipeline:
  def __init__(self, fails_at=None):
    self._fails_at = fails_at

  def inputs(self, first_step, num_steps, *, busy):
    del busy
    if first_step == self._fails_at:
      raise ValueError("an image cannot be read")
    return (first_step, num_steps)


class Loop:
  """Runs `loop.loop` on a program that counts, and notes what happens."""

  def __init__(self, *, bad=None, stop_at=None, fails_at=None):
    self._pipeline = FakePipeline(fails_at)
    self.events = []
    self.logged = {}
    self._bad = bad
    self._stop_at = stop_at
    self._step = 0

  def _call(self, state, inputs):
    first, count = inputs
    assert state == first
    self.events.append(("call", first))
    self._step = first + count
    steps = np.arange(first, first + count, dtype=float)
    metrics = {"loss": 1 / (1 + steps), "grad_norm": 1 + steps}
    metrics["update_norm"] = steps
    if self._bad is not None:
      name, step = self._bad
      # From the bad step on, as in a real run.
      metrics[name] = np.where(steps >= step, np.nan, metrics[name])
    return state + count, metrics

  def _log(self, step, metrics):
    self.events.append(("log", step))
    count = len(metrics["loss"])
    for i, at in enumerate(range(step - count, step)):
      assert at not in self.logged
      self.logged[at] = metrics["grad_norm"][i]

  def run(
    self, total_steps, *, steps_per_call=1, first_step=0, breaks=(), **every
  ):
    def note(name):
      def hook(state, step, *_):
        self.events.append((name, step))
        if (name, step) in breaks:
          raise ValueError("an image cannot be read")

      return hook

    def epoch_end(state, step):
      note("epoch_end")(state, step)
      return state

    return loop.loop(
      self._call,
      first_step,
      self._pipeline,
      first_step=first_step,
      total_steps=total_steps,
      every=loop.Intervals(
        per_call=steps_per_call,
        evaluate=every.get("eval_every", 0),
        save=every.get("save_every", 0),
        epoch=every.get("epoch_steps", 0),
        within_epoch=every.get("within_epoch", ()),
      ),
      epoch_due=every.get("epoch_due", first_step == 0),
      hooks=loop.Hooks(
        log=self._log,
        evaluate=note("evaluate"),
        save=note("save"),
        rescue=note("rescue"),
        stopping=lambda: (
          self._stop_at is not None and self._step >= self._stop_at
        ),
        not_finite=note("not_finite"),
        epoch_end=epoch_end,
      ),
    )

  def steps(self, name):
    return [step for event, step in self.events if event == name]


def test_epochs_end_before_the_state_is_used_or_saved():
  run = Loop()
  run.run(6, steps_per_call=2, epoch_steps=4, save_every=4, eval_every=4)
  assert run.events == [
    ("epoch_end", 0),
    ("call", 0),
    ("call", 2),
    ("log", 2),
    ("log", 4),
    ("epoch_end", 4),
    ("evaluate", 4),
    ("save", 4),
    ("call", 4),
    ("log", 6),
    ("evaluate", 6),
    ("save", 6),
  ]


def test_a_resumed_run_does_not_repeat_the_end_of_an_epoch():
  run = Loop()
  run.run(8, first_step=4, epoch_steps=4)
  assert run.steps("epoch_end") == [8]


def test_parts_of_epochs_of_an_odd_number_of_steps_end_where_they_should():
  run = Loop()
  run.run(15, epoch_steps=5, within_epoch=(2,))
  assert run.steps("epoch_end") == [0, 2, 5, 7, 10, 12, 15]
  # A run that resumes within an epoch goes on with the same steps.
  run = Loop()
  run.run(15, first_step=7, epoch_steps=5, within_epoch=(2,))
  assert run.steps("epoch_end") == [10, 12, 15]


def test_an_epoch_end_that_fails_loses_no_step():
  run = Loop()
  with pytest.raises(ValueError, match="cannot be read"):
    run.run(8, epoch_steps=4, breaks=[("epoch_end", 4)])
  assert run.steps("rescue") == [4]
  assert not run.steps("save")
  # What has not been done is done by the next run.
  run = Loop()
  run.run(8, first_step=4, epoch_steps=4, epoch_due=True)
  assert run.steps("epoch_end") == [4, 8]


def test_images_that_cannot_be_read_after_an_epoch_lose_no_step():
  run = Loop(fails_at=4)
  with pytest.raises(ValueError, match="cannot be read"):
    run.run(8, epoch_steps=4)
  assert run.steps("rescue") == [4]


def test_metrics_are_delivered_one_call_late_and_exactly_once():
  run = Loop()
  assert run.run(6, steps_per_call=2) == 6
  assert run.events == [
    ("call", 0),
    ("call", 2),
    ("log", 2),
    ("call", 4),
    ("log", 4),
    ("log", 6),
    ("evaluate", 6),
    ("save", 6),
  ]
  assert run.logged == {step: 1 + step for step in range(6)}


def test_hooks_run_at_their_steps_once_the_metrics_are_in():
  run = Loop()
  run.run(12, steps_per_call=2, eval_every=4, save_every=6)
  assert run.steps("evaluate") == [4, 8, 12]
  assert run.steps("save") == [6, 12]
  for name in ("evaluate", "save"):
    for step in run.steps(name):
      assert run.events.index(("log", step)) < run.events.index((name, step))
  assert sorted(run.logged) == list(range(12))
  assert run.steps("log") == [2, 4, 6, 8, 10, 12]


def test_a_resumed_loop_starts_at_its_step():
  run = Loop()
  assert run.run(7, first_step=3, save_every=4) == 7
  assert run.steps("call") == [3, 4, 5, 6]
  assert run.steps("save") == [4, 7]
  assert sorted(run.logged) == [3, 4, 5, 6]


def test_a_loop_that_is_asked_to_stop_delivers_saves_and_returns():
  run = Loop(stop_at=4)
  assert run.run(100, steps_per_call=2, save_every=50) == 4
  assert run.events[-2:] == [("log", 4), ("save", 4)]
  assert run.steps("evaluate") == []
  assert sorted(run.logged) == [0, 1, 2, 3]


@pytest.mark.parametrize("save_every", [0, 4, 6])
def test_images_that_cannot_be_read_lose_no_step(save_every):
  run = Loop(fails_at=6)
  with pytest.raises(ValueError, match="cannot be read"):
    run.run(12, steps_per_call=2, save_every=save_every)
  # Saved once, with all metrics, and nothing after it.
  kind = "save" if save_every == 6 else "rescue"
  assert run.events[-1] == (kind, 6)
  assert (run.steps("save") + run.steps("rescue")).count(6) == 1
  assert sorted(run.logged) == list(range(6))
  # At the very start there is nothing to save.
  run = Loop(fails_at=0)
  with pytest.raises(ValueError, match="cannot be read"):
    run.run(12)
  assert run.events == []


@pytest.mark.parametrize("save_every", [0, 4])
def test_an_evaluation_that_fails_loses_no_step(save_every):
  run = Loop()
  with pytest.raises(ValueError, match="cannot be read"):
    run.run(12, eval_every=4, save_every=save_every, breaks=[("evaluate", 4)])
  assert run.events[-2:] == [("evaluate", 4), ("rescue", 4)]


def test_whether_the_device_is_busy_is_asked_of_the_last_call():
  class Metric:
    ready = False

    def is_ready(self):
      return self.ready

  metric = Metric()
  assert not loop._busy(None)()
  busy = loop._busy((3, {"loss": metric}, None))
  assert busy()
  metric.ready = True
  assert not busy()


def test_a_finished_run_takes_no_step():
  run = Loop()
  assert run.run(8, first_step=8) == 8
  assert run.events == []


@pytest.mark.parametrize("name", ["loss", "grad_norm", "update_norm"])
@pytest.mark.parametrize(
  ("bad_step", "num_calls"), [(0, 2), (1, 2), (3, 2), (5, 2), (6, 4), (11, 4)]
)
def test_a_number_that_is_not_finite_stops_the_loop(name, bad_step, num_calls):
  run = Loop(bad=(name, bad_step))
  with pytest.raises(
    errors.NonFiniteError, match=rf"^{name} is nan at step {bad_step}\."
  ):
    run.run(12, steps_per_call=3, save_every=6)
  # One call late, but before the state would be saved after every second.
  assert len(run.steps("call")) == num_calls
  assert run.steps("not_finite") == [bad_step]
  assert sorted(run.logged) == list(range(bad_step))
  assert all(step <= bad_step for step in run.steps("save"))
