"""Advice on sizes for small and large images, which settles the matter."""

import pytest

from configs import image_folder
from configs import quickstart
from paws_jax import config as config_lib
from paws_jax.doctor import crop_sizes
from paws_jax.doctor import findings
from paws_jax.doctor import inspect
from tests import tiny_recipe


def checks(*sizes):
  """Results of images of these heights and widths, each ten times."""
  found = [inspect.ImageCheck(b"", h, w, "") for h, w in sizes]
  return {"labelled": found * 10, "unlabelled": [], "test": found}


def recipe(config, flags=()):
  flat = {}
  for flag in flags:
    name, value = flag.removeprefix("--config.").split("=")
    flat[name] = int(value)
  config.update_from_flattened_dict(flat)
  return config_lib.resolve(config)


def advice(capsys, built, found):
  """Returns the lines and the flags among them."""
  crop_sizes.advise(findings.Report(), built, found)
  lines = [line.strip() for line in capsys.readouterr().out.splitlines()]
  flags = [f for line in lines if line.startswith("--") for f in line.split()]
  return [line for line in lines if not line.startswith("--")], flags


@pytest.mark.parametrize(
  ("variant", "size", "words", "expected"),
  [
    (
      "gpu",
      (64, 80),
      "small images (short side 64 pixels): views.large.size = 224 only "
      "enlarges them, at 12.2 times the work of crops of 64.",
      "large.size=64 small.size=24 eval_resize=64 canvas_size=96",
    ),
    (
      "gpu",
      (28, 28),
      "small images (short side 28",
      "large.size=24 small.size=8 eval_resize=27 canvas_size=32",
    ),
    (
      "laptop",
      (400, 600),
      "large images (short side 400 pixels): views.large.size = 48 leaves out "
      "fine details.",
      "large.size=200 eval_resize=229 canvas_size=400",
    ),
    (
      "laptop",
      (3000, 4000),
      "steps may take about 21.8 times as long",
      "large.size=224 eval_resize=256 canvas_size=448",
    ),
    (
      "laptop",
      (20, 20),
      "small images (short side 20",
      "large.size=16 eval_resize=18 canvas_size=32",
    ),
    ("gpu", (500, 375), "", ""),
    ("gpu", (3000, 4000), "", ""),
    ("gpu", (200, 200), "", ""),
    ("laptop", (64, 64), "", ""),
    ("laptop", (180, 180), "", ""),
  ],
)
def test_sizes_that_are_proposed_settle_the_matter(
  capsys, variant, size, words, expected
):
  found = checks(size)
  lines, flags = advice(capsys, recipe(image_folder.get_config(variant)), found)
  short = [f.split(".", 2)[-1] if "views" in f else f for f in flags]
  short = [f.replace("--config.data.", "") for f in short]
  assert " ".join(short) == expected
  assert len(lines) == bool(words)
  assert all(words in line for line in lines)
  # A recipe with these flags is valid, and nothing more is said.
  changed = recipe(image_folder.get_config(variant), flags)
  assert advice(capsys, changed, found) == ([], [])


def test_an_evaluation_that_sees_little_and_a_canvas_that_is_large(capsys):
  flags = ["--config.views.eval_resize=256", "--config.data.canvas_size=512"]
  built = recipe(image_folder.get_config("laptop"), flags)
  found = checks((120, 160))
  lines, flags = advice(capsys, built, found)
  assert "center of an image, 48 of 256 pixels (views.eval_resize)" in lines[0]
  assert "data.canvas_size = 512 takes memory" in lines[1]
  assert flags == [
    "--config.views.eval_resize=55",
    "--config.data.canvas_size=96",
  ]
  changed = recipe(image_folder.get_config("laptop"), flags)
  assert advice(capsys, changed, found) == ([], [])


def test_the_size_of_an_evaluation_of_its_own_is_set_too(capsys):
  config = image_folder.get_config("gpu")
  config.views.eval_size = 224
  found = checks((64, 64))
  _, flags = advice(capsys, recipe(config), found)
  assert "--config.views.eval_size=64" in flags
  config = image_folder.get_config("gpu")
  config.views.eval_size = 224
  assert advice(capsys, recipe(config, flags), found) == ([], [])


@pytest.mark.parametrize("config", [quickstart, tiny_recipe])
def test_images_in_memory_that_are_enlarged_on_purpose(capsys, config):
  built = recipe(config.get_config())
  assert advice(capsys, built, checks((8, 8))) == ([], [])


def test_most_images_decide(capsys):
  built = recipe(image_folder.get_config("gpu"))
  found = checks((300, 300), (300, 300), (20, 20))
  assert advice(capsys, built, found) == ([], [])
  assert advice(capsys, built, {"labelled": []}) == ([], [])
