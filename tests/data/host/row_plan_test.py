"""What a plan of rows needs besides the rows: host_test has the rest."""

import jax
import pytest

from paws_jax.data.host import row_plan


def test_without_a_cpu_the_platforms_to_ask_for_are_named(monkeypatch):
  def no_cpu(*, backend):
    raise RuntimeError(f"Unknown backend {backend}")

  monkeypatch.setattr(jax, "local_devices", no_cpu)
  with pytest.raises(ValueError, match=r"leaves out the CPU.*,cpu'\."):
    row_plan._own_cpu()
