"""A full disk is said in one sentence, and leaves no half files."""

import errno
import os
import resource

import pytest

from paws_jax.runs import files
from paws_jax.runs import full_disk

_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


@pytest.fixture
def small_files():
  """Files cannot grow beyond 4 kB: a stand-in for a full disk."""
  before = resource.getrlimit(resource.RLIMIT_FSIZE)
  resource.setrlimit(resource.RLIMIT_FSIZE, (4096, before[1]))
  yield
  resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.mark.parametrize("number", _FULL)
def test_the_reason_is_found_in_messages_of_libraries(number):
  words = os.strerror(number)
  inside = f"RESOURCE_EXHAUSTED: Failed to write 9 bytes: {words} [os_error]"
  assert full_disk.reason(OSError(number, words)) == words
  assert full_disk.reason(ValueError(inside)) == words


def test_other_errors_keep_their_message():
  error = PermissionError(errno.EACCES, "Permission denied", "/there/file")
  assert full_disk.reason(error) is None
  assert full_disk.sentence(error, "/run") == str(error)


@pytest.mark.parametrize("replace", [files.replace_text, files.replace_output])
def test_a_file_that_does_not_fit_is_named_and_leaves_nothing(
  tmp_path, small_files, replace
):
  path = tmp_path / "results.json"
  replace(path, "old")
  before = sorted(tmp_path.iterdir())
  with pytest.raises(OSError, match="File too large") as error:
    replace(path, "new" * 4096)
  assert full_disk.sentence(error.value, "/run") == (
    f"{path} cannot be written: File too large. Free space, and run the same "
    "command again."
  )
  assert path.read_text() == "old"
  assert sorted(tmp_path.iterdir()) == before
