"""Reads the pickles in PyTorch's files without running code from them.

A pickle is a program that may import and call anything. Only the operations
that `torch.save` needs for tensors in dicts and lists are allowed. They are
checked first; then the pickle is read with inert objects in place of names: no
module is imported, and no other class or function is reachable.
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

# Names in further objects that training scripts save. Their values are not
# needed, and each is replaced by an `Inert`.
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

# The operations that `torch.save` writes, in any protocol. All others are
# refused, such as those that use a registry of the reader (EXT1) or allocate
# as much as the file claims (BYTEARRAY8).
_OPERATIONS = re.compile(
  r"PROTO|FRAME|STOP|MARK|"
  r"NONE|NEWTRUE|NEWFALSE|INT|BININT|BININT1|BININT2|LONG|LONG1|FLOAT|BINFLOAT|"
  r"STRING|BINSTRING|SHORT_BINSTRING|UNICODE|BINUNICODE|SHORT_BINUNICODE|"
  r"BINBYTES|SHORT_BINBYTES|EMPTY_DICT|EMPTY_LIST|EMPTY_TUPLE|"
  r"TUPLE|TUPLE1|TUPLE2|TUPLE3|LIST|DICT|APPEND|APPENDS|SETITEM|SETITEMS|"
  r"PUT|BINPUT|LONG_BINPUT|MEMOIZE|GET|BINGET|LONG_BINGET|"
  r"GLOBAL|STACK_GLOBAL|REDUCE|BUILD|NEWOBJ|BINPERSID"
)
# A list of tensors has about 100 kB; the limit bounds the time to check it.
_MAX_BYTES = 2**24
# Python hashes an integer to itself modulo 2^61 - 1: a dict of n multiples of
# that takes a time of n^2. Old optimizers number parameters by their addresses.
_MAX_KEY = 2**48


class Inert:
  """A placeholder for an object whose value is not needed."""

  __slots__ = ()

  def __new__(cls, *unused_args: Any) -> Inert:
    """Ignores the arguments."""
    return object.__new__(cls)

  def __setstate__(self, state: Any) -> None:
    """Ignores the state."""


class _Dict(dict[Any, Any]):
  """A dict for an OrderedDict, whose attributes are ignored."""

  def __init__(self, items: Iterable[tuple[Any, Any]] = ()):
    pairs = [(key, value) for key, value in items]
    _check_keys(key for key, _ in pairs)
    super().__init__(pairs)

  def __setstate__(self, state: Any) -> None:
    """Ignores the attributes."""


class _Call:
  """A function that a pickle may call, and not use in any other way."""

  __slots__ = ("_function",)

  def __init__(self, function: Callable[..., Any]):
    self._function = function

  def __call__(self, *args: Any) -> Any:
    """Calls the function."""
    return self._function(*args)

  def __setstate__(self, state: Any) -> None:
    """Refuses attributes that a pickle sets."""
    raise errors.WeightsError("a pickle sets a function's attributes")


def load(
  data: bytes,
  *,
  names: Mapping[tuple[str, str], Any],
  persistent: Callable[[Any], Any] | None = None,
) -> Any:
  """Reads one pickle.

  Args:
    data: the bytes of the pickle.
    names: {(module, name): replacement}, where a replacement is a function,
      which the pickle may call, or a plain object.
    persistent: returns the object of a persistent id (PyTorch: a storage);
      None: the pickle must not have any.

  Returns:
    Dicts, lists, tuples, numbers and strings, results of `names` and
    `persistent`, and `Inert`.

  Raises:
    WeightsError: the pickle asks for a name or operation that is not allowed,
      or is damaged or incomplete.
  """
  try:
    _check_operations(data)
    return _Unpickler(data, names, persistent).load()
  except errors.WeightsError:
    raise
  except RecursionError:
    raise errors.WeightsError("its pickle is nested too deeply") from None
  # A wrong operand can make the unpickler raise any exception.
  except Exception as error:
    raise errors.WeightsError(
      f"its pickle is damaged ({type(error).__name__}: {error})"
    ) from error


def read_pickle(file: BinaryIO) -> bytes:
  """Reads the bytes of the one pickle at the position of a file.

  Raises:
    WeightsError: it is damaged or incomplete.
  """
  start = file.tell()
  try:
    for _, _, position in pickletools.genops(file):
      if (position or start) - start > _MAX_BYTES:
        raise errors.WeightsError(f"its pickle exceeds {_MAX_BYTES} bytes")
  except errors.WeightsError:
    raise
  except Exception as error:
    raise errors.WeightsError(
      f"its pickle is damaged or truncated ({error})"
    ) from error
  end = file.tell()
  file.seek(start)
  return file.read(end - start)


def _check_operations(data: bytes) -> None:
  """Refuses operations that no file of tensors needs."""
  if len(data) > _MAX_BYTES:
    raise errors.WeightsError(
      f"its pickle has {len(data)} bytes, more than {_MAX_BYTES}"
    )
  for operation, argument, _ in pickletools.genops(data):
    if not _OPERATIONS.fullmatch(operation.name):
      raise errors.WeightsError(
        f"its pickle has the operation {operation.name}, which no file of "
        "tensors needs"
      )
    # A writer numbers objects consecutively.
    numbers = operation.name in ("PUT", "LONG_BINPUT")
    if numbers and (argument or 0) > len(data):
      raise errors.WeightsError(
        f"its pickle numbers an object {argument}, but has {len(data)} bytes"
      )


def _check_keys(keys: Iterable[Any]) -> None:
  """Refuses keys of dicts other than strings and integers.

  Hashing nested tuples recurses in C, which ends the process, or takes twice
  as long for every two bytes of the file.

  Raises:
    WeightsError: names the type of the first other key.
  """
  for key in keys:
    if type(key) not in (str, int):
      raise errors.WeightsError(
        f"a dict of its pickle has a key of type {type(key).__name__}: only "
        "strings and integers are read"
      )
    if type(key) is int and not -_MAX_KEY < key < _MAX_KEY:
      raise errors.WeightsError(
        "a dict of its pickle has an integer of more than 48 bits as a key: "
        "such keys can take hours to read"
      )


# The unpickler in Python, since that in C gives no access to keys.
class _Unpickler(pickle._Unpickler):
  """An unpickler restricted to given names."""

  dispatch: ClassVar[dict[int, Any]] = dict(pickle._Unpickler.dispatch)
  # Of the base class; those who describe its types leave them out.
  stack: list[Any]
  load_setitem: Callable[[], None]
  load_setitems: Callable[[], None]
  load_dict: Callable[[], None]

  def __init__(
    self,
    data: bytes,
    names: Mapping[tuple[str, str], Any],
    persistent: Callable[[Any], Any] | None,
  ):
    # Strings of Python 2 may hold any bytes.
    super().__init__(io.BytesIO(data), encoding="latin-1")
    self._names = names
    self._persistent = persistent

  def _load_item(self) -> None:
    _check_keys(self.stack[-2:-1])
    self.load_setitem()

  def _load_items(self) -> None:
    # The items after the mark.
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
    """Returns the replacement of a name, without an import."""
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
    """Returns the object of a persistent id."""
    if self._persistent is None:
      raise errors.WeightsError("its pickle refers to storages")
    return self._persistent(pid)
