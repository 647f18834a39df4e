"""Files that are none: pipes, sockets, devices, and one that is too large."""

import os
import socket

# What an error calls them.
KINDS = {
  "pipe": "a named pipe, not a regular file",
  "socket": "a socket, not a regular file",
  "device": "a device, not a regular file",
  "directory": "a directory, not a regular file",
  "huge": "bytes, and no more than",
}


def make(path, kind):
  """Makes one of `KINDS` at a path, and returns the path."""
  if kind == "pipe":
    os.mkfifo(path)
  elif kind == "socket":
    # The name of a socket is short.
    here = os.open(path.parent, os.O_RDONLY)
    with socket.socket(socket.AF_UNIX) as server:
      server.bind(f"/proc/self/fd/{here}/{path.name}")
    os.close(here)
  elif kind == "device":
    # It never ends.
    path.symlink_to("/dev/zero")
  elif kind == "directory":
    path.mkdir()
  else:
    path.touch()
    os.truncate(path, 2**40)
  return path
