"""CMSF: numbers and trajectories of the public code, tables, refusals."""

import functools
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from paws_jax import config as config_lib
from paws_jax import errors
from paws_jax.losses import mean_shift
from paws_jax.methods import cmsf
from paws_jax.methods import kmeans
from paws_jax.methods import memory_bank
from paws_jax.methods import pseudo_label_head
from paws_jax.plan import hlo
from paws_jax.plan import traced_costs
from tests import golden_reference
from tests import golden_ssl
from tests import mean_shift_golden
from tests import ssl_trajectory
from tests import toy_method
from tests import toy_training

pytestmark = pytest.mark.unoptimized

CONSTRAINTS = {
  "msf": "none",
  "twoq": "second_query",
  "km": "kmeans",
  "sup": "labels",
  "semi": "pseudo_labels",
}
FILES = [
  name
  for kind in CONSTRAINTS
  for name in golden_reference.names(f"cmsf/{kind}_*")
  if name != "semi_cache"
]
HEAD = {"fc1": "0", "bn1": "1", "fc2": "3"}


class _WithLogits(cmsf.Cmsf):
  """The method with given logits in place of its head's."""

  def logits(self, extra, targets):
    return extra["logits"]


def _method(constraint, arrays, config, x64, **fields):
  """The method of a file, of which only the widths of its encoder matter."""
  size, width = arrays["bank"].shape
  batch_size = len(arrays["query"])
  number = 1 + max(
    arrays["index"].max(), arrays["bank_index"].max(), len(_table(arrays)) - 1
  )
  labels = np.full(number, -1, np.int32)
  seen = arrays.get("label_seen", arrays.get("label"))
  if seen is not None:
    labels[arrays["index"]] = seen
  made = ssl_trajectory.make(
    "cmsf",
    {"constraint": constraint, "bank_size": size} | fields,
    mean_shift_golden.encoder({}, x64, output_dim=width),
    batch_size=batch_size,
    num_images=int(number),
    num_classes=int(config.get("classes") or 1 + max(labels.max(), 0) + 20),
    labels=labels,
  )
  return _WithLogits(**{name: getattr(made, name) for name in vars(made)})


def _table(arrays):
  return arrays.get("latest", arrays.get("cluster", ()))


def _extra(method, arrays, x64):
  """The state before the step of a file."""
  batch_size = len(arrays["query"])
  params = {"trunk": jnp.zeros((), float), "projection": {}}
  extra = method.init_extra(jax.random.key(0), params, {}, method.facts)
  extra = {**extra, "target": {}}

  def by_batch(array):
    return jnp.asarray(array).reshape(-1, batch_size, *array.shape[1:])

  keys = {
    "rows": "bank",
    "index": "bank_index",
    "tag": "bank_label",
    "previous": "bank_previous",
    "has_previous": "bank_has_previous",
  }
  bank = extra["bank"]
  extra["bank"] = {
    name: by_batch(arrays[keys[name]]).astype(array.dtype)
    for name, array in bank.items()
  }
  for name in ("latest", "known", "cluster"):
    if name in extra and name in arrays:
      extra[name] = jnp.asarray(arrays[name]).astype(extra[name].dtype)
  if "logits" in arrays:
    extra["logits"] = golden_ssl.floats(arrays, ("logits",), x64)[0]
    extra["head_trained"] = jnp.asarray(True)
  return extra


@ssl_trajectory.each_dtype
@pytest.mark.parametrize("name", FILES)
def test_loss_and_state_equal_the_reference(name, x64):
  arrays, config = golden_ssl.load(f"cmsf/{name}")
  constraint = CONSTRAINTS[name.split("_")[0]]
  k = 0 if config["k"] == "all" else config["k"]
  fields = {"k": k, "k_previous": config.get("k_previous") or k or 1}
  if "threshold" in config:
    fields["threshold"] = config["threshold"]
  with jax.enable_x64(x64):
    method = _method(constraint, arrays, config, x64, **fields)
    query, target = golden_ssl.floats(arrays, ("query", "target"), x64)
    target = golden_ssl.unit(arrays["target"]).astype(query.dtype)
    extra = _extra(method, arrays, x64)
    ids = jnp.asarray(arrays["index"])
    step = jnp.int32(arrays["pointer"] // len(query))

    @jax.jit
    def run(query, extra):
      def loss(query):
        found = method.neighbours(extra, target, ids, step)
        terms = {
          key: jnp.mean(mean_shift.shift_rows(query, means))
          for key, means in found.means.items()
        }
        return sum(terms.values()) / len(terms), (terms, found)

      value, grad = jax.value_and_grad(loss, has_aux=True)(query)
      _, after = method.after_update(
        {},
        {},
        {k: v for k, v in extra.items() if k != "logits"},
        value[1][1].new,
        step=step,
        finite=jnp.asarray(True),
      )
      members = method.members(after, step=step + 1)
      return value, grad, after, members

    (loss, (terms, found)), grad, after, members = run(query, extra)
  golden_ssl.assert_near({"loss": loss, "grad_query": grad}, arrays, x64)
  for key, value in terms.items():
    golden_ssl.assert_near({f"term_{key}": value}, arrays, x64)
  _assert_state(after, arrays, x64)
  # Monitoring finds the rows that the loss has used.
  kind = "unconstrained" if constraint == "none" else "constrained"
  np.testing.assert_array_equal(
    members.chosen, _mask(arrays[f"chosen_{kind}"], len(arrays["bank"]))
  )
  np.testing.assert_array_equal(members.queries, arrays["index"])
  if "members" in arrays and "members" in found.metrics:
    expected = np.minimum(arrays["members"], k).mean()
    np.testing.assert_allclose(found.metrics["members"], expected, rtol=1e-6)
  if "assigned" in arrays:
    np.testing.assert_array_equal(found.new["tag"], arrays["assigned"])


def _mask(slots, num_rows):
  mask = np.zeros((len(slots), num_rows), bool)
  queries, places = np.nonzero(slots >= 0)
  mask[queries, slots[queries, places]] = True
  return mask


def _assert_state(after, arrays, x64):
  bank = {
    key: np.asarray(value).reshape(-1, *value.shape[2:])
    for key, value in after["bank"].items()
  }
  golden_ssl.assert_near({"bank_after": bank["rows"]}, arrays, x64)
  np.testing.assert_array_equal(bank["index"], arrays["bank_index_after"])
  if "tag" in bank:
    np.testing.assert_array_equal(bank["tag"], arrays["bank_label_after"])
  if "previous" in bank:
    golden_ssl.assert_array(
      bank["previous"], arrays["bank_previous_after"], x64
    )
    golden_ssl.assert_array(after["latest"], arrays["latest_after_f64"], x64)
    np.testing.assert_array_equal(
      bank["has_previous"], arrays["bank_has_previous_after"]
    )
    np.testing.assert_array_equal(after["known"], arrays["known_after"])


def test_the_bank_and_its_partners_equal_the_reference():
  arrays, config = golden_ssl.load("cmsf/bank_updates")
  first = {"query": arrays["target.0"], "index": arrays["index.0"]}
  with jax.enable_x64(True):
    method = _method("second_query", {**arrays, **first}, config, True)
    extra = _extra(method, {**arrays, **first}, True)
    step = int(arrays["pointer"]) // len(first["index"])
    for t in range(config["steps"]):
      target = golden_ssl.unit(arrays[f"target.{t}"])
      ids = jnp.asarray(arrays[f"index.{t}"])
      now, finite = jnp.int32(step + t), jnp.asarray(True)
      found = method.neighbours(extra, target, ids, now)
      _, extra = method.after_update(
        {}, {}, extra, found.new, step=now, finite=finite
      )
      expected = {
        f"{key}_after": arrays[f"{key}_after.{t}"]
        for key in ("bank_index", "bank_previous", "bank_has_previous")
      }
      expected["bank_after_f64"] = arrays[f"bank_after.{t}"]
      last = {
        "latest_after_f64": extra["latest"],
        "known_after": extra["known"],
      }
      if t == config["steps"] - 1:
        last = {
          "latest_after_f64": arrays["latest_after"],
          "known_after": arrays["known_after"],
        }
      _assert_state(extra, expected | last, True)


def test_the_table_of_labelled_images_equals_the_reference():
  arrays, config = golden_ssl.load("cmsf/semi_cache")
  number = 1 + max(
    arrays["labelled_images"].max(),
    *(arrays[f"index.{t}"].max() for t in range(config["steps"])),
  )
  labels = np.full(number, -1, np.int32)
  labels[arrays["labelled_images"]] = 0
  for t in range(config["steps"]):
    labelled = arrays[f"labelled.{t}"]
    labels[arrays[f"index.{t}"][labelled]] = arrays[f"label.{t}"][labelled]
  like = {
    "query": arrays["embedding.0"],
    "index": arrays["labelled_images"],
    "bank": np.zeros((12, 16)),
    "bank_index": np.full(12, -1),
    "bank_label": np.full(12, -1),
    "label": labels[arrays["labelled_images"]],
  }
  with jax.enable_x64(True):
    method = _method("pseudo_labels", like, {}, True, k=2)
    extra = _extra(method, like, True)
    for t in range(config["steps"]):
      ids = arrays[f"index.{t}"]
      rows = jnp.asarray(arrays[f"embedding.{t}"], float)
      new = {"rows": rows, "index": ids, "tag": jnp.asarray(labels[ids])}
      _, extra = method.after_update(
        {}, {}, extra, new, step=jnp.int32(t), finite=jnp.asarray(True)
      )
      filled = arrays[f"filled_after.{t}"]
      # Ours are in the order of the images.
      place = np.argsort(np.argsort(arrays["labelled_images"]))
      np.testing.assert_array_equal(extra["filled"][place], filled)
      np.testing.assert_allclose(
        extra["cache"][place][filled],
        arrays[f"table_after.{t}"][filled],
        rtol=1e-12,
      )


@ssl_trajectory.each_dtype
@pytest.mark.parametrize("name", ["kmeans", "kmeans_one", "kmeans_empty"])
@pytest.mark.parametrize("chunk", [1024, 40])
def test_clusters_equal_the_reference(name, chunk, x64, monkeypatch):
  monkeypatch.setattr(kmeans, "_CHUNK", chunk)
  arrays, config = golden_ssl.load(f"cmsf/{name}")
  with jax.enable_x64(x64):
    table, first = golden_ssl.floats(
      arrays, ("embeddings", "initial_centroids"), x64
    )
    known = jnp.ones(len(table), bool)
    found = jax.jit(kmeans.kmeans, static_argnames="num_iterations")(
      table, known, first, num_iterations=config["iterations"]
    )
  np.testing.assert_array_equal(found.assigned, arrays["cluster"])
  np.testing.assert_allclose(
    found.centroids,
    arrays["centroids_f64"],
    rtol=0,
    atol=1e-10 if x64 else 1e-5,
  )


def _head(values, dtype):
  """Variables of the head by names of the golden files."""
  variables = {"params": {}, "batch_stats": {}}
  leaves = {
    "fc1": ("kernel", "bias"),
    "bn1": ("scale", "bias", "mean", "var"),
    "fc2": ("kernel", "bias"),
  }
  for layer, names in leaves.items():
    for leaf in names:
      part = "batch_stats" if leaf in ("mean", "var") else "params"
      name = f"mlp_head.{HEAD[layer]}.{ssl_trajectory._LEAVES[leaf]}"
      value = ssl_trajectory.from_torch(values(name), leaf)
      variables[part].setdefault(layer, {})[leaf] = jnp.asarray(value, dtype)
  return variables


@ssl_trajectory.each_dtype
@pytest.mark.parametrize("name", ["classifier", "classifier_unfilled"])
def test_a_round_of_the_head_equals_the_reference(name, x64):
  arrays, config = golden_ssl.load(f"cmsf/{name}")
  with jax.enable_x64(x64):
    table, queries = golden_ssl.floats(arrays, ("embeddings", "queries"), x64)
    shapes = {k: tuple(v) for k, v in config["shapes"].items()}
    head = _head(
      lambda name: golden_reference.fill(name, shapes[name]), table.dtype
    )
    filled = arrays["filled"]
    # The others come last, and are not read.
    orders = np.concatenate(
      [
        arrays["orders"],
        np.tile(np.flatnonzero(~filled), (config["epochs"], 1)),
      ],
      axis=1,
    )[:, : len(filled)]
    result = pseudo_label_head.train_round(
      head,
      jnp.where(filled[:, None], table, jnp.nan),
      jnp.asarray(arrays["labels"]),
      jnp.asarray(filled),
      jnp.asarray(orders),
      batch_size=config["batch"],
      learning_rate=config["lr"],
      drops=tuple(config["milestones"]),
    )
    logits = pseudo_label_head.logits(result.variables, queries)
    probabilities = jax.nn.softmax(logits, axis=-1)
    losses = np.asarray(result.losses)
    expected = _head(lambda name: arrays[f"after.{name}_f64"], table.dtype)
  assert result.trained
  golden_ssl.assert_array(losses[np.isfinite(losses)], arrays["loss_f64"], x64)
  golden_ssl.assert_near({"query_probs": probabilities}, arrays, x64)
  jax.tree.map(
    lambda a, b: np.testing.assert_allclose(
      a, b, rtol=0, atol=1e-11 if x64 else 1e-5
    ),
    result.variables,
    expected,
  )


def test_a_head_without_rows_for_a_batch_stays_as_it_is():
  head = pseudo_label_head.create(jax.random.key(0), 4, 3, jnp.float32)
  filled = jnp.arange(8) < 3
  result = pseudo_label_head.train_round(
    head,
    jnp.ones((8, 4)),
    jnp.zeros(8, jnp.int32),
    filled,
    pseudo_label_head.draw_orders(jax.random.key(1), filled, 2),
    batch_size=4,
    learning_rate=0.1,
    drops=(),
  )
  assert not result.trained
  jax.tree.map(np.testing.assert_array_equal, result.variables, head)


def _trajectory(monkeypatch, name, x64, constraint, *, labels=None, **fields):
  arrays, config = golden_ssl.load(f"cmsf/{name}")
  number = len(_table(arrays)) or int(
    1 + max(arrays["index"].max(), arrays["bank_index"].max())
  )
  if labels is not None:
    known = np.full(number, -1, np.int32)
    known[arrays["index"]] = arrays[labels]
    labels = known
  return mean_shift_golden.Trajectory(
    monkeypatch,
    name,
    x64,
    method="cmsf",
    fields={"constraint": constraint} | fields,
    num_images=number,
    num_classes=config["classes"],
    labels=labels,
  )


@ssl_trajectory.each_dtype
def test_second_query_takes_the_steps_of_the_reference(x64, monkeypatch):
  with jax.enable_x64(x64):
    run = _trajectory(
      monkeypatch, "trajectory_2q", x64, "second_query", k_previous=3
    )
    previous, latest = golden_ssl.floats(
      run.arrays, ("bank_previous", "latest"), x64
    )
    shape = run.bank["rows"].shape
    run.bank["previous"] = previous.reshape(shape)
    run.bank["has_previous"] = jnp.ones(shape[:2], bool)
    known = jnp.ones(len(latest), bool)
    run.start(lambda extra: {**extra, "latest": latest, "known": known})
    for step in range(5):
      run.step(step)
    run.assert_bank()
  golden_ssl.assert_near(
    {"latest_after": run.run.extra["latest"]}, run.arrays, x64
  )


@ssl_trajectory.each_dtype
def test_kmeans_takes_the_steps_of_the_reference(x64, monkeypatch):
  with jax.enable_x64(x64):
    run = _trajectory(
      monkeypatch,
      "trajectory_km",
      x64,
      "kmeans",
      num_clusters=3,
      cluster_iterations=20,
    )
    latest, first = golden_ssl.floats(
      run.arrays, ("latest", "initial_centroids"), x64
    )
    cluster = jnp.asarray(run.arrays["cluster"][0])
    known = jnp.ones(len(latest), bool)
    run.start(
      lambda extra: {
        **extra,
        "latest": latest,
        "known": known,
        "cluster": cluster,
      }
    )
    epochs = iter(list(first))
    monkeypatch.setattr(kmeans, "first_centroids", lambda *_: next(epochs))
    for step in range(5):
      run.step(step)
      if step % 2:
        kmeans._compiled.cache_clear()
        run.act(step + 1)
        np.testing.assert_array_equal(
          run.run.extra["cluster"], run.arrays["cluster"][(step + 1) // 2]
        )
    run.assert_bank()
    kmeans._compiled.cache_clear()
  golden_ssl.assert_near(
    {"latest_after": run.run.extra["latest"]}, run.arrays, x64
  )


@ssl_trajectory.each_dtype
def test_labels_take_the_steps_of_the_reference(x64, monkeypatch):
  with jax.enable_x64(x64):
    run = _trajectory(
      monkeypatch, "trajectory_sup", x64, "labels", labels="label"
    )
    tags = run.arrays["bank_label"]
    run.bank["tag"] = jnp.asarray(tags).reshape(run.bank["index"].shape)
    run.start()
    for step in range(5):
      run.step(step)
    run.assert_bank()


@ssl_trajectory.each_dtype
def test_pseudo_labels_take_the_steps_of_the_reference(x64, monkeypatch):
  with jax.enable_x64(x64):
    config = golden_ssl.load("cmsf/trajectory_semi")[1]
    run = _trajectory(
      monkeypatch,
      "trajectory_semi",
      x64,
      "pseudo_labels",
      labels="label_seen",
      threshold=config["threshold"],
    )
    tags = run.arrays["bank_label"]
    run.bank["tag"] = jnp.asarray(tags).reshape(run.bank["index"].shape)
    dtype = run.bank["rows"].dtype
    shapes = {k: tuple(v) for k, v in config["shapes"].items()}
    # The public code already asks the head before its first round.
    head = _head(lambda name: golden_reference.fill(name, shapes[name]), dtype)
    start = {"head": head, "head_trained": jnp.asarray(True)}
    run.start(lambda extra: {**extra, **start})
    # Rounds are held to the reference apart: its cache holds other rows.
    for step in range(5):
      run.step(step)
      np.testing.assert_array_equal(
        np.asarray(run.run.extra["bank"]["tag"])[
          (step + run.first) % len(run.bank["tag"])
        ],
        run.arrays["assigned"][step],
      )
      assert run.method.steps_within_epoch(2) == (1,)
      if step < 4:
        key = f"head.{step}"
        head = _head(
          lambda name, key=key: run.arrays[f"{key}.{name}_f64"], dtype
        )
        run.run.extra |= {"head": head, "head_trained": jnp.asarray(True)}
    run.assert_bank()


@pytest.mark.parametrize(
  ("fields", "message"),
  [
    ({"k": 0}, r"method\.k is 0 but method\.constraint is 'kmeans'"),
    (
      {"constraint": "second_query", "k": 6},
      r"method\.k is 6 but method\.k_previous is 5",
    ),
    ({"bank_size": 100}, r"method\.bank_size is 100 but train\.batch_size"),
    ({"bank_size": 512, "k": 513}, r"method\.k is 513 but method\.bank_size"),
    (
      {"constraint": "second_query", "bank_size": 512, "k_previous": 600},
      r"method\.k_previous is 600 but method\.bank_size",
    ),
    ({"constraint": "label"}, r"method\.constraint is 'label'"),
    ({"head_drops": (0,)}, r"method\.head_drops is \(0,\)"),
  ],
)
def test_fields_that_contradict_each_other_are_refused(fields, message):
  config = config_lib.base(method="cmsf")
  config.train.batch_size = 128
  config.method.update(fields)
  with pytest.raises(errors.InputError, match=message):
    config_lib.resolve(config)


@pytest.mark.parametrize("constraint", ["labels", "pseudo_labels"])
def test_constraints_by_labels_are_refused_without_any(constraint):
  section = config_lib.method_section("cmsf", {"constraint": constraint})
  kind = cmsf.Cmsf
  kind.fields_of_data(section, num_classes=3, class_counts=(0, 1, 0))
  with pytest.raises(errors.InputError, match=rf"constraint is '{constraint}'"):
    kind.fields_of_data(section, num_classes=3, class_counts=(0, 0, 0))


def test_more_clusters_than_images_are_refused():
  arrays, config = golden_ssl.load("cmsf/km_step")
  method = _method("kmeans", arrays, config, False, num_clusters=41)
  with pytest.raises(errors.InputError, match=r"num_clusters is 41 but"):
    _extra(method, arrays, False)


# --- Devices and resumed runs ------------------------------------------------

SMALL = {"bank_size": 30, "k": 3, "head_batch_size": 4, "num_clusters": 5}


@functools.cache
def _setup(constraint, num_devices, **options):
  fields = SMALL | {"constraint": constraint} | dict(options)
  num_ids = fields.pop("num_ids", toy_training.NUM_IMAGES)

  def make(axis_name):
    return toy_method.create(name="cmsf", axis_name=axis_name, **fields)

  return toy_training.make(make, num_devices, num_ids=num_ids)


def _act(setup, state, step):
  state = setup.trainer.method.on_epoch_end(state, None, step=step)
  return setup.trainer.place(state)


@pytest.mark.slow
@pytest.mark.parametrize("constraint", ["kmeans", "labels", "pseudo_labels"])
def test_devices_and_interruptions_change_nothing(constraint, tmp_path):
  """Clusters and head are made after two steps; four follow."""
  runs = []
  with jax.enable_x64(True):
    for num_devices in (1, 2, 4):
      setup = _setup(constraint, num_devices)
      state, _ = setup.run(setup.initial_state(), 0, 2)
      if setup.trainer.method.acts_between_epochs:
        state = _act(setup, state, 2)
      state, rows = setup.run(state, 2, 1)
      if num_devices == 2:
        setup.save(tmp_path, 3, state)
      state, more = setup.run(state, 3, 3)
      runs.append((rows + more, setup.logical_extra(state)))
    setup = _setup(constraint, 2)
    resumed, rows = setup.run(setup.restore(tmp_path), 3, 3)
    extra = setup.logical_extra(resumed)
  one, two, four = runs
  for other in (two, four):
    toy_method.assert_same(other, one, atol=1e-9)
  assert rows == two[0][1:]
  jax.tree.map(np.testing.assert_array_equal, extra, two[1])
  # What was made is there, and decides.
  made = {"kmeans": "cluster", "pseudo_labels": "filled"}.get(constraint)
  if made:
    assert np.any(one[1][made] > 0)
  if constraint == "pseudo_labels":
    assert one[1]["head_trained"]


@pytest.mark.slow
@pytest.mark.parametrize("constraint", ["second_query", "kmeans"])
def test_a_step_copies_neither_bank_nor_table(constraint):
  num_ids, bank_size = 24_001, 36_000
  with jax.enable_x64(True):
    setup = _setup(constraint, 2, num_ids=num_ids, bank_size=bank_size)
    text = setup.compiled.as_text()
  # This device's parts of bank and table.
  shapes = ("3000,6,8", "18000,8", "12001,8")
  for shape in shapes:
    assert f"f64[{shape}]" in text
    assert not re.search(rf"= f64\[{shape}\]\S* (copy|select)\(", text)
  # Nothing as large comes from or goes to other devices.
  for whole in ("3000,12,8", "36000,8", "24002,8", "24001,8"):
    assert f"[{whole}]" not in text
  largest = max(each.num_bytes for each in hlo.collectives(text, num_devices=2))
  assert largest < 12_001 * 8


@pytest.mark.parametrize("second_query", [False, True])
def test_the_search_is_a_small_part_of_the_step(second_query):
  """At 256 x 128,000 x 512: at most 2 % of ResNet-50's 8.4 TFLOP."""
  bank, batch = ((500, 256, 512), (256, 512))
  arguments = [
    jax.ShapeDtypeStruct(shape, "f4") for shape in (bank, batch, bank, batch)
  ]

  def make(rows, new):
    valid = jnp.ones(128_000, bool)
    return memory_bank.Search.create(rows, new, valid, jnp.int32(0), None)

  def search(rows, new, previous, new_previous):
    found, allowed = make(rows, new), None
    if second_query:
      before = make(previous, new_previous)
      allowed = before.mask(before.nearest(5))
    # Two terms share one product.
    slots = found.nearest(5, allowed), found.nearest(5)
    return [found.means(each) for each in slots]

  flops = traced_costs.flops(jax.make_jaxpr(search)(*arguments).jaxpr)
  products = 2 if second_query else 1
  once = 2 * 256 * 128_000 * 512
  # Beside them, this step's rows in place of the oldest.
  assert products * once <= flops < 1.01 * products * once
  assert flops < 0.02 * 8.4e12
