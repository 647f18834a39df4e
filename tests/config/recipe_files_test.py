"""Recipes are found by name, wherever the package is installed."""

import pathlib

import pytest

from paws_jax import errors
from paws_jax.config import recipe_files

CONFIGS = pathlib.Path(__file__).parents[2] / "configs"


@pytest.mark.parametrize(
  ("recipe", "found"),
  [
    ("quickstart", "quickstart.py"),
    ("imagenet:1pct,width2", "imagenet.py:1pct,width2"),
    ("configs/quickstart.py", "quickstart.py"),
    ("./configs/imagenet.py:8gpu", "imagenet.py:8gpu"),
  ],
)
def test_shipped_recipes_are_found_anywhere(
  tmp_path, monkeypatch, recipe, found
):
  monkeypatch.chdir(tmp_path)
  assert recipe_files.locate(recipe) == str(CONFIGS / found)


def test_files_are_paths(tmp_path, monkeypatch):
  monkeypatch.chdir(tmp_path)
  (tmp_path / "configs").mkdir()
  for name in ("mine.py", "quickstart", "configs/quickstart.py"):
    (tmp_path / name).touch()
  assert recipe_files.locate("mine.py:a") == "mine.py:a"
  assert recipe_files.locate("./quickstart") == "quickstart"
  assert recipe_files.locate(f"{tmp_path}/mine.py") == f"{tmp_path}/mine.py"
  # A file of one's own in configs/ comes before the shipped one, a name never
  # means a file.
  assert recipe_files.locate("configs/quickstart.py") == "configs/quickstart.py"
  assert recipe_files.locate("quickstart") == str(CONFIGS / "quickstart.py")


@pytest.mark.parametrize(
  ("recipe", "words"),
  [
    ("quikstart", "no such recipe; did you mean --config=quickstart"),
    ("quickstart.py", "no such file; did you mean --config=quickstart"),
    (
      "imagnet:1pct",
      "--config=imagnet:1pct: .* did you mean --config=imagenet",
    ),
    ("configs/nowhere.py", "no such file; --list shows the recipes"),
    ("qqq", "no such recipe; --list shows the recipes"),
    ("mine", r"for the file of that name write \./mine$"),
    ("../configs/quickstart.py", "no such file; did you mean"),
  ],
)
def test_missing_recipes_name_the_nearest(tmp_path, monkeypatch, recipe, words):
  monkeypatch.chdir(tmp_path)
  (tmp_path / "mine").touch()
  with pytest.raises(errors.InputError, match=words):
    recipe_files.locate(recipe)


def test_every_recipe_has_a_summary():
  summaries = recipe_files.summaries()
  assert set(summaries) == {path.stem for path in CONFIGS.glob("*.py")}
  assert all(20 < len(line) < 80 for line in summaries.values())


def test_a_recipe_is_loaded_with_its_variant():
  assert recipe_files.load("quickstart").data.source == "digits"
  laptop = recipe_files.load("image_folder:laptop")
  assert laptop.model.name == "small_resnet3"
  assert recipe_files.load("image_folder").model.name != "small_resnet3"


@pytest.mark.parametrize(
  ("recipe", "words"),
  [
    ("quikstart", "recipe=quikstart: .* did you mean recipe=quickstart"),
    ("quickstart:small", "recipe=quickstart:small: this recipe has no variant"),
    ("image_folder:lap", "recipe=image_folder:lap: variant 'lap' of"),
  ],
)
def test_a_recipe_that_cannot_be_loaded_is_refused(recipe, words):
  with pytest.raises(errors.InputError, match=words):
    recipe_files.load(recipe, flag="recipe=")
