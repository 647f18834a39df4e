"""What the doctor says about the values of pixels."""

import io

import numpy as np
import pytest
from PIL import Image

from paws_jax import config as config_lib
from paws_jax.data.sources import catalog
from paws_jax.doctor import findings
from paws_jax.doctor import inspect
from paws_jax.doctor import measure
from paws_jax.doctor import values
from tests import image_files

COUNT = 30


def _noise(high, seed, low=0):
  """Noise that reaches both ends."""
  noise = np.random.default_rng(seed).integers(low, high + 1, (6, 8, 1))
  noise[0, :2, 0] = low, high
  return noise


def _examine(tmp_path, contents, capsys, **changes):
  """The lines that are printed about unlabelled images of these contents."""
  names = []
  for i, content in enumerate(contents):
    names.append(f"{i:02}.png")
    (tmp_path / names[-1]).write_bytes(content)
  files = catalog.Files(root=str(tmp_path), paths=tuple(names))
  rows = np.arange(len(names))
  group = inspect.Group("unlabelled", files, rows, rows * 0 - 1, len(names))
  decode_size = measure.file_size_in_pixels(max_pixels=999, canvas_size=64)
  checks = inspect.check_images([group], decode_size, progress=lambda *_: None)
  assert not any(check.reason for check in checks["unlabelled"])
  section = {"source": "folder", "pipeline": "host"} | changes
  report = findings.Report()
  values.value_ranges(report, [group], checks, config_lib.Data(**section))
  lines = [line.strip() for line in capsys.readouterr().out.splitlines()]
  assert sum("warning: " in line for line in lines) == report.num_warnings
  return lines


def _gray(high, bits, **settings):
  return [
    image_files.png(_noise(high, k, **settings), bits=bits, color=0)
    for k in range(COUNT)
  ]


@pytest.mark.parametrize("color", [0, 2])
@pytest.mark.parametrize(
  ("high", "bits", "level"),
  [(1023, 10, 1023), (4095, 12, 4095), (16383, 14, 16383), (3000, 12, 4095)],
)
def test_a_white_level_is_proposed(tmp_path, capsys, color, high, bits, level):
  contents = [
    image_files.png(_noise(high, k).repeat(color + 1, 2), bits=16, color=color)
    for k in range(COUNT)
  ]
  total, finding = _examine(tmp_path, contents, capsys)
  assert total.startswith(f"values of {COUNT} images of up to 65,535: 0 to ")
  assert finding.startswith(f"warning: {COUNT} images without a value above")
  assert f"({bits} bits), where 65,535 is white" in finding
  assert finding.endswith(f"set --config.data.white_level={level}")
  # The proposal is the remedy.
  lines = _examine(tmp_path, contents, capsys, white_level=level)
  assert lines == [total]


@pytest.mark.parametrize(("high", "level"), [(16, 16), (1, 1)])
def test_files_of_8_bits_have_a_white_level_too(tmp_path, capsys, high, level):
  contents = _gray(high, 8)
  _, finding = _examine(tmp_path, contents, capsys)
  assert f"without a value above {high}, where 255 is white" in finding
  assert finding.endswith(f"set --config.data.white_level={level}")
  assert len(_examine(tmp_path, contents, capsys, white_level=level)) == 1


def test_images_in_memory_have_another_remedy(tmp_path, capsys):
  settings = {"source": "digits", "pipeline": "memory"}
  _, finding = _examine(tmp_path, _gray(16, 8), capsys, **settings)
  assert finding.endswith("If 16 is white, multiply the images by 15.9")


@pytest.mark.parametrize(
  ("high", "bits"), [(255, 8), (100, 8), (3, 2), (60000, 16), (20000, 16)]
)
def test_values_over_much_of_the_range_are_fine(tmp_path, capsys, high, bits):
  assert len(_examine(tmp_path, _gray(high, bits), capsys)) == 1


def test_values_beyond_the_white_level(tmp_path, capsys):
  contents = _gray(4095, 16)
  contents[0] = image_files.png(_noise(4096, 0), bits=16, color=0)
  lines = _examine(tmp_path, contents, capsys, white_level=4095)
  # One image may have a flaw.
  assert lines[1] == (
    "1 image with values above data.white_level = 4,095, up to 4,096: they "
    "become white"
  )
  lines = _examine(tmp_path, contents, capsys, white_level=4000)
  assert lines[1].startswith("warning: 30 images with values above data.white")


def test_slivers_of_the_range(tmp_path, capsys):
  contents = _gray(34000, 16, low=33000)
  _, finding = _examine(tmp_path, contents, capsys)
  assert finding.startswith("warning: 30 images with less than a sixteenth")
  assert "00.png (33,000 to 34,000)" in finding
  # A few pictures of the sky are no fault.
  contents[1:] = _gray(60000, 16)[1:]
  _, finding = _examine(tmp_path, contents, capsys)
  assert finding.startswith("1 image with less than a sixteenth")


def test_single_values(tmp_path, capsys):
  contents = _gray(255, 8)
  contents[3] = image_files.png(np.full((4, 4, 1), 7), bits=8, color=0)
  _, finding = _examine(tmp_path, contents, capsys)
  assert finding.startswith("warning: 1 image of a single value: 03.png (7).")


def test_depths_are_reported_separately(tmp_path, capsys):
  jpeg = io.BytesIO()
  Image.fromarray(_noise(255, 0)[..., 0].astype(np.uint8)).save(jpeg, "JPEG")
  contents = [jpeg.getvalue(), *_gray(4095, 16)[1:]]
  few, many, finding = _examine(tmp_path, contents, capsys)
  assert few.startswith("values of 1 image of up to 255: ")
  assert many == "values of 29 images of up to 65,535: 0 to 4,095"
  assert "white_level=4095" in finding
