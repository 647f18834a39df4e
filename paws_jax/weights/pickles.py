"""Reads the pickles inside PyTorch's files without running what they say.

A pickle is a program: it may import and call anything. Here it may do what
PyTorch's own `torch.save` of tensors in dicts and lists needs. First its
operations are looked through, then it is run with names that stand for inert
objects of ours: no module is imported for it, and no class or function of
anything else ever reaches it.
"""

from __future__ import annotations

import io
import pickle
import pickletools
import re
from collections.abc import Callable
from collections.abc import Iterable
from collections.abc import Mapping
from typing import Any
from typing import BinaryIO
from typing import ClassVar

from paws_jax import errors

# Names that come with what a training script saves besides: their values are
# of no use here, and whoever reads them finds an `Inert`.
_INERT = {
  ("_codecs", "encode"),
  ("argparse", "Namespace"),
  ("numpy", "dtype"),
  ("numpy.core.multiarray", "scalar"),
  ("numpy._core.multiarray", "scalar"),
  ("torch", "Size"),
  ("torch", "device"),
  *(("torch", f"float{bits}") for bits in (16, 32, 64)),
  ("torch", "bfloat16"),
}

# What `torch.save` writes, of any protocol. The rest, among it what counts on
# a registry of the reader (EXT1) or allocates by a number in the file
# (BYTEARRAY8), is refused.
_OPERATIONS = re.compile(
  r"PROTO|FRAME|STOP|MARK|"
  r"NONE|NEWTRUE|NEWFALSE|INT|BININT|BININT1|BININT2|LONG|LONG1|FLOAT|BINFLOAT|"
  r"STRING|BINSTRING|SHORT_BINSTRING|UNICODE|BINUNICODE|SHORT_BINUNICODE|"
  r"BINBYTES|SHORT_BINBYTES|EMPTY_DICT|EMPTY_LIST|EMPTY_TUPLE|"
  r"TUPLE|TUPLE1|TUPLE2|TUPLE3|LIST|DICT|APPEND|APPENDS|SETITEM|SETITEMS|"
  r"PUT|BINPUT|LONG_BINPUT|MEMOIZE|GET|BINGET|LONG_BINGET|"
  r"GLOBAL|STACK_GLOBAL|REDUCE|BUILD|NEWOBJ|BINPERSID"
)
# A list of tensors is some 100 kB; this bounds the time to look it through.
_MOST_BYTES = 2**26


class Inert:
  """Stands for an object whose value is of no use; takes and keeps nothing."""

  __slots__ = ()

  def __new__(cls, *unused_args: Any) -> Inert:
    """Ignores the arguments."""
    return object.__new__(cls)

  def __setstate__(self, state: Any) -> None:
    """Ignores the state."""


class _Dict(dict):
  """An OrderedDict with or without attributes (`state_dict()._metadata`)."""

  def __init__(self, items: Iterable[tuple[Any, Any]] = ()):
    pairs = [(key, value) for key, value in items]
    _check_keys(key for key, _ in pairs)
    super().__init__(pairs)

  def __setstate__(self, state: Any) -> None:
    """Ignores the attributes."""


class _Call:
  """A function that a pickle may call, and can do nothing else with."""

  __slots__ = ("_function",)

  def __init__(self, function: Callable[..., Any]):
    self._function = function

  def __call__(self, *args: Any) -> Any:
    """Calls the function."""
    return self._function(*args)

  def __setstate__(self, state: Any) -> None:
    """Refuses what a pickle would set here."""
    raise errors.WeightsError("a pickle sets a function's attributes")


def load(
  data: bytes,
  *,
  names: Mapping[tuple[str, str], Any],
  persistent: Callable[[Any], Any] | None = None,
) -> Any:
  """Reads one pickle.

  Args:
    data: it, from its first byte to its last.
    names: {(module, name): what stands for it}: a function, which becomes
      callable for the pickle, or a plain object.
    persistent: what a persistent id stands for (PyTorch: a storage); None:
      there are none.

  Returns:
    dicts, lists, tuples, numbers and strings, what `names` and `persistent`
    have given, and `Inert`.

  Raises:
    WeightsError: naming what it would import or do that is not allowed, or
      when it is no whole pickle.
  """
  try:
    _check_operations(data)
    return _Unpickler(data, names, persistent).load()
  except errors.WeightsError:
    raise
  except RecursionError:
    raise errors.WeightsError("its pickle is nested too deeply") from None
  # The unpickler passes on whatever a wrong operand leads to.
  except Exception as error:
    raise errors.WeightsError(
      f"its pickle is damaged ({type(error).__name__}: {error})"
    ) from error


def read_pickle(file: BinaryIO) -> bytes:
  """Reads the bytes of the pickle at a file's position, and no more.

  Raises:
    WeightsError: when there is no whole one.
  """
  start = file.tell()
  try:
    for _, _, position in pickletools.genops(file):
      if position - start > _MOST_BYTES:
        raise errors.WeightsError(f"its pickle exceeds {_MOST_BYTES} bytes")
  except errors.WeightsError:
    raise
  except Exception as error:
    raise errors.WeightsError(
      f"its pickle is damaged or cut off ({error})"
    ) from error
  end = file.tell()
  file.seek(start)
  return file.read(end - start)


def _check_operations(data: bytes) -> None:
  """Refuses operations that a file of tensors does not need."""
  if len(data) > _MOST_BYTES:
    raise errors.WeightsError(
      f"its pickle has {len(data)} bytes, more than {_MOST_BYTES}"
    )
  for operation, argument, _ in pickletools.genops(data):
    if not _OPERATIONS.fullmatch(operation.name):
      raise errors.WeightsError(
        f"its pickle has the operation {operation.name}, which no file of "
        "tensors needs"
      )
    # A writer numbers what it writes one by one.
    if operation.name in ("PUT", "LONG_BINPUT") and argument > len(data):
      raise errors.WeightsError(
        f"its pickle numbers an object {argument}, but has {len(data)} bytes"
      )


def _check_keys(keys: Iterable[Any]) -> None:
  """Refuses keys but strings and integers.

  To hash a tuple of tuples is a recursion in C, which ends the process, or it
  takes twice as long for every two bytes of the file.

  Raises:
    WeightsError: naming the type of the first.
  """
  for key in keys:
    if type(key) not in (str, int):
      raise errors.WeightsError(
        f"a dict of its pickle has a key of type {type(key).__name__}: only "
        "strings and integers are read"
      )


# The one in Python, since that in C does not let keys be looked at.
class _Unpickler(pickle._Unpickler):
  """Knows the names it is given, and no others."""

  dispatch: ClassVar[dict[int, Any]] = dict(pickle._Unpickler.dispatch)

  def __init__(
    self,
    data: bytes,
    names: Mapping[tuple[str, str], Any],
    persistent: Callable[[Any], Any] | None,
  ):
    # Strings of Python 2 are bytes of any kind.
    super().__init__(io.BytesIO(data), encoding="latin-1")
    self._names = names
    self._persistent = persistent

  def _load_item(self) -> None:
    _check_keys(self.stack[-2:-1])
    self.load_setitem()

  def _load_items(self) -> None:
    # What came after the mark.
    _check_keys(self.stack[::2])
    self.load_setitems()

  def _load_dict(self) -> None:
    _check_keys(self.stack[::2])
    self.load_dict()

  dispatch |= {
    pickle.SETITEM[0]: _load_item,
    pickle.SETITEMS[0]: _load_items,
    pickle.DICT[0]: _load_dict,
  }

  def find_class(self, module: str, name: str) -> Any:
    """What stands for a name; imports nothing."""
    if (module, name) == ("collections", "OrderedDict"):
      return _Call(_Dict)
    if (module, name) in _INERT:
      return Inert
    if (module, name) not in self._names:
      raise errors.WeightsError(
        f"its pickle asks for {module}.{name}, which is refused: reading it "
        "could run a program"
      )
    found = self._names[module, name]
    return _Call(found) if callable(found) else found

  def persistent_load(self, pid: Any) -> Any:
    """What a persistent id stands for."""
    if self._persistent is None:
      raise errors.WeightsError("its pickle refers to storages")
    return self._persistent(pid)
