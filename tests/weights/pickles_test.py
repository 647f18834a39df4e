"""Pickles that want to do more than hold tensors."""

import builtins
import collections
import fractions
import functools
import io
import os
import pickle
import struct
import subprocess
import sys
import time

import pytest

from paws_jax import errors
from paws_jax.weights import pickles


class _Calls:
  """Its pickle calls a function."""

  def __init__(self, function, *args):
    self.call = (function, args)

  def __reduce__(self):
    return self.call


def _raw(*operations):
  return b"\x80\x02" + b"".join(operations) + b"."


def _global(module, name):
  return f"c{module}\n{name}\n".encode()


# What calls it, and the name that is refused.
ATTACKS = {
  "system": _Calls(os.system, "touch ran"),
  "eval": _Calls(builtins.eval, "open('ran', 'w')"),
  "exec": _Calls(builtins.exec, "open('ran', 'w')"),
  "Popen": _Calls(subprocess.Popen, ["touch", "ran"]),
  "getattr": _Calls(getattr, _Calls(os.getcwd), "upper"),
  "partial": _Calls(functools.partial, os.mkdir, "ran"),
  "Fraction": fractions.Fraction(1, 3),
  "open": _Calls(open, "ran", "w"),
}


@pytest.mark.parametrize("protocol", [2, 4])
@pytest.mark.parametrize("name", ATTACKS)
def test_programs_are_refused_by_name_and_do_not_run(
  name, protocol, tmp_path, monkeypatch
):
  monkeypatch.chdir(tmp_path)
  tree = {"encoder": {"conv1.weight": ATTACKS[name]}}
  data = pickle.dumps(tree, protocol=protocol)
  with pytest.raises(
    errors.WeightsError, match=rf"asks for \w+\.{name}, .*refused"
  ):
    pickles.load(data, names={})
  assert not list(tmp_path.iterdir())


def test_attributes_cannot_be_reached_through_a_name_that_is_allowed():
  for data in (
    # STACK_GLOBAL follows dots.
    b"\x80\x04\x8c\x0bcollections\x8c\x14OrderedDict.__init__\x93.",
    b"\x80\x04\x8c\x05numpy\x8c\x0fdtype.__class__\x93.",
    _raw(_global("torch._utils", "_rebuild_tensor_v2.__globals__")),
  ):
    with pytest.raises(errors.WeightsError, match="asks for"):
      pickles.load(data, names={("torch._utils", "_rebuild_tensor_v2"): len})


@pytest.mark.parametrize(
  "state",
  [b"}X\x01\0\0\0aK\x01s", b"N}X\x0b\0\0\0__defaults__K\x01s\x86"],
)
@pytest.mark.parametrize(
  "target",
  [
    _global("torch._utils", "_rebuild_tensor_v2"),
    _global("torch", "FloatStorage"),
    b"K\x01",
    b"]",
  ],
)
def test_attributes_of_anything_cannot_be_set(target, state):
  names = {
    ("torch._utils", "_rebuild_tensor_v2"): len,
    ("torch", "FloatStorage"): ("FloatStorage",),
  }
  with pytest.raises(errors.WeightsError, match=r"attribute|damaged"):
    pickles.load(_raw(target, state, b"b"), names=names)


def test_what_is_of_no_use_is_inert():
  ordered = collections.OrderedDict(a=1)
  ordered.metadata = {"version": 2}
  assert pickles.load(pickle.dumps(ordered, protocol=2), names={}) == {"a": 1}
  data = _raw(_global("argparse", "Namespace"), b")\x81}X\x01\0\0\0aK\x01sb")
  value = pickles.load(data, names={})
  assert isinstance(value, pickles.Inert)
  assert not hasattr(value, "a")


@pytest.mark.parametrize(
  ("data", "message"),
  [
    # The table of objects would grow to 2^31 entries.
    (
      _raw(b"K\x01r" + struct.pack("<I", 2**31)),
      "numbers an object 2147483648",
    ),
    (_raw(b"K\x01p2147483648\n"), "numbers an object 2147483648"),
    (_raw(b"\x82\x01"), "operation EXT1"),
    (b"\x80\x05\x96" + struct.pack("<Q", 2**40) + b".", "damaged"),
    (_raw(b"(ios\nsystem\n"), "operation INST"),
    (pickle.dumps({"a": 1}, protocol=2)[:-3], "damaged"),
    (b"", "damaged"),
    (_raw(b"K\x01", b"K\x02", b"e"), "damaged"),
    (_raw(b"X\x01\0\0\0aQ"), "refers to storages"),
    (b"\x80\x05" + b"]" * 3 + b"\x96" + bytes(8) + b".", "BYTEARRAY8"),
  ],
)
def test_damage_and_odd_operations_are_refused(data, message):
  with pytest.raises(errors.WeightsError, match=message):
    pickles.load(data, names={})


def test_a_huge_pickle_is_refused(monkeypatch):
  monkeypatch.setattr(pickles, "_MAX_BYTES", 100)
  data = pickle.dumps(["a"] * 200, protocol=2)
  with pytest.raises(errors.WeightsError, match="more than 100"):
    pickles.load(data, names={})
  with pytest.raises(errors.WeightsError, match="exceeds 100"):
    pickles.read_pickle(io.BytesIO(data))


# Keys that cannot be hashed: nested too deeply for C, and of 2^200 parts.
KEYS = {
  "deep": b")" + b"\x85" * 500_000,
  "wide": b"K\x01" + b"q\x01h\x01\x86" * 200,
}


@pytest.mark.parametrize("key", KEYS)
@pytest.mark.parametrize(
  ("before", "after"),
  [
    (b"}", b"Ns"),
    (b"}(", b"Nu"),
    (b"(", b"Nd"),
    (_global("collections", "OrderedDict") + b"]", b"N\x86a\x85R"),
  ],
  ids=["SETITEM", "SETITEMS", "DICT", "OrderedDict"],
)
def test_keys_that_cannot_be_hashed_are_refused(before, after, key, tmp_path):
  path = tmp_path / "data.pkl"
  path.write_bytes(_raw(before, KEYS[key], after))
  code = (
    "import pathlib, sys\n"
    "from paws_jax.weights import pickles\n"
    "pickles.load(pathlib.Path(sys.argv[1]).read_bytes(), names={})"
  )
  result = subprocess.run(
    [sys.executable, "-c", code, path],
    capture_output=True,
    text=True,
    timeout=120,
    check=False,
  )
  assert "WeightsError: a dict of its pickle has a key of type tuple" in (
    result.stderr
  )


@pytest.mark.parametrize(
  ("before", "between", "after"),
  [
    (b"}(", b"N", b"u"),
    (b"(", b"N", b"d"),
    (b"}", b"Ns", b""),
    (_global("collections", "OrderedDict") + b"]", b"N\x86a", b"\x85R"),
  ],
  ids=["SETITEMS", "DICT", "SETITEM", "OrderedDict"],
)
def test_keys_of_one_hash_are_refused(before, between, after):
  """20,000 of them would take ten seconds, a million some hours."""
  numbers = (k * (2**61 - 1) for k in range(1, 20_000))
  keys = [b"\x8a\x0a" + k.to_bytes(10, "little") + between for k in numbers]
  start = time.monotonic()
  with pytest.raises(errors.WeightsError, match="more than 48 bits as a key"):
    pickles.load(_raw(before, *keys, after), names={})
  assert time.monotonic() - start < 5


def test_addresses_are_keys():
  state = {2**47 - 8: "a", -1: "b", 0: "c"}
  assert pickles.load(pickle.dumps(state, protocol=2), names={}) == state


def test_ordered_dicts_of_python_2_are_read():
  data = _raw(_global("collections", "OrderedDict"), b"](](U\x01aK\x01ee\x85R")
  assert pickles.load(data, names={}) == {"a": 1}


def test_pickles_in_a_row_are_split():
  file = io.BytesIO(pickle.dumps({"a": 1}) + pickle.dumps([2]) + b"rest")
  assert pickles.load(pickles.read_pickle(file), names={}) == {"a": 1}
  assert pickles.load(pickles.read_pickle(file), names={}) == [2]
  assert file.read() == b"rest"
  with pytest.raises(errors.WeightsError, match="damaged or truncated"):
    pickles.read_pickle(io.BytesIO(pickle.dumps({"a": 1})[:-4]))
