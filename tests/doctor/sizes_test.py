"""What the doctor says about sizes and memory, and what it advises."""

import types

import jax
import pytest

from paws_jax import config as config_lib
from paws_jax.doctor import findings
from paws_jax.doctor import sizes
from paws_jax.parallel import mesh as mesh_lib


@pytest.mark.parametrize("method", ["paws", "simclr", "fixmatch", "mpl"])
def test_chunks_are_advised_where_a_method_allows_them(
  method, monkeypatch, capsys
):
  needed = sizes.memory_lib.Memory(0, 0, 0, 0, 2**40)
  monkeypatch.setattr(sizes.memory_lib, "memory", lambda _: needed)
  monkeypatch.setattr(sizes.memory_lib, "device_memory", lambda _: 2**30)
  recipe = config_lib.build(config_lib.base(method))
  mesh = types.SimpleNamespace(local_devices=[])
  trainer = types.SimpleNamespace(mesh=mesh)
  report = findings.Report()
  sizes.memory(report, recipe, types.SimpleNamespace(trainer=trainer))
  assert report.num_warnings == 1
  text = capsys.readouterr().out
  assert "set train.remat to 'dots'" in text
  allows = method in ("paws", "simclr")
  assert ("train.chunks to 'auto'" in text) == allows


@pytest.mark.parametrize("sampling", ["balanced", "uniform"])
@pytest.mark.parametrize(("chunks", "rows"), [(1, 3), (2, 4), (4, 4), (8, 8)])
def test_supports_are_padded_to_the_chunks(sampling, chunks, rows, capsys):
  config = config_lib.base()
  config.train.update(batch_size=64, chunks=chunks)
  config.support.update(
    classes_per_step=2, images_per_class=3, sampling=sampling
  )
  mesh = mesh_lib.make_mesh(jax.devices()[:2])
  sizes._support_size(
    findings.Report(), config_lib.resolve(config), 2, 100, mesh
  )
  assert f"{rows} per device" in capsys.readouterr().out.replace(
    f"each device {rows}", f"{rows} per device"
  )
