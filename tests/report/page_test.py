"""The HTML of a report: escaped, well formed, and nothing that is loaded."""

import html.parser
import re

import pytest

from paws_jax.report import figures
from paws_jax.report import page as page_lib

VOID = {"meta", "img", "br", "hr", "input", "link"}
PIXEL = figures.Picture("data:image/png;base64,AAAA", tiny=True)


class Reader(html.parser.HTMLParser):
  """Checks that tags close in turn; collects texts, links and sources."""

  def __init__(self, page):
    super().__init__()
    self.open, self.texts, self.attributes = [], [], []
    self.feed(page)
    self.close()
    assert not self.open, f"not closed: {self.open}"

  def handle_starttag(self, tag, attrs):
    self.attributes += [(tag, *pair) for pair in attrs]
    if tag not in VOID:
      self.open.append(tag)

  def handle_endtag(self, tag):
    assert self.open, f"</{tag}> closes nothing"
    assert self.open.pop() == tag, f"</{tag}> closes something else"

  def handle_data(self, data):
    if self.open and self.open[-1] not in ("style", "script"):
      self.texts.append(data.strip())

  def values(self, name):
    return [value for _, key, value in self.attributes if key == name]


def check(page):
  """Well formed, self-contained; gives its reader."""
  reader = Reader(page)
  tags = {tag for tag, *_ in reader.attributes}
  assert not tags & {"script", "link", "iframe", "object", "embed", "form"}
  assert all(value.startswith("data:") for value in reader.values("src"))
  assert all(value.startswith("#") for value in reader.values("href"))
  assert not {"srcset", "onload", "onerror", "style"} & {
    key for _, key, _ in reader.attributes
  }
  without_data = re.sub(r"data:[a-z/+]+;base64,[A-Za-z0-9+/=]*", "", page)
  assert "://" not in without_data
  assert not re.search(r"url\(|@import", without_data)
  # A second lock: browsers load nothing, whatever the page says.
  assert "default-src 'none'" in page
  return reader


def make(**changes):
  fields = {
    "title": "digits",
    "headline": "94.2%",
    "headline_text": "of 360 test images",
    "lines": (),
    "facts": (("classes", "10"),),
    "sections": (),
    "footer": "the end",
  }
  return page_lib.Page(**(fields | changes))


NASTY = [
  "<script>alert(1)</script>",
  'a"b',
  "it's",
  "a&amp;b",
  "x > y",
  "{{ 7 }}",
]


@pytest.mark.parametrize("name", NASTY)
def test_names_come_out_as_they_are(name):
  voter = page_lib.Voter(PIXEL, f"class {name}", f"voter {name}", 0.25)
  card = page_lib.Card(PIXEL, f"image {name}", (f"line {name}",), (voter,))
  section = page_lib.Section(
    "a",
    f"title {name}",
    (f"text {name}",),
    figure=PIXEL,
    caption=f"caption {name}",
    table=page_lib.Table((f"column {name}",), ((f"cell {name}",),)),
    groups=((f"group {name}", (card,)),),
    note=f"note {name}",
  )
  page = make(
    title=f"page {name}",
    facts=((f"fact {name}", f"value {name}"),),
    sections=(section,),
    footer=f"footer {name}",
  )
  reader = check(page_lib.render(page))
  for kind in (
    *("class", "image", "line", "title", "text", "caption", "column", "cell"),
    *("group", "note", "page", "fact", "value", "footer"),
  ):
    assert f"{kind} {name}" in reader.texts
  assert f"voter {name}" in reader.values("title")
  assert {f"image {name}", f"voter {name}", f"caption {name}"} <= set(
    reader.values("alt")
  )
  assert "25%" in reader.texts


def test_a_file_name_that_is_not_utf_8_is_shown_by_its_bytes():
  card = page_lib.Card(PIXEL, "caf\udce9.jpg", ())
  section = page_lib.Section("a", "title", groups=(("", (card,)),))
  page = page_lib.render(make(sections=(section,)))
  assert r"caf\udce9.jpg" in check(page).texts
  assert page.encode()


def test_what_is_not_there_leaves_no_trace():
  section = page_lib.Section("a", "title")
  reader = check(page_lib.render(make(headline="", sections=(section,))))
  tags = {tag for tag, *_ in reader.attributes}
  assert not tags & {"img", "figure", "article"}
  assert reader.values("href") == ["#a"]
  assert reader.values("id") == ["a"]


def test_a_long_table_is_folded():
  table = page_lib.Table(("a",), (("b",), ("c",)))
  for folded in (False, True):
    section = page_lib.Section("a", "title", table=table, folded=folded)
    page = page_lib.render(make(sections=(section,)))
    check(page)
    assert ("<details>" in page) == folded


def test_percent():
  assert page_lib.percent(0.9417) == "94.2%"


def test_sections_with_images_have_the_full_width_of_wide_windows():
  card = page_lib.Card(PIXEL, "image", ("line",))
  text = page_lib.Section("a", "A", ("text",))
  cards = page_lib.Section("b", "B", groups=(("", (card,)),))
  page = page_lib.render(make(sections=(text, cards)))
  assert '<section id="a">' in page
  assert '<section id="b" class="full">' in page


@pytest.mark.parametrize(("columns", "hint"), [(4, False), (6, True)])
def test_a_table_of_many_columns_says_that_it_scrolls(columns, hint):
  table = page_lib.Table(("c",) * columns, (("x",) * columns,))
  section = page_lib.Section("a", "A", table=table)
  reader = check(page_lib.render(make(sections=(section,))))
  said = f"The table scrolls sideways: {columns} columns."
  assert (said in reader.texts) == hint
