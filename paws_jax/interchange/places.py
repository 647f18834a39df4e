"""One name for each image, however another program writes its path."""

from __future__ import annotations

import os
import urllib.parse

from paws_jax.data.sources import listed_files
from paws_jax.predict import find_images


class Places:
  """Finds images below a directory."""

  def __init__(self, root: str | os.PathLike[str]):
    """Keeps the directory; reads nothing."""
    self._root = os.path.abspath(os.path.expanduser(os.fspath(root)))
    self._forms = listed_files.NameForms()

  def name(self, written: str) -> str:
    """The path of an image relative to the directory, as the disk has it.

    Args:
      written: relative or absolute; as it is, in the notation of `text.escape`,
        in another Unicode form, or with %20 for a space.

    Returns:
      The path, which need not exist; one that is not below begins with ".." or
      is absolute.
    """
    found = self._find(written)
    if not os.path.lexists(os.path.join(self._root, found)):
      content = written.encode("utf-8", "backslashreplace")
      decoded = os.fsdecode(urllib.parse.unquote_to_bytes(content))
      other = self._find(decoded)
      if os.path.lexists(os.path.join(self._root, other)):
        return other
    return found

  def _find(self, written: str) -> str:
    listed = find_images.listed_name(self._root, written)
    path = os.path.normpath(self._forms.find(self._root, listed))
    return os.path.normpath(listed_files.below(path, self._root))
