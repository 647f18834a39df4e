"""Features of a frozen trunk: what they are, and what is refused."""

import dataclasses

import jax
import numpy as np
import pytest

from paws_jax import config as config_lib
from paws_jax import errors
from paws_jax import methods
from paws_jax import models
from paws_jax.config import methods as config_methods
from paws_jax.models import encoder as encoder_lib
from paws_jax.parallel import mesh as mesh_lib
from paws_jax.tasks import plan
from paws_jax.training import experiment
from paws_jax.training import feature_file
from paws_jax.training import step as step_lib
from paws_jax.training import trunk_encoder
from paws_jax.training import trunk_features
from paws_jax.training import views as views_lib
from tests import class_head_runs
from tests import frozen_recipe

pytestmark = pytest.mark.unoptimized

# Sizes that fit 320 images, 64 a step.
FIELDS = {
  "moco": {"queue_size": 128},
  "swav": {
    "num_prototypes": 20,
    "queue_size": 128,
    "queue_from_epochs": 0.2,
    "freeze_steps": 2,
  },
  "msf": {"bank_size": 128},
  "cmsf": {"bank_size": 128},
}
FIELDS["swav_suncet"] = FIELDS["swav"]


@pytest.fixture(params=frozen_recipe.PIPELINES)
def small(request, tmp_path):
  """Returns a recipe with a frozen trunk, and the trunk."""
  return frozen_recipe.create(tmp_path, request.param)


def _experiment(config):
  recipe = config_lib.resolve(config)
  return recipe, experiment.create(recipe, devices=jax.devices()[:1])


@pytest.mark.slow
def test_features_are_those_of_the_views_of_training(small):
  config, trunk = small
  recipe, full = _experiment(config)
  rows = np.array([7, 2, 11, 3])
  spec = dataclasses.replace(recipe.views.specs["large"], count=3)
  source = trunk_encoder.TrunkEncoder(recipe, full, None)
  batches = source.encode("large", spec, rows)
  ids, found = next(batches)
  if full.dataset.in_memory:
    # The devices hold the images once.
    shape = full.pipeline.inputs(0, 1).images.shape
    assert sum(x.shape == shape for x in jax.live_arrays()) == 1
  assert not list(batches)
  assert set(ids) == set(rows.tolist())
  pipeline = full.dataset.make_pipeline(
    support=None,
    batch_size=4,
    seed=recipe.seed,
    mesh=mesh_lib.make_mesh(jax.devices()[:1]),
    with_unlabelled=True,
    pool=rows.astype(np.int32),
  )
  batch = pipeline.batch(pipeline.inputs(0, 1), 0)
  pipeline.close()
  made = views_lib.make_views(
    batch,
    seed=recipe.seed,
    step=trunk_encoder.stream("large"),
    views=dataclasses.replace(full.trainer.views, crops={"large": spec}),
    num_support_views=1,
  )
  crops = made.crops["large"]
  features = models.create(recipe.model).apply(
    trunk,
    crops.reshape(-1, *crops.shape[2:]),
    method=encoder_lib.trunk_features,
  )
  places = [ids.index(number) for number in np.asarray(made.ids).tolist()]
  np.testing.assert_allclose(
    found[places], np.asarray(features).reshape(4, 3, -1), rtol=2e-3
  )
  # Images differ, and so do the views of one.
  for axis in (0, 1):
    assert np.ptp(found.astype(float), axis=axis).max() > 0


def test_a_step_draws_different_views():
  features = np.arange(2 * 4, dtype=np.float16).reshape(2, 4, 1)
  for count in (1, 3, 4):
    keys = jax.random.split(jax.random.key(0), (2, count))
    drawn = np.asarray(views_lib._draw_features(keys, features))
    assert drawn.shape == (2, count, 1, 1, 1)
    assert drawn.dtype == np.float32
    for image, views in zip(drawn.reshape(2, count), features, strict=True):
      assert len(set(image)) == count
      assert set(image) <= set(views.ravel())


@pytest.mark.slow
def test_an_encoder_of_features_is_one_of_images_without_its_trunk():
  section = frozen_recipe.MODEL | {"trunk": "frozen", "init_from": "x"}
  encoder = models.create(section)
  of_features = models.create(section, features_of=(32, 32, 3))
  images = jax.random.normal(jax.random.key(1), (5, 32, 32, 3))
  given = jax.eval_shape(
    lambda: of_features.init(
      jax.random.key(0), np.zeros((1, 1, 1, 128), np.float32), train=False
    )
  )
  variables = jax.jit(
    lambda: encoder.init(jax.random.key(0), images[:1], train=False)
  )()
  assert jax.tree.structure(given) == jax.tree.structure(variables)

  @jax.jit
  def both(variables):
    options = {"train": True, "mutable": ["batch_stats"]}
    features = encoder.apply(variables, images, train=True, method="features")
    return (
      encoder.apply(variables, images, **options),
      of_features.apply(variables, features[:, None, None], **options),
    )

  (ours, updates), (theirs, their_updates) = both(variables)
  jax.tree.map(
    lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6),
    (ours, updates),
    (theirs, their_updates),
  )
  # The trunk keeps its statistics, and the heads have new ones.
  old, new = variables["batch_stats"], updates["batch_stats"]
  jax.tree.map(np.testing.assert_array_equal, old["trunk"], new["trunk"])
  assert np.any(
    old["projection"]["bn1"]["mean"] != new["projection"]["bn1"]["mean"]
  )


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(methods.METHODS.keys() - {"mpl"}))
def test_every_method_has_a_step_on_features(name, tmp_path):
  config, _ = frozen_recipe.create(tmp_path, "memory")
  config.method = config_lib.method_section(name, None)
  config.method.update(FIELDS.get(name, {}))
  config.views.small.count = 0
  config.support.classes_per_step = 10
  config.model.projection_layers = 2
  if config_methods.config_class(name).class_head:
    class_head_runs.change(config, name)
    config.train.batch_size, config.support.batch_size = 60, 0
    config.support.sampling = "balanced"
  recipe, full = _experiment(config)
  built = trunk_features.stand_in(recipe, full)
  trainer, pipeline = built.trainer, built.pipeline
  state = built.state_shapes()
  call = step_lib.make_train_call(trainer, pipeline, 1)
  after, _ = jax.eval_shape(call, state, pipeline.input_shapes(1))
  assert jax.tree.structure(after) == jax.tree.structure(state)
  assert jax.tree.structure(state) == jax.tree.structure(full.state_shapes())


def test_a_student_would_change_a_frozen_trunk(tmp_path):
  config, _ = frozen_recipe.create(tmp_path, "memory")
  class_head_runs.change(config, "mpl")
  config.train.batch_size = 60
  with pytest.raises(
    errors.InputError,
    match=r"^model\.trunk is 'frozen' but method\.name is 'mpl', .* 'train'",
  ):
    config_lib.resolve(config)
  config.model.update(trunk="train", init_from="")
  config_lib.resolve(config)


@pytest.mark.parametrize(
  ("field", "value", "message"),
  [
    ("model.init_from", "", r"model\.trunk is 'frozen' but model\.init_from"),
    ("views.cached", 0, r"views\.cached is 0"),
    ("views.cached", 1001, r"views\.cached is 1001"),
    ("views.cached_support", 0, r"views\.cached_support is 0"),
    ("views.cached", 1, r"views\.large\.count is 2 but views\.cached is 1"),
    (
      "views.small.count",
      4,
      r"views\.small\.count is 4 but views\.cached is 3",
    ),
    ("support.num_views", 6, r"num_views is 6 but views\.cached_support is 5"),
    ("train.chunks", 0, r"train\.chunks is 'auto' but model\.trunk is"),
    ("train.chunks", 2, r"train\.chunks is 2 but model\.trunk is"),
    ("views.crop_on", "host", r"views\.crop_on is 'host' but model\.trunk is"),
    (
      "data.on_bad_image",
      "skip",
      r"on_bad_image is 'skip' but model\.trunk is",
    ),
  ],
)
def test_fields_that_do_not_fit_a_frozen_trunk(field, value, message, tmp_path):
  config, _ = frozen_recipe.create(tmp_path, "disk")
  config.update_from_flattened_dict({field: value})
  with pytest.raises(errors.InputError, match=message):
    config_lib.resolve(config)


def test_what_cannot_keep_or_use_features_is_refused(tmp_path, monkeypatch):
  config, _ = frozen_recipe.create(tmp_path, "disk")
  recipe = config_lib.resolve(config)
  with pytest.raises(errors.InputError, match=r"\.trunk is 'frozen', whose"):
    plan.run(recipe, str(tmp_path), machine="h200:2")
  with pytest.raises(errors.InputError, match="is in a bucket"):
    trunk_features.check(recipe, "gs://bucket/run")
  monkeypatch.setattr(jax, "process_count", lambda: 2)
  with pytest.raises(errors.InputError, match="there are 2; start one"):
    trunk_features.check(recipe, tmp_path)


def test_the_disk_space_is_known(small):
  config, _ = small
  recipe, full = _experiment(config)
  num_images = len(full.dataset.train_images)
  num_labels = len(full.dataset.labelled)
  assert trunk_features.disk_bytes(recipe, full) == (
    2 * feature_file.num_bytes(num_images, 3, 128)
    + feature_file.num_bytes(num_labels, 5, 128)
  )


def test_devices_of_a_run_are_those_of_its_features(tmp_path):
  # Groups that divide one device, and not all there are.
  config, _ = frozen_recipe.create(tmp_path, "memory")
  config.method = config_lib.method_section("simclr", None)
  config.views.small.count = 0
  config.train.update(batch_size=60, bn_groups=5)
  assert jax.device_count() % 5
  recipe, full = _experiment(config)
  built = trunk_features.stand_in(recipe, full)
  assert built.trainer.mesh.size == 1


def test_features_of_other_settings_leave_their_space_first(
  tmp_path, monkeypatch
):
  config, _ = frozen_recipe.create(tmp_path, "memory")
  recipe, full = _experiment(config)
  source = trunk_encoder.TrunkEncoder(recipe, full, None)
  directory = tmp_path / "features"
  for name in ("0" * 16, "mine"):
    (directory / name).mkdir(parents=True)
  there = []
  monkeypatch.setattr(
    trunk_features,
    "_fill",
    lambda *_: there.append({p.name for p in directory.iterdir()}),
  )
  trunk_features._features(source, directory)
  assert there
  assert all("0" * 16 not in names and "mine" in names for names in there)


def test_features_are_kept_under_what_they_depend_on(tmp_path):
  config, _ = frozen_recipe.create(tmp_path, "memory")
  recipe, full = _experiment(config)
  source = trunk_encoder.TrunkEncoder(recipe, full, None)
  spec = recipe.views.specs["large"]
  keys = {source.key("large", spec), source.key("small", spec)}
  for field, value in (
    ("count", 3),
    ("size", 9),
    ("scale", (0.1, 1.0)),
    ("jitter_strength", 0.7),
  ):
    keys.add(source.key("large", dataclasses.replace(spec, **{field: value})))
  source.hash = "0" * 32
  keys.add(source.key("large", spec))
  for field, value in (
    ("seed", 1),
    ("model.name", "wide_resnet10"),
    ("model.width", 2),
    ("model.dtype", "bfloat16"),
    ("views.mean", (0.1,)),
    ("views.std", (0.1,)),
    ("data.image_size", 16),
    ("data.canvas_size", 16),
    ("data.decoder", "pillow"),
  ):
    changed = config.copy_and_resolve_references()
    changed.update_from_flattened_dict({field: value})
    source.recipe = config_lib.resolve(changed)
    source.encoder = models.create(source.recipe.model)
    keys.add(source.key("large", spec))
  assert len(keys) == 16
