"""`--task=report` on whole runs, and the page in a browser."""

import csv
import errno
import functools
import html
import importlib.util
import json
import os
import pathlib
import re
import shutil
import subprocess

import jax
import numpy as np
import pytest
from PIL import Image

from paws_jax import config as config_lib
from paws_jax import errors
from paws_jax.report import evidence
from paws_jax.runs import checkpoint
from paws_jax.runs import metrics
from paws_jax.runs import results
from paws_jax.runs import workdir as workdir_lib
from paws_jax.tasks import report
from paws_jax.training import checkpoints
from paws_jax.training import experiment as experiment_lib
from paws_jax.training import restore
from tests.report import page_test as report_page_test

pytestmark = pytest.mark.unoptimized

RECIPE = pathlib.Path(__file__).parents[1] / "tiny_recipe.py"
BROWSERS = ("chromium", "chromium-browser", "google-chrome", "chrome")
# Names that would change the page if they were not escaped.
CLASSES = ("<b>cats & dogs", "the \"others'")
BAD = "un<readable>&.png"
STEP = 7


def tiny(**changes):
  spec = importlib.util.spec_from_file_location("tiny_recipe", RECIPE)
  module = importlib.util.module_from_spec(spec)
  spec.loader.exec_module(module)
  config = module.get_config()
  config.update_from_flattened_dict(
    {name.replace("__", "."): value for name, value in changes.items()}
  )
  return config


def make_trained(config, workdir, *, state=None):
  """Returns what `restore.load` gives, for a run that has not trained."""
  experiment = experiment_lib.create(
    config_lib.resolve(config), devices=jax.devices()[:1]
  )
  split = experiment.dataset.split.as_json()
  path = workdir_lib.prepare(workdir, config_lib.resolve(config), split)
  workdir_lib.write_split(path, split)
  state = experiment.initial_state() if state is None else state
  return restore.TrainedRun(
    recipe=config_lib.resolve(config),
    workdir=path,
    experiment=experiment,
    params=state.params,
    batch_stats=state.batch_stats,
    step=STEP,
  ), state


@pytest.fixture(scope="module")
def digits(tmp_path_factory):
  """The report of a run on digits, which holds more than is looked at."""
  config = tiny()
  made, state = make_trained(config, tmp_path_factory.mktemp("digits"))
  path = made.workdir
  with checkpoint.Checkpointer(path / workdir_lib.CHECKPOINTS) as checkpointer:
    checkpoints.save(checkpointer, made.experiment.trainer, STEP, state, {})
  rows = [{"step": i, "loss": 2.0, "cross_entropy": 2.0} for i in (3, 6)]
  text = "".join(json.dumps(row) + "\n" for row in rows)
  (path / metrics.METRICS).write_text(text)
  results.append_result(
    path,
    {
      "task": "pretrain",
      "protocol": "soft_nn",
      "num_labels": 20,
      "num_test": 360,
      "steps": STEP,
      "top1": 0.5,
      "top1_interval": [0.449, 0.551],
      "top5": 0.9,
    },
  )
  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(evidence, "MOST_IMAGES", 200)
    assert report.run(report.prepare(config, str(path))) == 0
  return path


def write_images(folder, names, *, level):
  folder.mkdir(parents=True)
  rng = np.random.default_rng(level)
  for name in names:
    pixels = rng.integers(level, level + 100, (12, 14, 3), np.uint8)
    Image.fromarray(pixels).save(folder / name)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
  """A run on images of one's own, without test images."""
  root = tmp_path_factory.mktemp("photos")
  for k, name in enumerate(CLASSES):
    names = [f"{i}.png" for i in range(3)]
    write_images(root / "labelled" / name, names, level=100 * k)
  names = [f"'{i}' & \"{'w' * 90}\" <i>.png" for i in range(9)]
  write_images(root / "others", names, level=60)
  (root / "others" / BAD).write_bytes(b"no image")
  config = tiny(
    data__source="folder",
    data__pipeline="host",
    data__dir=str(root / "labelled"),
    data__unlabelled_dir=str(root / "others"),
    data__labels_per_class=0,
    data__canvas_size=16,
    data__on_bad_image="skip",
    views__mean=(0.5,) * 3,
    views__std=(0.2,) * 3,
    support__classes_per_step=0,
    train__batch_size=8,
    checkpoint__every_steps=0,
    eval__every_steps=0,
  )
  return make_trained(config, root / "run")[0]


@pytest.fixture(scope="module")
def own_page(folder):
  """The report of that run, written elsewhere."""
  path = folder.workdir.parent / "elsewhere" / "page.html"
  path.parent.mkdir()
  assert report.run(report.ReportInputs(folder, path)) == 0
  return path


@pytest.mark.slow
def test_the_page_of_a_run(digits):
  page = (digits / report.PAGE).read_text()
  reader = report_page_test.check(page)
  assert "50.0%" in reader.texts
  assert (
    "of 360 test images are classified correctly by soft nearest neighbors "
    "(95% interval 44.9% to 55.1%)"
  ) in reader.texts
  assert "digits: report on 20 labels" in reader.texts
  # The recipe has 10 steps; the page says how many were inspected.
  assert f"{STEP} of 10: the run is not finished" in reader.texts
  assert any("200 test images sampled from 360" in t for t in reader.texts)
  assert any("200 unlabelled images sampled" in t for t in reader.texts)
  for title in (
    *("Accuracy", "Training", "Confusion matrix", "Classes"),
    *("Map of the embeddings", "Most and least certain"),
    *("Labels to check", "What to label next"),
  ):
    assert reader.texts.count(title) == 2
  sources = reader.values("src")
  assert sum("svg+xml" in source for source in sources) == 3
  assert sum("image/png" in source for source in sources) > 100


@pytest.mark.slow
def test_suggestions_are_a_table(digits):
  with (digits / report.SUGGESTIONS).open(newline="") as file:
    rows = list(csv.DictReader(file))
  assert list(rows[0]) == [
    *("path", "suggested_class", "probability", "entropy", "novelty", "reason")
  ]
  assert 10 < len(rows) <= 100
  split = json.loads((digits / "split.json").read_text())
  numbers = [int(row["path"].removeprefix("train ")) for row in rows]
  assert len(set(numbers)) == len(rows)
  assert not set(numbers) & set(split["labelled_ids"])
  assert all(0 <= float(row["entropy"]) <= np.log(10) for row in rows)
  assert all(0 <= float(row["novelty"]) <= 2 for row in rows)
  page = (digits / report.PAGE).read_text()
  assert f">{rows[0]['path']}<" in page
  assert html.escape(rows[0]["reason"]) in page


@pytest.mark.slow
def test_own_images_with_names_that_look_like_html(own_page):
  reader = report_page_test.check(own_page.read_text())
  for name in CLASSES:
    assert name in reader.texts
  assert any("'0' & \"www" in t for t in reader.texts)
  # No test images, no results: the labelled images serve, and it is said.
  assert "No accuracy has been measured yet." in reader.texts
  assert any(
    "6 labelled images, each classified by the others" in t
    for t in reader.texts
  )
  assert any(
    "9 unlabelled images (1 more cannot be read)" in t for t in reader.texts
  )
  with (own_page.parent / report.SUGGESTIONS).open(newline="") as file:
    rows = list(csv.DictReader(file))
  assert {row["suggested_class"] for row in rows} <= set(CLASSES)
  names = {pathlib.PurePath(row["path"]).name for row in rows}
  on_disk = {p.name for p in (own_page.parents[1] / "others").iterdir()}
  assert names
  assert names <= on_disk - {BAD}


@functools.cache
def browser():
  return next(filter(None, map(shutil.which, BROWSERS)), None)


def render(page, directory, width):
  """(width, height) that a page asks for in a window of this width."""
  # The page has no scripts: one around it measures.
  (directory / "frame.html").write_text(
    f"<iframe id='f' src='{page.as_uri()}' style='border:0;width:{width}px;"
    "height:800px'></iframe><p id='p'></p><script>onload = () => {"
    "const d = document.getElementById('f').contentDocument;"
    "for (const e of d.querySelectorAll('details')) e.open = true;"
    "const s = d.documentElement;"
    "const bad = [...d.images].filter(i => !i.complete || !i.naturalWidth);"
    "document.getElementById('p').textContent ="
    "`${s.scrollWidth} ${s.scrollHeight} ${d.images.length} ${bad.length}`;"
    "}</script>"
  )
  done = subprocess.run(
    [
      browser(),
      *("--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars"),
      *("--allow-file-access-from-files", "--virtual-time-budget=10000"),
      "--dump-dom",
      f"--user-data-dir={directory / 'profile'}",
      (directory / "frame.html").as_uri(),
    ],
    capture_output=True,
    text=True,
    timeout=120,
    check=True,
    env={"PATH": os.environ["PATH"], "HOME": str(directory)},
  )
  found = re.search(r'<p id="p">(\d+) (\d+) (\d+) (\d+)</p>', done.stdout)
  assert found, done.stdout[:500] + done.stderr
  return tuple(map(int, found.groups()))


@pytest.mark.slow
@pytest.mark.skipif(browser() is None, reason=f"none of {BROWSERS} is there")
@pytest.mark.parametrize("width", [320, 390, 1280])
def test_the_page_fits_a_screen(digits, own_page, tmp_path, width):
  for page in (digits / report.PAGE, own_page):
    wide, high, images, bad = render(page, tmp_path, width)
    assert wide == width
    assert high > 2000
    assert images > 10
    assert bad == 0


@pytest.mark.parametrize(
  ("name", "problem"),
  [
    ("page.pdf", r"page\.pdf: .* ends with \.html"),
    ("taken.html", "taken.html is a directory"),
    ("absent/page.html", "there is no directory .*absent"),
    ("/proc/page.html", r"page\.html cannot be written \(.*with --output=PAGE"),
    ("full/page.html", r"next\.csv cannot be written \(it is a directory"),
  ],
)
def test_an_output_that_cannot_be(tmp_path, name, problem):
  (tmp_path / "taken.html").mkdir()
  (tmp_path / "full" / report.SUGGESTIONS).mkdir(parents=True)
  with pytest.raises((ValueError, FileNotFoundError), match=problem):
    report.prepare(tiny(), str(tmp_path), output=str(tmp_path / name))


def test_results_that_cannot_be_read(tmp_path):
  (tmp_path / results.RESULTS).write_text("{}")
  with pytest.raises(ValueError, match="not a JSON list"):
    report.prepare(tiny(), str(tmp_path))


def test_a_workdir_that_is_read_only_is_refused_first(tmp_path, monkeypatch):
  def refuse(**unused):
    raise OSError(errno.EROFS, os.strerror(errno.EROFS))

  def restore_nothing(*unused):
    raise AssertionError("the work has begun")

  monkeypatch.setattr(report.files.tempfile, "TemporaryFile", refuse)
  monkeypatch.setattr(report.restore, "load", restore_nothing)
  with pytest.raises(
    errors.WorkdirError,
    match=r"report\.html cannot be written \(Read-only file system\): give "
    r"yourself .* --output=PAGE\.html\.$",
  ):
    report.prepare(tiny(), str(tmp_path))


def test_a_directory_without_a_run(tmp_path):
  with pytest.raises(errors.WorkdirError, match="holds no run"):
    report.prepare(tiny(), str(tmp_path))


@pytest.mark.slow
def test_images_that_cannot_be_read_stop_a_report_if_the_recipe_says_so(
  folder, tmp_path
):
  strict = config_lib.editable(folder.recipe)
  strict.data.on_bad_image = "error"
  made, _ = make_trained(strict, tmp_path, state=folder)
  with pytest.raises(errors.BadImageError, match=re.escape(BAD)):
    report.run(report.ReportInputs(made, tmp_path / report.PAGE))
  assert not (tmp_path / report.PAGE).exists()


@pytest.mark.slow
def test_labelled_images_of_which_none_can_be_read(folder, tmp_path):
  for image in (folder.workdir.parent / "labelled").rglob("*.png"):
    target = tmp_path / "labelled" / image.parent.name / image.name
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_bytes(b"no image")
  broken = config_lib.editable(folder.recipe)
  broken.data.dir = str(tmp_path / "labelled")
  made, _ = make_trained(broken, tmp_path / "run", state=folder)
  with pytest.raises(errors.BadImageError, match="6 of 6 labelled images"):
    report.run(report.ReportInputs(made, tmp_path / report.PAGE))
