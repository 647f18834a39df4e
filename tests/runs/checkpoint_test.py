"""Round trips, damage, retention."""

import pathlib
import resource
import shutil

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import orbax.checkpoint as ocp
import pytest
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec

from paws_jax import errors
from paws_jax.runs import checkpoint


def array(dtype, shape=(4, 5), seed=0):
  rng = np.random.default_rng(seed)
  if dtype == "bool":
    return rng.integers(0, 2, shape).astype(bool)
  if "int" in dtype:
    return rng.integers(0, 100, shape).astype(dtype)
  return rng.standard_normal(shape).astype(
    ml_dtypes.bfloat16 if dtype == "bfloat16" else dtype
  )


def make_state(seed=0):
  state = {
    "step": np.int32(seed),
    "params": {
      "kernel": array("float32", (33, 65), seed),
      "bias": array("bfloat16", (65,), seed),
    },
    "finite": np.True_,
    "queue": array("int32", (16, 3), seed),
  }
  return jax.tree.map(jnp.asarray, state)


def like(state):
  return jax.tree.map(
    lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding),
    state,
  )


def assert_same_bits(actual, expected):
  assert jax.tree.structure(actual) == jax.tree.structure(expected)
  for a, b in zip(
    jax.tree.leaves(actual), jax.tree.leaves(expected), strict=True
  ):
    assert a.dtype == b.dtype
    assert np.asarray(a).tobytes() == np.asarray(b).tobytes()


def write(directory, steps, **options):
  with checkpoint.Checkpointer(directory, **options) as checkpointer:
    for step in steps:
      checkpointer.save(step, make_state(step), {"wall": step / 10})


def test_nothing_to_restore(tmp_path):
  with checkpoint.Checkpointer(tmp_path / "c") as checkpointer:
    assert checkpointer.steps() == []
    assert checkpointer.restore_latest(like(make_state())) is None


def test_round_trip_is_bitwise(tmp_path):
  state = make_state(7)
  special = np.float32([np.nan, -0.0, np.inf, 1e-45]).tolist()
  state["params"]["special"] = jnp.asarray(special)
  meta = {"wall": 0.1 + 0.2, "rows": [{"loss": 1 / 3}], "nothing": None}
  with checkpoint.Checkpointer(tmp_path / "c") as checkpointer:
    checkpointer.save(12, state, meta)
  with checkpoint.Checkpointer(tmp_path / "c") as checkpointer:
    step, restored, read = checkpointer.restore_latest(like(state))
  assert step == 12
  assert read == meta
  assert_same_bits(restored, state)


def test_restores_with_the_sharding_asked_for(tmp_path):
  write(tmp_path / "c", [3])
  mesh = jax.make_mesh((8,), ("x",), axis_types=(jax.sharding.AxisType.Auto,))
  spread = NamedSharding(mesh, PartitionSpec("x"))
  whole = NamedSharding(mesh, PartitionSpec())
  asked = jax.tree.map(
    lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=whole),
    make_state(),
  )
  asked["queue"] = jax.ShapeDtypeStruct((16, 3), jnp.int32, sharding=spread)
  with checkpoint.Checkpointer(tmp_path / "c") as checkpointer:
    _, restored, _ = checkpointer.restore_latest(asked)
  assert restored["queue"].sharding == spread
  assert_same_bits(restored, make_state(3))


def test_keeps_the_last_two(tmp_path):
  write(tmp_path / "c", [1, 2, 3])
  write(tmp_path / "c", [4])
  with checkpoint.Checkpointer(tmp_path / "c") as checkpointer:
    assert checkpointer.steps() == [3, 4]


def test_keeps_multiples_also_after_reopening(tmp_path):
  write(tmp_path / "c", [2, 4, 6, 8], keep_every_steps=4)
  write(tmp_path / "c", [10, 12, 14, 16], keep_every_steps=4)
  with checkpoint.Checkpointer(
    tmp_path / "c", keep_every_steps=4
  ) as checkpointer:
    assert checkpointer.steps() == [4, 8, 12, 14, 16]


def test_refuses_to_write_a_step_again_or_an_earlier_one(tmp_path):
  write(tmp_path / "c", [4])
  with checkpoint.Checkpointer(tmp_path / "c") as checkpointer:
    for step in (4, 3):
      with pytest.raises(errors.CheckpointError, match=f"checkpoint {step}"):
        checkpointer.save(step, make_state(), {})


def test_saving_does_not_see_later_values(tmp_path):
  @jax.jit(donate_argnums=0)
  def advance(state):
    return jax.tree.map(lambda x: x * 2 + 1, state)

  rng = np.random.default_rng(0)
  values = [rng.standard_normal((512, 1024), np.float32) for _ in range(8)]
  state = [jnp.array(value) for value in values]
  with checkpoint.Checkpointer(tmp_path / "c") as checkpointer:
    checkpointer.save(1, state, {})
    for _ in range(20):
      state = advance(state)
    jax.block_until_ready(state)
  asked = like(state)
  with checkpoint.Checkpointer(tmp_path / "c") as checkpointer:
    _, restored, _ = checkpointer.restore_latest(asked)
  assert_same_bits(restored, [jnp.asarray(value) for value in values])


def damage_by_flipping(path):
  data = bytearray(path.read_bytes())
  data[len(data) // 2] ^= 4
  path.write_bytes(bytes(data))


def damage_by_truncating(path):
  path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def data_files(directory):
  """Files of a checkpoint, largest first."""
  files = [p for p in directory.rglob("*") if p.is_file()]
  return sorted(files, key=lambda p: (-p.stat().st_size, str(p)))


@pytest.mark.parametrize(
  "damage", [damage_by_flipping, damage_by_truncating, pathlib.Path.unlink]
)
def test_falls_back_when_the_largest_file_is_damaged(tmp_path, damage):
  write(tmp_path / "c", [2, 4])
  damage(data_files(tmp_path / "c" / "4")[0])
  said = []
  with checkpoint.Checkpointer(
    tmp_path / "c", warn=said.append
  ) as checkpointer:
    step, restored, meta = checkpointer.restore_latest(like(make_state()))
    assert step == 2
    assert meta == {"wall": 0.2}
    assert_same_bits(restored, make_state(2))
    assert len(said) == 1
    assert said[0].startswith("checkpoint 4 is damaged: ")
    # The damaged one is out of the way of those that follow.
    assert checkpointer.steps() == [2]
    checkpointer.save(3, make_state(3), {})
    checkpointer.save(4, make_state(4), {})
  assert (tmp_path / "c" / "damaged-4").is_dir()
  with checkpoint.Checkpointer(
    tmp_path / "c", warn=said.append
  ) as checkpointer:
    step, restored, _ = checkpointer.restore_latest(like(make_state()))
  assert step == 4
  assert len(said) == 1
  assert_same_bits(restored, make_state(4))


# orbax leaves event loops behind when a file is broken.
@pytest.mark.filterwarnings(
  "ignore::pytest.PytestUnraisableExceptionWarning",
  "ignore::ResourceWarning",
)
@pytest.mark.slow
def test_no_damage_to_any_file_gives_wrong_values(tmp_path):
  """Each file flipped, cut and removed: the right values or a fall-back."""
  write(tmp_path / "whole", [2, 4])
  expected = {step: make_state(step) for step in (2, 4)}
  outcomes = []
  for file in data_files(tmp_path / "whole" / "4"):
    for damage in (
      damage_by_flipping,
      damage_by_truncating,
      pathlib.Path.unlink,
    ):
      copy = tmp_path / "copy"
      shutil.copytree(tmp_path / "whole", copy)
      damage(copy / file.relative_to(tmp_path / "whole"))
      with checkpoint.Checkpointer(copy, warn=lambda _: None) as checkpointer:
        step, restored, meta = checkpointer.restore_latest(like(make_state()))
      assert_same_bits(restored, expected[step])
      assert meta == {"wall": step / 10}
      outcomes.append(step)
      shutil.rmtree(copy)
  assert outcomes.count(2) >= 6
  assert outcomes.count(4) >= 1


def test_nothing_whole_is_an_error(tmp_path):
  write(tmp_path / "c", [2, 4])
  for step in ("2", "4"):
    damage_by_flipping(data_files(tmp_path / "c" / step)[0])
  said = []
  with checkpoint.Checkpointer(
    tmp_path / "c", warn=said.append
  ) as checkpointer:
    with pytest.raises(
      errors.CheckpointError, match=r"none of the checkpoints \[2, 4\]"
    ):
      checkpointer.restore_latest(like(make_state()))
    # Nothing is moved: a person may still want to look.
    assert checkpointer.steps() == [2, 4]
  assert len(said) == 2


@pytest.mark.parametrize(
  ("error", "raised"),
  [
    (MemoryError("no room"), MemoryError),
    (RuntimeError("RESOURCE_EXHAUSTED: no room"), RuntimeError),
    (PermissionError(13, "not yours"), errors.CheckpointError),
    (ValueError("PERMISSION_DENIED: not yours"), errors.CheckpointError),
    (OSError(5, "Input/output error"), errors.CheckpointError),
    (ValueError("UNAVAILABLE: try later"), errors.CheckpointError),
  ],
)
def test_trouble_with_the_machine_sets_no_checkpoint_aside(
  tmp_path, monkeypatch, error, raised
):
  write(tmp_path / "c", [2, 4])
  said = []

  def fail(*unused, **options):
    raise error

  with checkpoint.Checkpointer(
    tmp_path / "c", warn=said.append
  ) as checkpointer:
    monkeypatch.setattr(ocp.CheckpointManager, "restore", fail)
    told = r"no room|not be read.*not yours|cannot be read now"
    with pytest.raises(raised, match=told):
      checkpointer.restore_latest(like(make_state()))
    assert checkpointer.steps() == [2, 4]
  assert said == []


def test_another_model_is_named(tmp_path):
  write(tmp_path / "c", [2])
  other = like(make_state())
  other["params"]["kernel"] = jax.ShapeDtypeStruct((33, 64), jnp.float32)
  other["params"]["bias"] = jax.ShapeDtypeStruct((65,), jnp.float32)
  del other["queue"]
  other["momentum"] = jax.ShapeDtypeStruct((2,), jnp.float32)
  with (
    checkpoint.Checkpointer(tmp_path / "c") as checkpointer,
    pytest.raises(errors.CheckpointError) as caught,
  ):
    checkpointer.restore_latest(other)
  message = str(caught.value)
  assert "4 arrays differ" in message
  for line in (
    "params/kernel: [[33, 65], 'float32'] there, [[33, 64], 'float32'] asked",
    "params/bias: [[65], 'bfloat16'] there, [[65], 'float32'] asked",
    "queue: [[16, 3], 'int32'] there, nothing asked",
    "momentum: nothing there, [[2], 'float32'] asked",
  ):
    assert line in message


def test_a_directory_that_cannot_be_made(tmp_path):
  (tmp_path / "file").write_text("in the way")
  for place in (tmp_path / "file", tmp_path / "file" / "c"):
    with pytest.raises(errors.CheckpointError, match="cannot hold"):
      checkpoint.Checkpointer(place)


@pytest.fixture
def small_files():
  """Files cannot grow beyond 4 kB: a stand-in for a full disk."""
  before = resource.getrlimit(resource.RLIMIT_FSIZE)
  # JAX must not write to its cache of programs, whatever compiling takes. It
  # reads this setting every time, jax_enable_compilation_cache only once.
  seconds = jax.config.jax_persistent_cache_min_compile_time_secs
  setting = "jax_persistent_cache_min_compile_time_secs"
  jax.config.update(setting, float("inf"))
  resource.setrlimit(resource.RLIMIT_FSIZE, (4096, before[1]))
  yield
  resource.setrlimit(resource.RLIMIT_FSIZE, before)
  jax.config.update(setting, seconds)


def test_a_failed_write_is_an_error(tmp_path, request, caplog):
  state = {"w": jnp.asarray(array("float32", (300, 300)))}
  write(tmp_path / "c", [2])
  full = checkpoint.Checkpointer(tmp_path / "c")
  request.getfixturevalue("small_files")

  def save():
    full.save(4, state, {})
    full.close()

  message = "could not be written .*: File too large. Free space, and run"
  with pytest.raises(errors.CheckpointError, match=message):
    save()
  # One line for users: orbax logs none of its stack traces.
  assert not [record for record in caplog.records if record.exc_info]
  with checkpoint.Checkpointer(tmp_path / "c") as checkpointer:
    assert checkpointer.steps() == [2]
    assert checkpointer.restore_latest(like(make_state()))[0] == 2


def test_a_directory_that_vanishes_is_not_made_anew(tmp_path):
  with checkpoint.Checkpointer(tmp_path / "c") as checkpointer:
    checkpointer.save(2, make_state(2), {})
    checkpointer.wait()
    (tmp_path / "c").rename(tmp_path / "elsewhere")
    with pytest.raises(errors.CheckpointError, match=r"4 .* has been deleted"):
      checkpointer.save(4, make_state(4), {})
  assert not (tmp_path / "c").exists()
  with checkpoint.Checkpointer(tmp_path / "elsewhere") as checkpointer:
    assert checkpointer.steps() == [2]


def test_a_failed_write_does_not_hide_the_error_inside(tmp_path, small_files):
  def use():
    with checkpoint.Checkpointer(tmp_path / "c") as checkpointer:
      checkpointer.save(4, state, {})
      raise KeyError("inside")

  state = {"w": jnp.asarray(array("float32", (300, 300)))}
  with pytest.raises(KeyError, match="inside"):
    use()


def test_leftovers_of_a_killed_write_are_swept(tmp_path):
  write(tmp_path / "c", [2])
  leftover = tmp_path / "c" / "4.orbax-checkpoint-tmp"
  (leftover / "state").mkdir(parents=True)
  (leftover / "state" / "part").write_text("half")
  with checkpoint.Checkpointer(tmp_path / "c") as checkpointer:
    assert checkpointer.steps() == [2]
    checkpointer.save(4, make_state(4), {})
  assert not leftover.exists()


def test_who_only_reads_leaves_everything_as_it_is(tmp_path):
  write(tmp_path, [1, 2])
  # What another process is writing, and a checkpoint that is damaged.
  being_written = tmp_path / "3.orbax-checkpoint-tmp"
  being_written.mkdir()
  for path in data_files(tmp_path / "2"):
    damage_by_truncating(path)
  before = sorted(str(path) for path in tmp_path.rglob("*"))
  warnings = []
  with checkpoint.Checkpointer(
    tmp_path, read_only=True, warn=warnings.append
  ) as checkpointer:
    step, _, _ = checkpointer.restore_latest(like(make_state()))
  assert step == 1
  assert len(warnings) == 1
  assert sorted(str(path) for path in tmp_path.rglob("*")) == before


# --- Trees of other versions, and the item beside the state ------------------


@pytest.mark.parametrize("stored_has_it", [True, False])
def test_a_tree_of_another_version_is_not_damage(tmp_path, stored_has_it):
  """A field more in the state, even an empty one, is named as what it is."""
  plain = make_state(3)
  more = plain | {"extra": {}}
  stored, asked = (more, plain) if stored_has_it else (plain, more)
  warnings = []
  with checkpoint.Checkpointer(
    tmp_path / "c", warn=warnings.append
  ) as checkpointer:
    checkpointer.save(3, stored, {"version": "0.0.7"})
  with checkpoint.Checkpointer(
    tmp_path / "c", warn=warnings.append
  ) as checkpointer:
    with pytest.raises(errors.CheckpointError) as info:
      checkpointer.restore_latest(like(asked))
    assert checkpointer.steps() == [3]
  message = str(info.value)
  assert "paws_jax 0.0.7" in message
  assert "extra is" in message
  assert "of this version" in message
  assert not warnings
  assert [p.name for p in (tmp_path / "c").iterdir()] == ["3"]


def test_extra_arrays_are_an_item_of_their_own(tmp_path):
  state = make_state(3)
  extra = {"queue": jnp.arange(6.0).reshape(3, 2), "empty": {}}
  with checkpoint.Checkpointer(tmp_path / "c") as checkpointer:
    checkpointer.save(3, state, {"wall": 1}, extra=extra)
    checkpointer.wait()
    step, (restored, restored_extra), meta = checkpointer.restore_latest(
      like(state), extra=like(extra)
    )
  assert (step, meta) == (3, {"wall": 1})
  assert_same_bits(restored, state)
  assert_same_bits(restored_extra, extra)
  items = {path.name for path in (tmp_path / "c" / "3").iterdir()}
  assert {"state", "extra", "meta"} <= items


def test_nothing_extra_leaves_no_trace(tmp_path):
  with checkpoint.Checkpointer(tmp_path / "c") as checkpointer:
    checkpointer.save(3, make_state(3), {}, extra={"empty": {}})
  assert not (tmp_path / "c" / "3" / "extra").exists()


def test_damage_to_extra_arrays_is_found(tmp_path):
  state, extra = make_state(3), {"queue": jnp.arange(4096.0)}
  with checkpoint.Checkpointer(tmp_path / "c") as checkpointer:
    checkpointer.save(3, state, {}, extra=extra)
  files = [p for p in (tmp_path / "c/3/extra").rglob("*") if p.is_file()]
  largest = max(files, key=lambda path: path.stat().st_size)
  content = bytearray(largest.read_bytes())
  content[len(content) // 2] ^= 1
  largest.write_bytes(bytes(content))
  warnings = []
  with (
    checkpoint.Checkpointer(
      tmp_path / "c", warn=warnings.append
    ) as checkpointer,
    pytest.raises(errors.CheckpointError, match="none of the checkpoints"),
  ):
    checkpointer.restore_latest(like(state), extra=like(extra))
  assert "checkpoint 3 is damaged" in warnings[0]


def test_only_some_arrays_are_read(tmp_path):
  state, extra = make_state(3), {"queue": jnp.arange(6.0), "big": jnp.ones(9)}
  with checkpoint.Checkpointer(tmp_path / "c") as checkpointer:
    checkpointer.save(3, state, {}, extra=extra)
    checkpointer.wait()
    _, (restored, restored_extra), _ = checkpointer.restore_latest(
      like(state),
      extra=like(extra),
      only={"params/kernel", "extra/queue"}.__contains__,
    )
  assert_same_bits(restored["params"]["kernel"], state["params"]["kernel"])
  assert len(jax.tree.leaves(restored)) == 1
  assert_same_bits(restored_extra["queue"], extra["queue"])
  assert restored_extra["big"] is None
