"""What benchmarks measure time with."""

import contextlib
import re

import jax
import numpy as np

from benchmarks import timing

_NUMBER = r"[0-9.]+"


def test_sides_take_turns(monkeypatch):
  clock = [0.0]
  monkeypatch.setattr(timing.time, "perf_counter", lambda: clock[0])
  calls = []

  def side(name, seconds, at_least):
    def run(num_steps):
      taken = max(num_steps, at_least)
      calls.append((name, num_steps))
      clock[0] += seconds * taken
      return taken

    return run

  sides = {"a": side("a", 0.5, 1), "b": side("b", 2.0, 4)}
  found = timing.in_turns(sides, windows=2, steps=3, warmup=1)
  assert calls == [("a", 1), ("b", 1), *[("a", 3), ("b", 3)] * 2]
  # By the steps that were taken, not by those asked for.
  assert found == {"a": [0.5, 0.5], "b": [2.0, 2.0]}
  assert timing.ratio(found["a"], found["b"]) == 4.0
  without = timing.in_turns(sides, windows=1, steps=3, warmup=0)
  assert calls[-2:] == [("a", 3), ("b", 3)]
  assert without == {"a": [0.5], "b": [2.0]}


def test_spread():
  spread = timing.spread([0.4, 0.1, 0.2])
  assert spread == "seconds per step 0.2, windows 0.1 to 0.4"


def test_efficiency_counts_the_work_of_a_device():
  one, many = [4.0, 3.0, 5.0], [4.0, 5.0, 4.0]
  assert timing.efficiency(one, many, work=1.0) == 1.0
  # As fast with three quarters of the work on each device.
  assert timing.efficiency(one, many, work=0.75) == 0.75
  assert timing.efficiency(one, [8.0], work=0.75) == 0.375


def test_choose():
  plain = [1.0, 1.2, 1.1]
  sides = {1: plain, 4: [0.9, 0.8, 0.7], 16: [0.8, 0.85, 1.3]}
  assert timing.choose(sides, default=1) == 4
  # The fastest by its median, but a window of it is slower than one of 1.
  sides[4] = [0.5, 0.5, 1.05]
  assert timing.choose(sides, default=1) == 1
  assert timing.choose({1: [0.4], 4: [0.5]}, default=1) == 1
  # Another is surely faster than 1, if not as fast as that one seems.
  sides = {1: plain, 4: [0.5, 0.6, 0.55], 16: [0.4, 0.4, 1.1]}
  assert timing.choose(sides, default=1) == 4


def test_what_compiles_soon_is_kept_on_disk(monkeypatch, tmp_path):
  directory = contextlib.nullcontext(str(tmp_path))
  monkeypatch.setattr(timing.tempfile, "TemporaryDirectory", lambda: directory)
  timing.compiled("triple", jax.jit(lambda x: 3 * x), np.ones(2))
  assert any(tmp_path.iterdir())


def test_compiling_leaves_the_cache_where_it_was(capsys):
  before = jax.config.jax_compilation_cache_dir
  seconds = jax.config.jax_persistent_cache_min_compile_time_secs
  program = timing.compiled("double", jax.jit(lambda x: 2 * x), np.ones(2))
  np.testing.assert_array_equal(program(np.ones(2)), [2.0, 2.0])
  assert jax.config.jax_compilation_cache_dir == before
  after = jax.config.jax_persistent_cache_min_compile_time_secs
  assert after == seconds
  line = rf"compile: double {_NUMBER} s, kept on disk {_NUMBER} s\n"
  assert re.fullmatch(line, capsys.readouterr().out)
