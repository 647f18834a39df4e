"""Recipes of the methods: what they may say, their variants, tiny runs."""

import importlib.util
import pathlib

import jax
import jax.numpy as jnp
import pytest

from paws_jax import config as config_lib
from paws_jax import errors
from paws_jax import models
from paws_jax.config import methods
from paws_jax.plan import abstract_step
from paws_jax.runs import metrics
from paws_jax.runs import results
from paws_jax.tasks import pretrain
from tests import small_runs

pytestmark = [pytest.mark.unoptimized, pytest.mark.devices(1)]

ROOT = pathlib.Path(__file__).parents[2]


def _load(path):
  spec = importlib.util.spec_from_file_location(path.stem, path)
  module = importlib.util.module_from_spec(spec)
  spec.loader.exec_module(module)
  return module


def _recipe(name, *variants):
  return _load(ROOT / "configs" / f"{name}.py").get_config(*variants)


# --- What may not be said together -------------------------------------------


@pytest.mark.parametrize(
  ("changes", "message"),
  [
    (
      {
        "name": "suncet",
        "support_loss_weight": 1.0,
        "supervised_until": 5,
        "supervised_until_epochs": 2.5,
      },
      r"supervised_until is 5 and method.supervised_until_epochs is 2\.5, .* 0",
    ),
    (
      {"name": "suncet", "support_loss_weight": 0.0},
      "support_loss_weight is 0 but .*'suncet'.* set it to 1",
    ),
    (
      {"prior": "given"},
      "prior is 'given' but method.prior_probs has 0 numbers",
    ),
    (
      {"prior_probs": (0.5, 0.5)},
      "prior is 'uniform' but method.prior_probs has 2 numbers",
    ),
    (
      {"prior": "given", "prior_probs": (0.5, 0.4)},
      "prior_probs add up to 0.9: make them add up to 1",
    ),
  ],
)
def test_switches_that_contradict_each_other(changes, message):
  config = config_lib.base(changes.get("name", "paws"))
  config_lib.resolve(config)
  config.method.update(changes)
  with pytest.raises(ValueError, match=rf"^method\.{message}"):
    config_lib.resolve(config)


@pytest.mark.parametrize(
  ("name", "field", "value"),
  [
    ("simclr", "support_loss_weight", 0.5),
    ("suncet", "entropy_loss_weight", 0.5),
    ("supervised", "prior", "labels"),
    ("paws", "detached_keys", True),
    ("paws", "supervised_until", 5),
    ("ropaws", "supervised_until_epochs", 2.5),
    ("paws", "as_released", True),
  ],
)
def test_a_switch_that_a_method_would_ignore(name, field, value, capsys):
  # A recipe that only changes the name.
  config = config_lib.base()
  config.method.name = name
  config.method[field] = value
  recipe = config_lib.resolve(config)
  assert not hasattr(recipe.method, field)
  line = f"method {name} does not read method.{field} = {value!r}"
  assert line in capsys.readouterr().err
  # The section of the method.
  section = config_lib.base(name).method.to_dict() | {field: value}
  with pytest.raises(
    errors.UnknownFieldError,
    match=rf"^method\.{field} is no field of method {name}; its fields are",
  ):
    methods.build(section)


@pytest.mark.parametrize("name", ["paws", "suncet", "supervised"])
def test_labels_that_predict_each_other_need_two_of_a_class(name):
  config = config_lib.base(name)
  if name == "paws":
    config.method.support_loss_weight = 1.0
  config.support.images_per_class = 1
  with pytest.raises(
    ValueError, match=rf"images_per_class is 1 .* {name!r}.* at least 2"
  ):
    config_lib.resolve(config)
  config.support.num_views = 2
  config_lib.resolve(config)


def test_a_prior_of_another_length_than_the_data_is_refused(tmp_path):
  config = _load(ROOT / "tests" / "tiny_recipe.py").get_config()
  config.method.prior = "given"
  config.method.prior_probs = (0.5, 0.5)
  with pytest.raises(ValueError, match=r"has 2 numbers .* 10 classes"):
    pretrain.prepare(config, str(tmp_path / "run"))


def test_the_labels_of_the_data_make_the_prior(tmp_path):
  config = _load(ROOT / "tests" / "tiny_recipe.py").get_config()
  config.method.prior = "labels"
  prepared = pretrain.prepare(config, str(tmp_path / "run"))
  # Two labels of each of ten classes.
  prior = prepared.experiment.trainer.method.prior
  assert prior == pytest.approx((0.1,) * 10)


# --- Variants ----------------------------------------------------------------

VARIANTS = {
  "moco": ["200ep", "800ep", "cifar10", "cpu"],
  "byol": ["100ep", "300ep", "1000ep", "cpu"],
  "simsiam": ["100ep", "200ep", "400ep", "800ep", "cifar10", "cpu"],
  "swav": ["100ep", "200ep,small_batch", "small_batch", "800ep", "cpu"],
  "swav_suncet": ["1pct", "10pct", "cpu"],
  "msf": ["200ep", "100ep", "cifar10", "cpu"],
  "cmsf": [
    "kmeans",
    "second_query",
    "labels",
    "pseudo_labels",
    "cifar10",
    "cifar10_pseudo_labels",
    "cpu",
    "cpu_labels",
    "cpu_pseudo_labels",
  ],
  "simclr": ["100ep", "500ep,1pct", "10pct", "cpu"],
  "suncet": ["100ep", "500ep,1pct", "cpu"],
  "ropaws": ["cpu", "cifar10", "imagenet,released", "released"],
}


@pytest.mark.parametrize(
  ("name", "variants"), [(n, v) for n, vs in VARIANTS.items() for v in vs]
)
def test_variants_are_valid_recipes_of_their_method(name, variants):
  config = _recipe(name, variants)
  config_lib.resolve(config)
  assert config.method.name == name


def test_the_sizes_of_the_suncet_recipe():
  config = _recipe("suncet", "500ep")
  support = config.support
  crops = support.classes_per_step * support.images_per_class
  crops += config.views.large.count * config.train.batch_size
  assert crops == 2 * _recipe("simclr").train.batch_size
  steps_per_epoch = 1_281_167 // config.train.batch_size
  assert config.method.supervised_until_epochs == 250
  assert config.checkpoint.every_steps == steps_per_epoch
  assert _recipe("suncet", "100ep").method.supervised_until_epochs == 0


# Parameters that are trained above the trunk of 2,048 features, as counted from
# the public code of each method.
HEADS = {
  "moco": 4_458_624,
  "byol": 11_558_912,
  "simsiam": 14_691_328,
  "swav": 4_846_720,
}


@pytest.mark.parametrize("name", sorted(HEADS))
def test_the_heads_of_the_imagenet_recipes(name):
  recipe = config_lib.resolve(_recipe(name))
  encoder = models.create(recipe.model)
  variables = jax.eval_shape(
    lambda: encoder.init(
      jax.random.key(0), jnp.zeros((2, 2048)), train=True, method="project"
    )
  )
  count = sum(leaf.size for leaf in jax.tree.leaves(variables["params"]))
  count += getattr(recipe.method, "num_prototypes", 0) * recipe.model.output_dim
  assert count == HEADS[name]


CIFAR10 = {
  "moco:cifar10": (97, 200, 512, 128),
  "simsiam:cifar10": (97, 800, 512, 2048),
  "msf:cifar10": (195, 200, 256, 128),
  "cmsf:cifar10": (195, 200, 256, 128),
  "cmsf:cifar10_pseudo_labels": (195, 200, 256, 128),
}


@pytest.mark.slow
@pytest.mark.parametrize("recipe", sorted(CIFAR10))
def test_variants_of_cifar10_can_be_trained(recipe):
  """Also how many steps there are, and whether calls divide them."""
  config = config_lib.resolve(_recipe(*recipe.split(":")))
  step = abstract_step.create(config, jax.devices()[:1])
  trainer, steps = step.trainer, step.pipeline.steps_per_epoch
  width = jax.tree.leaves(step.state.params["projection"]["fc2"])[-1].shape[-1]
  found = steps, config.train.epochs, config.train.batch_size, width
  assert found == CIFAR10[recipe]
  assert trainer.facts.total_steps == steps * config.train.epochs
  per_call = config.train.steps_per_call
  within = trainer.method.steps_within_epoch(steps)
  assert not [n for n in (*within, steps) if n % per_call]
  assert config.eval.every_steps == 10 * steps
  assert step.state.params["trunk"]["conv1"]["kernel"].shape == (3, 3, 3, 64)


def test_the_rates_of_the_byol_recipe():
  rates = {v: _recipe("byol", v).optim.peak_lr for v in VARIANTS["byol"][:3]}
  assert rates == pytest.approx({"100ep": 7.2, "300ep": 4.8, "1000ep": 3.2})
  views = config_lib.resolve(_recipe("byol")).views.crops
  assert [views[n].blur_probability for n in ("large", "second")] == [1.0, 0.1]
  assert [views[n].solarize_probability for n in ("large", "second")] == [
    0.0,
    0.2,
  ]


def test_swav_freezes_prototypes_for_an_epoch_and_a_step():
  assert _recipe("swav").method.freeze_steps == 313
  config = _recipe("swav", "small_batch")
  assert config.method.freeze_steps == 5005
  assert config.method.queue_size == 3840
  assert config.train.batch_size == 256


@pytest.mark.parametrize(
  ("name", "variants", "message"),
  [
    ("simclr", "200ep", "'200ep' of simclr.py: known are 100ep"),
    ("simclr", "cpu,1pct", "cpu goes with no other"),
    ("moco", "100ep", "'100ep' of moco.py: known are 200ep, 800ep"),
    ("byol", "cpu,100ep", "'cpu,100ep' of byol.py: known are 100ep"),
    ("simsiam", "1000ep", "'1000ep' of simsiam.py: known are 100ep"),
    ("swav", "100ep,200ep", "100ep, 200ep of swav.py exclude each other"),
    ("swav", "small_batch,cpu", "small_batch,cpu of swav.py: give cpu alone"),
    ("swav", "small", "'small' of swav.py: known are 100ep"),
    ("swav_suncet", "400ep", "'400ep' of swav_suncet.py: known are 1pct"),
    ("msf", "10ep", "'10ep' of msf.py: known are 100ep"),
    ("cmsf", "labels,cpu", "'labels,cpu' of cmsf.py: known are kmeans"),
    ("ropaws", "digits", "'digits' of ropaws.py: known are cpu"),
    ("ropaws", "cpu,imagenet", "cpu, imagenet of ropaws.py exclude each"),
  ],
)
def test_unknown_variants_are_refused(name, variants, message):
  with pytest.raises(ValueError, match=message):
    _recipe(name, variants)


# --- Whole runs --------------------------------------------------------------


@pytest.fixture(scope="module")
def digits(tmp_path_factory):
  """Fields of a recipe of 320 digits, in batches of 64."""
  path = tmp_path_factory.mktemp("data") / "digits"
  return small_runs.in_memory(small_runs.write_digits(path))


@pytest.mark.slow
@pytest.mark.parametrize(
  ("name", "reported", "shown"),
  [
    ("ropaws", "in_domain", ["cross-entropy", "me-max KL"]),
    ("moco", "info_nce", ["InfoNCE"]),
    ("byol", "output_std", []),
    ("simsiam", "feature_rank", []),
    ("swav", "assignment_kl", ["assignment KL"]),
    ("swav_suncet", "suncet", ["assignment KL", "SuNCEt"]),
    ("simclr", "nt_xent", ["NT-Xent"]),
    ("suncet", "suncet", ["NT-Xent", "SuNCEt"]),
  ],
)
def test_a_tiny_run_of_the_recipe(
  name, reported, shown, digits, tmp_path, capsys
):
  config = _recipe(name, "cpu")
  # Few and small images, cut simply: most of the time is the compiler's.
  config.update_from_flattened_dict(digits)
  config.data.image_size = 0
  config.views.large.size = config.views.eval_resize = 8
  for view in (config.views.large, config.views.small):
    view.rotation_degrees = 0.0
  config.train.epochs = 1
  config.optim.warmup_epochs = 0
  if "freeze_steps" in config.method:
    config.method.freeze_steps = 1
  config.eval.every_steps = 0
  config.checkpoint.every_steps = 0
  config.log.every_steps = 1
  prepared = pretrain.prepare(config, str(tmp_path))
  assert pretrain.run(prepared) == 0
  out = capsys.readouterr().out
  labels = [label for label in metrics.LABELS.values() if f"  {label} " in out]
  assert labels == shown
  rows = [
    row
    for row in metrics.read(prepared.workdir / metrics.METRICS)
    if "loss" in row
  ]
  assert [row["step"] for row in rows] == [1, 2, 3, 4, 5]
  assert all(reported in row for row in rows)
  (result,) = results.read_results(prepared.workdir)
  assert result["method"] == name
  # Untrained encoders of digits are far better than chance.
  assert result["top1"] > 0.2
