"""What environment.json says of a run."""

import json
import os

import jax

from paws_jax.runs import provenance


def test_environment(tmp_path):
  provenance.write_environment(tmp_path)
  written = json.loads((tmp_path / "environment.json").read_text())
  assert set(written["packages"]) >= {"jax", "flax", "optax"}
  assert written["packages"]["jax"] == jax.__version__
  assert len(written["devices"]) == 8
  assert written["devices"][0].startswith("cpu")
  assert written["processes"] == 1
  assert isinstance(written["command"], list)
  assert written["git_hash"] is None or len(written["git_hash"]) >= 40


def test_environment_without_git(tmp_path, monkeypatch):
  monkeypatch.setenv("PATH", str(tmp_path))
  provenance.write_environment(tmp_path)
  written = json.loads((tmp_path / "environment.json").read_text())
  assert written["git_hash"] is None


def test_environment_inside_a_repository_of_something_else(
  tmp_path, monkeypatch
):
  (tmp_path / "git").write_text("#!/bin/sh\necho /somewhere/else\n")
  (tmp_path / "git").chmod(0o755)
  monkeypatch.setenv("PATH", f"{tmp_path}:{os.defpath}")
  provenance.write_environment(tmp_path)
  written = json.loads((tmp_path / "environment.json").read_text())
  assert written["git_hash"] is None
