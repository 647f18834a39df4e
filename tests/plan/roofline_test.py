"""From costs to a verdict: fits or not, how fast at most, what to change."""

import types

import numpy as np
import pytest

from paws_jax.plan import chips
from paws_jax.plan import hlo
from paws_jax.plan import roofline

_GIB = 2**30
_TARGET = chips.parse("v5e:2x2")


def _train(**changes):
  fields = {"batch_size": 256, "epochs": 36, "minutes": 0.0, "remat": "none"}
  fields |= {"chunks": 1, "steps_per_call": 1}
  return types.SimpleNamespace(**(fields | changes))


def _trainer(allows_chunks=True):
  config = types.SimpleNamespace(allows_chunks=allows_chunks)
  return types.SimpleNamespace(
    mesh=types.SimpleNamespace(size=4),
    method=types.SimpleNamespace(config=config),
  )


def _step(**changes):
  """What `assess` asks of an `abstract_step.Step`."""
  params = {"w": np.zeros(2**20, np.float32)}
  fields = {
    "dataset": types.SimpleNamespace(in_memory=False, name="toy"),
    "batch": {"image": np.zeros(4 * 2**20, np.uint8)},
    "state": types.SimpleNamespace(params=params),
    "pipeline": types.SimpleNamespace(steps_per_epoch=100),
    "trainer": _trainer(),
    "train": _train(),
    "images_per_step": 256,
    "num_supports": 420,
    "host_bytes": 0,
  }
  return types.SimpleNamespace(**(fields | changes))


@pytest.fixture(autouse=True)
def a_state_of_4_mib(monkeypatch):
  sizes = roofline.memory.num_bytes
  monkeypatch.setattr(
    roofline.memory,
    "num_bytes",
    lambda t: sizes(vars(t) if hasattr(t, "params") else t),
  )


def _costs(**changes):
  reduced = hlo.Collective("all-reduce", 4 * 10**6, {}, 4, "")
  fields = {
    "method": "compiled at level O1",
    "peak_bytes": 11 * _GIB,
    "argument_bytes": _GIB,
    "temporary_bytes": 10 * _GIB,
    "flops": 197e12 * 0.05,
    "bytes_accessed": 819e9 * 0.1,
    "collectives": [reduced],
  }
  return roofline.StepCosts(**(fields | changes))


def _assess(step=None, **changes):
  return roofline.assess(step or _step(), _TARGET, _costs(**changes))


def test_the_slowest_of_three_is_the_bound():
  plan = _assess()
  assert plan["step_seconds_by_limit"] == {
    "arithmetic": pytest.approx(0.05),
    "memory": pytest.approx(0.1),
    # A ring sends 3/4 of it twice, at 200 GB/s.
    "interconnect": pytest.approx(6e6 / 200e9),
  }
  assert plan["limited_by"] == "memory"
  assert plan["images_per_second_bound"] == pytest.approx(2560)
  # 36 epochs of 100 steps of a tenth of a second.
  assert plan["hours_bound"] == pytest.approx(0.1)
  assert _assess(flops=197e12)["limited_by"] == "arithmetic"
  many = [hlo.Collective("all-gather", 8 * 10**11, {}, 4, "")]
  assert _assess(collectives=many)["step_seconds_bound"] == pytest.approx(3)


def test_batches_that_wait_need_room_too():
  usable = _TARGET.chip.usable_bytes
  # Two of a MiB on each device.
  waiting = 2 * 2**20
  assert _assess(peak_bytes=usable - waiting)["fits"]
  assert not _assess(peak_bytes=usable - waiting + 1)["fits"]
  assert _assess()["waiting_batches_bytes"] == waiting
  there = _step(dataset=types.SimpleNamespace(in_memory=True, name="toy"))
  assert _assess(there, peak_bytes=usable)["fits"]


def test_canvases_may_be_in_the_hosts_memory(capsys):
  step = _step(host_bytes=3 * 2**20, train=_train(chunks=4))
  costs = _costs(host_bytes_read=2**21)
  plan = roofline.assess(step, _TARGET, costs)
  # A quarter of a MiB of the batch of each device waits on it, twice.
  assert plan["waiting_batches_bytes"] == 2 * 2**18
  assert plan["image_bytes_from_host"] == 2**18 + 2**21
  # Two batches in use, and two that wait.
  assert plan["host_memory_bytes"] == 4 * 3 * 2**18
  roofline.print_plan(plan, _TARGET)
  text = capsys.readouterr().out
  assert "in the host's memory 3 MiB of canvases for each device" in text


def test_what_fits_needs_no_advice():
  plan = _assess()
  assert plan["fits"]
  assert plan["advice"] == []
  assert plan["collectives"] == {"all-reduce": {"count": 1, "bytes": 4000000}}


def test_advice_has_numbers():
  plan = _assess(peak_bytes=30 * _GIB)
  assert not plan["fits"]
  remat, chunks, smaller, larger = plan["advice"]
  assert "train.remat=dots" in remat
  assert "train.chunks=auto" in chunks
  # About half of what there was fits, in fours.
  assert "train.batch_size=124 (now 256) with 209 supports (now 420" in smaller
  assert larger.endswith("--machine=v5e:4x4")
  computed = _train(remat="all")
  _, line = _assess(_step(train=computed), peak_bytes=2**40)["advice"]
  assert line.startswith("lower train.batch_size or support.images_per_class")
  # With chunks, the batch is not what takes the memory.
  chunked = _step(train=_train(remat="all", chunks=8))
  more, larger = _assess(chunked, peak_bytes=30 * _GIB)["advice"]
  assert "train.chunks=16 encodes half as many" in more
  assert "--machine=" in larger
  # A method without chunks is not given any.
  plan = _assess(_step(trainer=_trainer(False)), peak_bytes=30 * _GIB)
  assert len(plan["advice"]) == 3
  assert not any("chunks" in line for line in plan["advice"])


def test_a_state_that_does_not_fit_by_itself():
  params = {"w": np.broadcast_to(np.float32(0), (2**32,))}
  (line,) = _assess(
    _step(state=types.SimpleNamespace(params=params)), peak_bytes=60 * _GIB
  )["advice"]
  assert "state and gradients alone take 48.00 GiB" in line


def test_what_the_compiler_gave_up_on():
  plan = _assess(
    peak_bytes=None,
    argument_bytes=None,
    temporary_bytes=None,
    bytes_accessed=None,
    collectives=None,
    too_large=True,
  )
  assert not plan["fits"]
  assert plan["peak_memory_bytes"] is None
  assert plan["images_per_second_bound"] is None
  assert plan["collectives"] == {}
  assert "lower train.batch_size" in plan["advice"][-1]
  # Whatever number it gave up at.
  assert not _assess(peak_bytes=_GIB, too_large=True)["fits"]


def _printed(capsys, plan, target=_TARGET):
  roofline.print_plan(plan, target)
  return capsys.readouterr().out


def test_what_is_printed(capsys):
  text = _printed(capsys, _assess())
  for words in (
    "Memory of each chip (compiled at level O1)",
    "usable 15.75 GiB of 16.00 GiB",
    "needed 11.00 GiB, and 2 MiB of batches that wait: it fits",
    "a low level gives an upper bound",
    "memory: 81.9 GB, 100 ms (the limit)",
    "all-reduce: 1, in all 4 MB",
    "at most 2,560 images/s on all; 36 epochs of 100 steps (3,600) take",
    "not measurements",
  ):
    assert words in text
  text = _printed(capsys, _assess(method="compiled at level O2"))
  assert "upper bound" not in text
  assert "What to change" not in text


def test_the_epochs_that_fit_in_minutes_are_a_bound(capsys):
  plan = _assess(_step(train=_train(epochs=0, minutes=1.0)))
  # Of 60 seconds, 100 steps take ten.
  assert plan["epochs"] == 6
  text = _printed(capsys, plan)
  assert "in 1 minutes at most 6 epochs of 100 steps (600) fit" in text


def test_what_is_printed_of_what_does_not_fit(capsys):
  text = _printed(capsys, _assess(peak_bytes=30 * _GIB))
  assert "needed 30.00 GiB, and 2 MiB of batches that wait: it DOES NOT" in text
  assert "What to change\n" in text
  plan = _assess(
    peak_bytes=None, argument_bytes=None, collectives=None, too_large=True
  )
  text = _printed(capsys, plan)
  assert "needed more than there is: it DOES NOT FIT" in text
  assert "images/s" not in text


def test_gpus_of_several_machines_are_warned_of(capsys):
  for name, warned in (("h100:8", False), ("h100:16", True)):
    target = chips.parse(name)
    plan = roofline.assess(_step(), target, _costs())
    assert ("several machines" in _printed(capsys, plan, target)) == warned
