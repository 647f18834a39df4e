"""`--task=report`: an HTML page about a run, and images to label next."""

from __future__ import annotations

import csv
import dataclasses
import datetime
import io
import pathlib

import ml_collections
from etils import epath

from paws_jax import config as config_lib
from paws_jax import errors
from paws_jax import text as text_lib
from paws_jax.report import evidence as evidence_lib
from paws_jax.report import first_screen
from paws_jax.report import image_sections
from paws_jax.report import page as page_lib
from paws_jax.report import sections
from paws_jax.runs import files
from paws_jax.runs import provenance
from paws_jax.runs import results
from paws_jax.training import restore

PAGE = "report.html"
SUGGESTIONS = "label_next.csv"


@dataclasses.dataclass(frozen=True, eq=False)
class ReportInputs:
  """A run, and the path of its report."""

  trained: restore.TrainedRun
  page: epath.Path


def prepare(
  config: config_lib.Recipe | ml_collections.ConfigDict,
  workdir: str,
  *,
  output: str | None = None,
) -> ReportInputs:
  """Restores the run and checks where to write.

  Args:
    config: the run's recipe.
    workdir: the run's directory.
    output: the page, "*.html"; default `PAGE` in the workdir.

  Raises:
    ValueError: for another ending, a directory in the place of the page, files
      that cannot be written, or a results.json that cannot be read.
    FileNotFoundError: for a directory that does not exist.
    Whatever `restore.load` raises.
  """
  directory = files.resolve(workdir)
  page = files.resolve(output) if output else directory / PAGE
  if output:
    _check_output(page)
  for path in (page, page.parent / SUGGESTIONS):
    files.check_writable(
      path,
      "give yourself the right to write there, or name a page elsewhere with "
      "--output=PAGE.html",
    )
  results.read_results(directory)
  trained = restore.load(config_lib.resolve(config), workdir)
  return ReportInputs(trained=trained, page=page)


def run(prepared: ReportInputs) -> int:
  """Writes the page, and the suggestions beside it; returns 0.

  Raises:
    errors.BadImageError: when an image cannot be read and must not be left out,
      or too few labelled ones can be.
    errors.NonFiniteError: when embeddings are not finite.
    OSError: when a file cannot be written.
  """
  evidence = evidence_lib.gather(prepared.trained)
  html = page_lib.render(page(prepared.trained, evidence))
  files.replace_output(prepared.page, html)
  print(f"report      {prepared.page}")
  if evidence.unlabelled is not None:
    path = prepared.page.parent / SUGGESTIONS
    files.replace_output(path, suggestions_csv(evidence))
    print(f"label next  {path}")
  return 0


def page(
  trained: restore.TrainedRun, evidence: evidence_lib.Evidence
) -> page_lib.Page:
  """The content of the page."""
  dataset, total = trained.experiment.dataset, trained.experiment.total_steps
  classes = len(evidence.class_names)
  labels = len(evidence.support_bank)
  step = f"{trained.step:,}"
  if trained.step < total:
    step += f" of {total:,}: the run is not finished"
  facts = [
    ("labelled images", f"{labels:,}"),
    ("classes", f"{classes:,}"),
    ("unlabelled images", f"{len(dataset.unlabelled or ()):,}"),
    ("method", trained.recipe.method.name),
    ("encoder", trained.recipe.model.name),
    ("step", step),
  ]
  top = first_screen.first_screen(evidence, finished=trained.step >= total)
  today = datetime.date.today().isoformat()
  return page_lib.Page(
    title=f"{dataset.name}: report on {labels:,} labels",
    headline=top.headline,
    headline_text=top.text,
    lines=top.lines,
    facts=tuple(facts),
    sections=sections.sections(evidence),
    footer=f"paws_jax {provenance.version()}, {today}. {trained.workdir}",
  )


def suggestions_csv(evidence: evidence_lib.Evidence) -> bytes:
  """The images to label next, as a table.

  Columns: path, suggested_class, probability, entropy (nats), novelty (1 -
  cosine similarity to the nearest labelled image), reason. In UTF-8, whatever
  the file names are: see `text.escape`.
  """
  pool, suggestions = evidence.unlabelled, evidence.suggestions
  assert pool is not None
  assert suggestions is not None
  file = io.StringIO()
  writer = csv.writer(file, lineterminator="\n")
  writer.writerow(
    ("path", "suggested_class", "probability", "entropy", "novelty", "reason")
  )
  entropy = pool.entropy
  for place, row in enumerate(suggestions.rows):
    winner = pool.classes[row]
    writer.writerow(
      (
        text_lib.escape(pool.name(row)),
        text_lib.escape(evidence.class_names[winner]),
        f"{pool.probabilities[row, winner]:.4f}",
        f"{entropy[row]:.4f}",
        f"{pool.novelty[row]:.4f}",
        image_sections.reason(evidence, place),
      )
    )
  return file.getvalue().encode()


def _check_output(page: epath.Path) -> None:
  if page.suffix.lower() not in (".html", ".htm"):
    raise errors.InputError(
      f"--output={page}: a report is a web page: give a name that ends with "
      ".html."
    )
  if page.is_dir():
    raise errors.InputError(
      f"--output={page} is a directory: give a file in it."
    )
  # A bucket knows no directories.
  if isinstance(page, pathlib.Path) and not page.parent.is_dir():
    raise errors.MissingFileError(
      f"--output={page}: there is no directory {page.parent}: make it first, "
      "or name another."
    )
