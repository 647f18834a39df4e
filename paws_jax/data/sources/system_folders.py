"""Folders that operating systems and network drives make among images.

They hold thumbnails and deleted files, which are copies of the images and must
be neither classes nor images of one. Hidden folders (".name") are left out in
any case and are not listed here.
"""

from __future__ import annotations

import collections
import itertools
import os
import re
from collections.abc import Iterable
from collections.abc import Sequence

from paws_jax import text

_NAMES = frozenset(
  name.casefold()
  for name in (
    # Synology, QNAP, Asustor and others: thumbnails, bins, snapshots, queues.
    *("@eaDir", "@tmp", "@__thumb", "@thumb", "@Recycle", "@Recycler"),
    *("@Recycle Bin", "@Recently-Snapshot", "@sharebin", "@sharesnap"),
    *("@snapshot", "@snapshots", "@Transcode", "@database", "@SynoDrive"),
    *("@appconf", "@appdata", "@apphome", "@appshare", "@appstore"),
    *("@apptemp", "@autoupdate", "@cloudsync", "@img_bkp_cache", "@S2S"),
    *("@SharedFolder", "@DownloadStation", "@surveillance", "_gsdata_"),
    *("#recycle", "#Recycle Bin", "#snapshot", "#snapshots", "#SynoRecycle"),
    *("~snapshot", "~snapshots", "Network Trash Folder", "Trash-1000"),
    # Windows.
    *("$RECYCLE.BIN", "System Volume Information", "Config.Msi", "MSOCache"),
    *("$Extend", "$WinREAgent", "$SysReset", "$Windows.~BT", "$Windows.~WS"),
    *("DfsrPrivate", "WPSystem", "_vti_cnf", "_vti_pvt", "_derived"),
    # macOS; the dot of a name is ":2e" on some file servers.
    *("__MACOSX", "AppleDouble", "Temporary Items", "TheVolumeSettingsFolder"),
    *("TheFindByContentFolder", "Cleanup At Startup", "iPod Photo Cache"),
    # Linux, Python and JavaScript.
    *("lost+found", "__pycache__", "node_modules"),
  )
)
# Bins of older Windows; in lower case they may be a class of waste.
_EXACT = frozenset(("RECYCLER", "RECYCLED"))
# The last are catalogs of Lightroom and of Apple's and other programs, with
# previews of the images.
_PATTERN = re.compile(
  r"found\.\d{3}|:2e.+|.+\.(lrdata|lrcat-data|photoslibrary|aplibrary)"
)
# Hidden ones that other programs do not hide.
_HIDDEN = frozenset((".appledouble", ".@__thumb", ".trashes"))
# Snapshots hold copies of an entire disk: of more files no more are counted.
_MOST_FILES = 10_000
# Names that programs and persons give to folders of smaller or former copies.
_OF_COPIES = frozenset(
  (
    *("thumbs", "_thumbs", "thumbnails", "_thumbnails", "previews"),
    *("recycle bin", "backup", "backups"),
  )
)


def is_system_folder(name: str) -> bool:
  """Whether a folder is one that no person has made, by its name."""
  # Windows drops spaces and dots at the end.
  folded = name.casefold().rstrip(" .")
  known = name in _EXACT or folded in _NAMES
  return known or _PATTERN.fullmatch(folded) is not None


def within(path: str) -> str:
  """Returns the name of the system folder that a path leads through, or ""."""
  for name in re.split(r"[/\\]", path)[:-1]:
    if is_system_folder(name) or name.casefold() in _HIDDEN:
      return name
  return ""


def is_hidden_file(name: str) -> bool:
  """Whether the name of a file has a dot first.

  Some file servers write ":2e" for it where macOS keeps what belongs to a file.
  """
  return name.startswith((".", ":2e"))


def folders_of_copies(paths: Iterable[str]) -> tuple[str, ...]:
  """Returns a line about folders that are read and may hold copies, if any.

  Args:
    paths: of the images that are read.
  """
  found = collections.Counter(
    folder
    for path in paths
    for folder in set(path.split(os.sep)[:-1])
    if folder.casefold() in _OF_COPIES
  )
  if not found:
    return ()
  listed = text.first_few(
    f"{name!r} ({text.count(found[name], 'image')})" for name in sorted(found)
  )
  return (
    f"folders that may hold smaller or former copies of the other images: "
    f"{listed}. If they do, move them elsewhere: copies of labelled images "
    "make accuracy look better than it is",
  )


class SystemFolders:
  """System folders that were found and not read, and their images."""

  def __init__(self, suffixes: Sequence[str]):
    """Starts with none; `suffixes` are those of images, in lower case."""
    self._suffixes = tuple(suffixes)
    # By path, since a folder may be met twice: its name, the images counted,
    # and whether there are more files.
    self._found: dict[str, tuple[str, int, bool]] = {}

  def _add(self, folder: str) -> None:
    """Notes a folder, and counts the images in it at any depth."""
    place = os.path.realpath(folder)
    if place not in self._found:
      files = (name for _, _, names in os.walk(folder) for name in names)
      number = sum(
        name.lower().endswith(self._suffixes)
        for name in itertools.islice(files, _MOST_FILES)
      )
      more = next(files, None) is not None
      self._found[place] = os.path.basename(folder), number, more

  def without(self, parent: str, names: Iterable[str]) -> list[str]:
    """Returns the names in a folder that are no system folder's."""
    kept = []
    for name in names:
      if is_system_folder(name):
        self._add(os.path.join(parent, name))
      else:
        kept.append(name)
    return kept

  def notices(self) -> list[str]:
    """Returns a line with the folders and their images; none without any."""
    folders: collections.Counter[str] = collections.Counter()
    images: collections.Counter[str] = collections.Counter()
    uncounted = set()
    for name, number, more in self._found.values():
      folders[name] += 1
      images[name] += number
      if more:
        uncounted.add(name)
    if not folders:
      return []
    listed = text.first_few(
      f"{text.count(folders[name], 'folder')} {name!r} with "
      f"{'at least ' if name in uncounted else ''}"
      f"{text.count(images[name], 'image')}"
      for name in sorted(folders)
    )
    return [
      f"left aside, since operating systems and network drives make them: "
      f"{listed}. Rename a folder to use its images"
    ]


def warnings(paths: Iterable[str]) -> list[str]:
  """Returns a line about listed images that lie in system folders, if any do.

  Args:
    paths: of images that a table names.
  """
  found = collections.Counter(filter(None, map(within, paths)))
  if not found:
    return []
  total = text.count(found.total(), "listed image")
  return [
    f"{total} in a folder that operating systems or network drives make "
    f"({text.first_few(map(repr, sorted(found)))}), such as thumbnails and "
    "deleted files: remove these lines from the table unless you mean them"
  ]
