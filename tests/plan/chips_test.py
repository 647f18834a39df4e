"""The table of accelerators, and names of topologies."""

import math
import re

import pytest

from paws_jax.plan import chips


@pytest.mark.parametrize("name", chips.CHIPS)
def test_every_chip_is_described(name):
  chip = chips.CHIPS[name]
  assert chip.kind in ("tpu", "gpu")
  # All TPUs have shapes, GPUs are counted.
  assert bool(chip.shapes) == (chip.kind == "tpu")
  assert 0.85 < chip.usable_bytes / chip.memory_bytes < 1
  # Bytes and FLOP, not their thousands; the units have been mixed up before.
  assert 50e12 < chip.flops_per_second < 5e15
  assert 100e9 < chip.memory_bandwidth < 10e12
  assert 10e9 < chip.interconnect_bandwidth < chip.memory_bandwidth
  counts = [math.prod(map(int, s.split("x"))) for s in chip.shapes]
  assert counts == sorted(counts)


@pytest.mark.parametrize(
  ("name", "num_chips", "num_devices", "unit"),
  [
    ("v5e:2x4", 8, 8, "chip"),
    ("v4:4x4x4", 64, 64, "chip"),
    ("v3:2x2", 4, 8, "core (half a chip)"),
    ("h100:24", 24, 24, "chip"),
  ],
)
def test_names_are_read(name, num_chips, num_devices, unit):
  topology = chips.parse(name)
  assert topology.num_chips == num_chips
  assert topology.num_devices == num_devices
  assert topology.unit == unit
  assert topology.chip is chips.CHIPS[name.partition(":")[0]]


@pytest.mark.parametrize(
  ("name", "words"),
  [
    ("", "unknown chip ''. Known are v3:2x2|"),
    ("v5litepod-16", "unknown chip 'v5litepod-16'. Known are v3:2x2|"),
    ("k80:8", "and for N GPUs l4:N (24 GB), a100:N (80 GB), h100:N (80 GB), "),
    ("v5e", "unknown shape ''. v5e has v5e:1x1, v5e:2x2,"),
    ("v5e:3x3", "unknown shape '3x3'. v5e has v5e:1x1, v5e:2x2,"),
    ("v4:2x2", "v4 has v4:2x2x1,"),
    ("h100", "give the number of GPUs, e.g. h100:8."),
    ("h100:0", "give the number of GPUs, e.g. h100:8."),
    ("h100:2x4", "give the number of GPUs, e.g. h100:8."),
  ],
)
def test_unknown_names_are_refused_with_the_known(name, words):
  with pytest.raises(ValueError, match=re.escape(words)) as error:
    chips.parse(name)
  assert f"--machine={name}: " in str(error.value)


@pytest.mark.parametrize(
  ("name", "num_devices", "dividing", "larger"),
  [
    ("v5e:2x2", 5, 64, "v5e:2x4"),
    ("v5e:2x2", 8, 64, "v5e:2x4"),
    # Neither 8 nor 16 devices divide it.
    ("v5e:2x2", 5, 12, None),
    ("v3:2x2", 9, 64, "v3:4x4"),
    ("h100:8", 13, 4096, "h100:16"),
    ("v5e:2x2", 257, 512, None),
    ("h100:2", 5, 4, None),
  ],
)
def test_the_next_size_that_divides_a_batch(
  name, num_devices, dividing, larger
):
  assert chips.parse(name).larger(num_devices, dividing=dividing) == larger
