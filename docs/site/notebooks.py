"""Notebooks as pages."""

from __future__ import annotations

import json
import re

# The badge is loaded from another server.
_BADGE = re.compile(r"\[!\[Open in Colab\]\([^)]*\)\]\(([^)]*)\)")


def to_markdown(text: str) -> str:
  """A notebook with its outputs as Markdown.

  Args:
    text: the JSON of an .ipynb file.
  """
  parts = []
  for cell in json.loads(text)["cells"]:
    source = "".join(cell["source"])
    if cell["cell_type"] == "markdown":
      parts.append(_BADGE.sub(r"[Open in Colab](\1)", source))
    else:
      parts.append(_fence(source, "python"))
      parts += map(_output, cell["outputs"])
  return "\n\n".join(parts) + "\n"


def _output(output: dict) -> str:
  if output["output_type"] == "stream":
    return _fence("".join(output["text"]), "text")
  image = output["data"]["image/png"].replace("\n", "")
  return f'<img alt="Output of the cell" src="data:image/png;base64,{image}">'


def _fence(text: str, language: str) -> str:
  return f"```{language}\n{text.rstrip()}\n```"
