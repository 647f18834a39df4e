"""Times of steps and evaluations, on a clock that stands still."""

import types

import numpy as np
import pytest

from paws_jax.methods import base
from paws_jax.methods import class_prior
from paws_jax.training import step_times


class Clock:
  """A clock that stands still but when it is set."""

  def __init__(self):
    self.now = 100.0

  def perf_counter(self):
    return self.now


class Pipeline:
  """A pipeline whose batches take time, part of which devices wait."""

  def __init__(self, clock, seconds):
    self.clock, self.seconds = clock, seconds
    self.stall_seconds, self.closed, self.calls = 0.0, False, 0

  def input_shapes(self, count):
    return count

  def inputs(self, first_step, count, *, busy):
    assert first_step == self.calls * count
    del busy  # Nothing runs beside it here.
    self.calls += 1
    self.clock.now += self.seconds
    self.stall_seconds += self.seconds
    return count

  def close(self):
    self.closed = True


class Call:
  """A train step that takes three times as long at first."""

  def __init__(self, clock, seconds):
    self.clock, self.seconds, self.calls = clock, seconds, 0

  def lower(self, *_):
    return self

  def compile(self):
    self.clock.now += 60
    return self

  def __call__(self, state, count):
    self.calls += 1
    self.clock.now += self.seconds * (3 if self.calls <= 3 else 1)
    names = ("loss", "grad_norm", "update_norm")
    return state, {name: np.ones(count) for name in names}


@pytest.fixture
def clock(monkeypatch):
  made = Clock()
  monkeypatch.setattr(step_times, "time", made)
  return made


@pytest.fixture
def build(clock, monkeypatch):
  """A function that makes an experiment of given times."""

  def make(
    call=0.8,
    reading=0.2,
    evaluation=0.0,
    per_call=1,
    once=0.0,
    epoch_end=0.0,
    **fields,
  ):
    # What takes `once` longer the first time.
    seconds = [once, 0.0]

    def evaluate(*_):
      clock.now += evaluation + seconds.pop(0)
      return {}

    def end_epoch(experiment, state, step):
      clock.now += epoch_end + seconds.pop(0)
      return np.zeros(1)

    monkeypatch.setattr(step_times.epochs, "end_epoch", end_epoch)
    monkeypatch.setattr(
      step_times.intervals,
      "create",
      lambda _: types.SimpleNamespace(within_epoch=()),
    )

    judge = types.SimpleNamespace(
      monitored_accuracy=evaluate, pseudo_label_accuracy=lambda *_: {}
    )
    monkeypatch.setattr(step_times.evaluator, "Evaluator", lambda _: judge)
    train_call = Call(clock, call)
    extra = fields.get("extra", {})
    state = types.SimpleNamespace(extra=extra)
    monkeypatch.setattr(
      step_times.step_lib, "make_train_call", lambda *_: train_call
    )
    return types.SimpleNamespace(
      trainer=None,
      pipeline=Pipeline(clock, reading),
      train=types.SimpleNamespace(steps_per_call=per_call),
      eval=types.SimpleNamespace(every_steps=100 if evaluation else 0),
      initial_state=lambda *, warm: state,
      epoch_steps=7 if epoch_end else 0,
      features_of=fields.get("features_of"),
    )

  return make


@pytest.mark.parametrize("per_call", [1, 5])
def test_slow_first_steps_do_not_count(build, per_call):
  built = build(per_call=per_call)
  times = step_times.measure(built)
  assert times.compilation == pytest.approx(60)
  assert times.step == pytest.approx(1 / per_call)
  assert times.stall == pytest.approx(0.2)
  assert times.evaluation == 0
  assert built.pipeline.closed
  # Some seconds are enough.
  assert built.pipeline.calls < 15


def test_few_calls_are_enough_where_each_is_slow(build):
  built = build(call=500, reading=0)
  assert step_times.measure(built).step == pytest.approx(500)
  assert built.pipeline.calls <= 8


def test_an_evaluation_is_timed_again_if_it_is_fast(build):
  assert step_times.measure(build(evaluation=4)).evaluation == pytest.approx(4)


@pytest.mark.parametrize("kind", ["evaluation", "epoch_end"])
@pytest.mark.parametrize(
  ("fields", "expected"),
  [
    ({}, 104),
    # The first call embeds the images for all that follow.
    ({"features_of": (8, 8, 1)}, 4),
  ],
)
def test_what_is_done_once_does_not_count(build, kind, fields, expected):
  times = step_times.measure(build(**{kind: 4}, once=100, **fields))
  assert getattr(times, kind) == pytest.approx(expected)


def test_the_first_estimate_of_a_prior_does_not_count(build):
  facts = base.Facts(num_classes=2, labels=np.array([0, 1]))
  built = build(epoch_end=4, once=100, extra=class_prior.initial(facts))
  assert step_times.measure(built).epoch_end == pytest.approx(4)


@pytest.mark.parametrize(
  ("seconds", "expected"),
  [
    (0.0123, "12.3 ms"),
    (0.9994, "999 ms"),
    (0.9996, "1 s"),
    (1, "1 s"),
    (119, "119 s"),
    (120, "2 minutes"),
    (7199, "120 minutes"),
    (9000, "2.5 hours"),
    (1e6, "11.6 days"),
    (1e9, "11,574 days"),
  ],
)
def test_times_in_words(seconds, expected):
  assert step_times.in_words(seconds) == expected
