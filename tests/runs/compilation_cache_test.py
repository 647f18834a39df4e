"""Compiled programs are kept where asked, and found again."""

import shutil
import subprocess
import sys
import types

import jax
import pytest

from paws_jax.runs import compilation_cache

# Prints how many programs came out of the cache.
SCRIPT = """
import sys
import jax
from jax import monitoring
from paws_jax.runs import compilation_cache

hits = []
monitoring.register_event_listener(
  lambda name, **_: hits.append(name) if name.endswith("/cache_hits") else None
)
compilation_cache.enable(sys.argv[1])
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0)
jax.jit(lambda x: x * 2 + 1)(jax.numpy.ones(3)).block_until_ready()
print(len(hits))
"""


@pytest.fixture(autouse=True)
def restore():
  names = (
    "jax_compilation_cache_dir",
    "jax_persistent_cache_min_compile_time_secs",
  )
  before = {name: getattr(jax.config, name) for name in names}
  yield
  for name, value in before.items():
    jax.config.update(name, value)


def _hits(directory):
  return int(
    subprocess.run(
      [sys.executable, "-c", SCRIPT, str(directory)],
      capture_output=True,
      text=True,
      check=True,
    ).stdout
  )


def test_a_second_process_need_not_compile(tmp_path):
  assert _hits(tmp_path / "cache") == 0
  assert _hits(tmp_path / "cache") > 0
  assert _hits(tmp_path / "other") == 0


def test_the_directory_is_a_matter_of_flag_variable_and_default(
  tmp_path, monkeypatch
):
  monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
  monkeypatch.delenv(compilation_cache.VARIABLE, raising=False)
  default = compilation_cache.enable()
  assert default.startswith(str(tmp_path / "paws_jax"))
  monkeypatch.setenv(compilation_cache.VARIABLE, str(tmp_path / "variable"))
  assert compilation_cache.enable() == str(tmp_path / "variable")
  assert compilation_cache.enable(str(tmp_path / "x")) == str(tmp_path / "x")
  assert jax.config.jax_compilation_cache_dir == str(tmp_path / "x")
  assert compilation_cache.enable("") == ""
  assert jax.config.jax_compilation_cache_dir is None


def test_a_directory_that_cannot_be_made_is_said(tmp_path, capsys):
  (tmp_path / "file").write_text("")
  assert compilation_cache.enable(str(tmp_path / "file" / "below")) == ""
  assert "not kept" in capsys.readouterr().out


def test_seconds_that_the_variable_asks_for_are_kept(monkeypatch):
  name = "jax_persistent_cache_min_compile_time_secs"
  monkeypatch.delenv(name.upper(), raising=False)
  jax.config.update(name, 7.0)
  compilation_cache.enable("")
  assert getattr(jax.config, name) == 0.5
  # As JAX does when it is imported with the variable.
  monkeypatch.setenv(name.upper(), "7")
  jax.config.update(name, 7.0)
  compilation_cache.enable("")
  assert getattr(jax.config, name) == 7.0


def test_nothing_is_added_to_a_full_disk(tmp_path, monkeypatch, capsys):
  """JAX would keep the half of a program, and warn of it at every start."""
  name = "jax_persistent_cache_min_compile_time_secs"
  monkeypatch.setattr(
    shutil, "disk_usage", lambda path: types.SimpleNamespace(free=10**6)
  )
  assert compilation_cache.enable(str(tmp_path)) == str(tmp_path)
  assert getattr(jax.config, name) == float("inf")
  assert "is on a full disk" in capsys.readouterr().out
