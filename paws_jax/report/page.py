"""A report as one HTML page, out of what it is to show."""

from __future__ import annotations

import dataclasses
import pathlib

from paws_jax.report import figures

_TEMPLATE = "page.html.jinja"


@dataclasses.dataclass(frozen=True)
class Voter:
  """A labelled image that voted: its share is a fraction."""

  picture: figures.Picture
  class_name: str
  name: str
  share: float


@dataclasses.dataclass(frozen=True)
class Card:
  """An image with what is said of it.

  Attributes:
    picture: the image.
    name: what it is called.
    lines: sentences, the first one stands out.
    voters: the labelled images with the greatest shares.
    mark: "right", "wrong" or "".
    beside: a second image, that the first one is compared with.
    name_beside: what it is called.
  """

  picture: figures.Picture
  name: str
  lines: tuple[str, ...]
  voters: tuple[Voter, ...] = ()
  mark: str = ""
  beside: figures.Picture | None = None
  name_beside: str = ""


@dataclasses.dataclass(frozen=True)
class Table:
  """Columns and rows of text; the first column names a row."""

  columns: tuple[str, ...]
  rows: tuple[tuple[str, ...], ...]


@dataclasses.dataclass(frozen=True)
class Section:
  """A part of the page.

  Attributes:
    anchor: its id.
    title: its heading.
    text: paragraphs.
    figure: drawn above the rest.
    caption: what the figure shows, in words.
    table: drawn below the figure.
    groups: cards under headings of their own ("": none).
    note: a sentence below all.
    folded: whether the table is folded away at first.
  """

  anchor: str
  title: str
  text: tuple[str, ...] = ()
  figure: figures.Picture | None = None
  caption: str = ""
  table: Table | None = None
  groups: tuple[tuple[str, tuple[Card, ...]], ...] = ()
  note: str = ""
  folded: bool = False


@dataclasses.dataclass(frozen=True)
class Page:
  """A report.

  Attributes:
    title: of the page.
    headline: the number a reader came for, as text: "94.2 %"; "" without.
    headline_text: what it is the number of.
    lines: paragraphs below it.
    facts: (name, value) pairs.
    sections: in their order.
    footer: the last line.
  """

  title: str
  headline: str
  headline_text: str
  lines: tuple[str, ...]
  facts: tuple[tuple[str, str], ...]
  sections: tuple[Section, ...]
  footer: str


def render(page: Page) -> str:
  """HTML in which every text is escaped, and which loads nothing.

  What is not UTF-8 in file names is shown as backslash escapes.
  """
  import jinja2

  environment = jinja2.Environment(
    autoescape=True,
    undefined=jinja2.StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
  )
  here = pathlib.Path(__file__).parent
  template = (here / _TEMPLATE).read_text(encoding="utf-8")
  html = environment.from_string(template).render(page=page)
  return html.encode("utf-8", "backslashreplace").decode() + "\n"


def percent(fraction: float) -> str:
  """For readers: "94.2%"."""
  return f"{fraction:.1%}"
