"""Every field of a recipe: its default, its type and its range."""

import dataclasses
import importlib.util
import json
import math
import pathlib
import re

import ml_collections
import pytest

from paws_jax import config as config_lib
from paws_jax import errors
from paws_jax.config import fields
from paws_jax.config import methods

RECIPES = sorted((pathlib.Path(__file__).parents[2] / "configs").glob("*.py"))

# Values that each field must refuse, and what the message says it may be.
REFUSED = {
  "seed": ([-1, 2**31], "[0, 2147483647]"),
  "data.source": (["", "cifar10"], "digits, idx, tfds, folder"),
  "data.pipeline": (["", "device"], "memory, host"),
  "data.image_size": ([-1], "at least 0"),
  "data.labels_per_class": ([-1, -4], "at least 0"),
  "data.labels_fraction": ([-0.1, 1.5], "[0, 1]"),
  "data.canvas_size": ([0], "at least 1"),
  "data.canvas_memory": (["", "tpu"], "device, host"),
  "data.on_bad_image": (["", "ignore"], "error, skip"),
  "data.max_pixels": ([0, 2**31], "[1, 2147483647]"),
  "data.white_level": ([-1, 65536], "at most 65535"),
  "data.support_cache_mb": ([-1], "at least 0"),
  "data.split_seed": ([-1, 2**31], "[0, 2147483647]"),
  "model.trunk": (["", "adapters"], "train, frozen"),
  "views.cached": ([0, 1001], "at least 1 and at most 1000"),
  "views.cached_support": ([0, 1001], "at least 1 and at most 1000"),
  "views.large.count": ([-1], "at least 0"),
  "views.large.size": ([0, 2**14 + 1], "at least 1 and at most 16384"),
  "views.large.scale": (
    [(0.0, 1.0), (0.5, 0.2), (0.5, 1.5), (-0.1, 0.5), (0.5,)],
    "0 < low <= high <= 1",
  ),
  "views.small.count": ([-1], "at least 0"),
  "views.small.size": ([0], "at least 1"),
  "views.small.scale": (
    [(0.0, 1.0), (0.5, 0.2), (0.5, 1.5), (0.1, 0.2, 0.3)],
    "0 < low <= high <= 1",
  ),
  "views.large.aspect_ratio": (
    [(0.0, 1.0), (2.0, 1.0), (1.0,)],
    "0 < low <= high",
  ),
  "views.large.flip_probability": ([-0.1, 1.1], "[0, 1]"),
  "views.large.rotation_degrees": ([-1.0, 181.0], "[0, 180]"),
  "views.large.jitter_strength": ([-0.1], "at least 0"),
  "views.large.jitter_saturation": ([-0.1], "at least 0"),
  "views.large.solarize_threshold": (
    [(-1.0, 4.0), (9.0, 8.0), (0.0, 257.0)],
    "two numbers in",
  ),
  "views.large.jitter_probability": ([-0.1, 1.1], "[0, 1]"),
  "views.large.grey_probability": ([-0.1, 1.1], "[0, 1]"),
  "views.large.blur_probability": ([-0.1, 1.1], "[0, 1]"),
  "views.large.blur_radius": ([(0.0, 1.0), (2.0, 1.0)], "0 < low <= high"),
  "views.large.solarize_probability": ([-0.1, 1.1], "[0, 1]"),
  "views.large.equalize_probability": ([-0.1, 1.1], "[0, 1]"),
  "views.large.shift_pixels": ([-1], "at least 0"),
  "views.large.rand_augment": (["randaugment"], '"" or one of fixmatch, '),
  "views.large.cutout_size": ([-1], "at least 0"),
  "views.mean": ([()], "one number per channel"),
  "views.std": ([(), (0.2, 0.0, 0.2), (0.2, -0.1, 0.2)], "greater than 0"),
  "views.eval_resize": ([-1], "at least 0"),
  "views.eval_size": ([-1], "at least 0"),
  "support.sampling": (["class"], "one of balanced, uniform"),
  "support.batch_size": ([-1], "at least 0"),
  "support.classes_per_step": ([-1, 1], "0 (all classes) or at least 2"),
  "support.images_per_class": ([0], "at least 1"),
  "support.num_views": ([0], "at least 1"),
  "support.label_smoothing": ([-0.1, 1.0], "[0, 1)"),
  "model.width": ([0], "at least 1"),
  "model.projection_hidden_dim": ([-1], "at least 0"),
  "model.projection_layers": ([1, 17], "at least 2 and at most 16"),
  "model.prediction_hidden_dim": ([-1], "at least 0"),
  "model.output_dim": ([0], "at least 1"),
  "model.bn_momentum": ([-0.1, 1.0], "[0, 1)"),
  "model.final_bn_momentum": ([-0.1, 1.0], "[0, 1)"),
  "model.dtype": (["float16", ""], "auto, float32, bfloat16"),
  "method.temperature": ([0.0, -0.1], "in [1e-6, 1e6]"),
  "method.sharpen_temperature": ([0.0, -0.1], "in [1e-6, 1e6]"),
  "method.prior": (["", "even"], "uniform, labels, given"),
  "method.prior_probs": ([(0.5, 0.0), (1.5, -0.5)], "greater than 0"),
  "method.support_loss_weight": ([-0.1], "0"),
  "method.entropy_loss_weight": ([-0.1], "at least 0"),
  "method.supervised_until": ([-1], "at least 0"),
  "method.supervised_until_epochs": ([-0.5], "at least 0"),
  "method.label_mass_ratio": ([0.0, -1.0], "greater than 0"),
  "method.in_domain_temperature": ([0.0, -0.1], "in [1e-6, 1e6]"),
  "method.in_domain_power": ([-0.1], "at least 0"),
  "method.num_iterations": ([-1], "at least"),
  "method.momentum": ([-0.1, 1.1], "in [0, 1]"),
  "method.queue_size": ([-1], "at least"),
  "method.queue_from_epochs": ([-0.5], "at least 0"),
  "method.num_prototypes": ([1], "at least 2 and at most"),
  "method.epsilon": ([0.0], "in [1e-6, 1e6]"),
  "method.freeze_steps": ([-1], "at least 0"),
  "method.support_temperature": ([0.0], "in [1e-6, 1e6]"),
  "data.label_noise": ([-0.1, 1.0], "in [0, 1)"),
  "data.label_noise_seed": ([-1], "in [0, 2147483647]"),
  "method.k": ([-1, 4097], "at least"),
  "method.bank_size": ([0], "at least 1"),
  "method.constraint": (["", "label"], "none, second_query, kmeans"),
  "method.k_previous": ([0], "at least 1 and at most"),
  "method.num_clusters": ([-1], "at least 0"),
  "method.cluster_iterations": ([0], "at least 1 and at most"),
  "method.threshold": ([-0.1], "at least 0"),
  "method.rounds_per_epoch": ([0], "at least 1 and at most"),
  "method.head_epochs": ([0], "at least 1 and at most"),
  "method.head_drops": ([(0,)], "at least 1"),
  "method.head_batch_size": ([1], "at least 2 and at most"),
  "method.head_lr": ([0.0], "greater than 0"),
  "method.released_batch_size": ([0], "at least 1"),
  "method.ema_decay": ([-0.1, 1.0], "[0, 1)"),
  "method.unlabelled_weight": ([-0.1], "at least 0"),
  "method.ramp_share": ([-0.1, 1.1], "[0, 1]"),
  "method.target_temperature": ([0.0, -0.1], "in [1e-6, 1e6]"),
  "method.entropy_weight": ([-0.1], "at least 0"),
  "method.baseline_decay": ([-0.1, 1.0], "[0, 1)"),
  "method.student_lr": ([0.0], "greater than 0"),
  "method.student_weight_decay": ([-0.1], "at least 0"),
  "method.student_momentum": ([-0.1, 1.0], "[0, 1)"),
  "method.student_wait_share": ([-0.1, 1.0], "[0, 1)"),
  "method.student_warmup_share": ([-0.1, 1.0], "[0, 1)"),
  "method.mixup": ([-0.1], "at least 0"),
  "method.cutmix": ([-0.1], "at least 0"),
  "optim.start_lr": ([-0.1], "at least 0"),
  "optim.peak_lr": ([0.0, -0.1], "greater than 0"),
  "optim.final_lr": ([-0.1], "at least 0"),
  "optim.schedule": (["linear"], "one of cosine, cosine_7_16, constant"),
  "optim.warmup_epochs": ([-1], "at least 0"),
  "optim.weight_decay": ([-1e-6], "at least 0"),
  "optim.momentum": ([-0.1, 1.0], "[0, 1)"),
  "optim.b2": ([-0.1, 1.0], "[0, 1)"),
  "optim.trust_coefficient": ([0.0], "greater than 0"),
  "train.batch_size": ([0, -8], "at least 1"),
  "train.epochs": ([0, -1], "at least 1"),
  "train.minutes": ([-1.0, -0.5], "at least 0"),
  "train.steps_per_call": ([0], "at least 1"),
  "train.remat": (["some", ""], "none, dots, all"),
  "train.bn_group_size": ([-1], "at least 0"),
  "train.bn_groups": ([0], "at least 1"),
  "train.chunks": ([-1], "at least 1, or 'auto'"),
  "eval.every_steps": ([-1], "at least 0"),
  "eval.batch_size": ([0], "at least 1"),
  "eval.linear_batch_size": ([-1, 2**21], "at least 0"),
  "eval.linear_epochs": ([-1], "at least 0"),
  "eval.linear_learning_rate": ([-0.1], "at least 0"),
  "checkpoint.every_steps": ([-1], "at least 0"),
  "checkpoint.keep_every_steps": ([-1], "at least 0"),
  "finetune.learning_rates": (
    [(), (0.1, 0.0), (0.1, -0.1), (0.1, 0.1)],
    "different numbers greater than 0",
  ),
  "finetune.protocol": (["", "linear"], "linear_head, suncet"),
  "finetune.epochs": ([0], "at least 1"),
  "finetune.batch_size": ([0], "at least 1"),
  "finetune.crop_scale": ([(0.0, 1.0), (0.5, 0.2)], "0 < low <= high <= 1"),
  "finetune.aspect_ratio": ([(0.0, 1.0), (2.0, 1.0)], "0 < low <= high"),
  "finetune.head_learning_rate_ratio": ([0.0, -1.0], "greater than 0"),
  "finetune.schedule": (["", "step"], "cosine, drops"),
  "finetune.holdout": (["", "test"], "stratified, paper, none"),
  "finetune.holdout_fraction": ([0.0, 1.0], "in (0, 1)"),
  "log.every_steps": ([0], "at least 1"),
  "log.writers": ([("wandb",), ("jsonl", "csv")], "jsonl"),
}


def _leaves(config, prefix=""):
  for name, value in config.items():
    if isinstance(value, ml_collections.ConfigDict):
      yield from _leaves(value, f"{prefix}{name}.")
    else:
      yield prefix + name, value


def _base_with(name):
  """The defaults, of a method that has the field."""
  for method in methods.METHODS:
    config = config_lib.base(method)
    if name in dict(_leaves(config)):
      return config
  raise KeyError(name)


def _all_leaves():
  """Every field of every method with its default."""
  return {
    name: value
    for method in methods.METHODS
    for name, value in _leaves(config_lib.base(method))
  }


def _changed(name, value):
  config = _base_with(name)
  with config.ignore_type():
    config.update_from_flattened_dict({name: value})
  return config


def _load(path):
  spec = importlib.util.spec_from_file_location(path.stem, path)
  module = importlib.util.module_from_spec(spec)
  spec.loader.exec_module(module)
  return module


def test_a_run_has_one_length():
  config = config_lib.base()
  config.train.minutes = 10.0
  with pytest.raises(
    errors.InputError, match=r"epochs is 100 and train\.minutes is 10: each"
  ):
    config_lib.resolve(config)
  config.train.epochs = 0
  # The warm-up is compared when the number of epochs is known.
  config.optim.warmup_epochs = 10.0
  config_lib.resolve(config)
  config.train.minutes = 0.0
  with pytest.raises(
    errors.InputError, match=r"epochs is 0: .* train\.minutes"
  ):
    config_lib.resolve(config)


def test_a_number_of_supports_that_nothing_reads_is_refused():
  config = config_lib.base()
  config.support.batch_size = 64
  with pytest.raises(ValueError, match=r"batch_size is 64 .*'balanced'.* to 0"):
    config_lib.validate(config)
  config.support.sampling = "uniform"
  config_lib.validate(config)


def test_small_crops_are_no_larger_than_large_ones():
  config = config_lib.base()
  config.views.large.size, config.views.small.size = 16, 17
  with pytest.raises(ValueError, match=r"small.size is 17.*16 pixels"):
    config_lib.resolve(config)
  # Without small crops their size says nothing.
  config.views.small.count = 0
  config_lib.resolve(config)


def test_the_defaults_are_valid():
  config_lib.resolve(config_lib.base())


def test_every_call_gives_defaults_of_its_own():
  first = config_lib.base()
  first.optim.peak_lr = 123.0
  assert config_lib.base().optim.peak_lr != 123.0


def test_the_defaults_are_those_of_the_dataclasses():
  for method in methods.METHODS:
    config = config_lib.base(method)
    recipe = config_lib.resolve(config)
    assert recipe.method.name == method
    assert fields.as_dict(recipe) == config.to_dict()
  assert config_lib.resolve(config_lib.base()) == config_lib.Recipe()


@pytest.mark.parametrize("name", sorted(set(config_lib.base()) - {"seed"}))
def test_an_unknown_field_of_a_section_is_named(name):
  config = config_lib.base()
  config[name].bogus_field = 1
  title = "method paws" if name == "method" else f"section {name}"
  with pytest.raises(
    errors.UnknownFieldError,
    match=rf"^{name}\.bogus_field is no field of {title}; its fields are ",
  ):
    config_lib.resolve(config)


def test_an_unknown_section_is_named():
  config = config_lib.base()
  config.model_zoo = ml_collections.ConfigDict({"name": "x"})
  with pytest.raises(
    TypeError, match=r"^model_zoo is no field of a recipe; its fields are seed,"
  ):
    config_lib.resolve(config)


def test_what_is_missing_has_its_default():
  config = config_lib.base()
  del config.optim["momentum"]
  del config["log"]
  assert config_lib.resolve(config) == config_lib.Recipe()


@pytest.mark.parametrize(
  ("name", "value", "wanted"),
  [
    ("train.epochs", 2.0, "an integer"),
    ("train.epochs", True, "an integer"),
    ("optim.peak_lr", "high", "a number"),
    ("optim.peak_lr", None, "a number"),
    ("optim.nesterov", 1, "True or False"),
    ("model.name", 50, "a string"),
    ("views.mean", 0.5, "a tuple"),
    ("views.mean", ("0.5", "0.5", "0.5"), "a number"),
  ],
)
def test_a_value_of_another_type_is_refused_by_name(name, value, wanted):
  with pytest.raises(ValueError, match=rf"^{name} is .* must be {wanted}"):
    config_lib.resolve(_changed(name, value))


@pytest.mark.parametrize("name", sorted(_all_leaves()))
def test_a_number_that_has_no_value_in_32_bits_is_refused(name):
  default = _all_leaves()[name]
  is_tuple = isinstance(default, tuple)
  example = (*default, 0.0)[0] if is_tuple else default
  wrong = {
    int: (10**18, -(10**18), 2**31),
    float: (1e39, -1e39, math.nan, math.inf),
  }
  for value in wrong.get(type(example), ()):
    given = (value,) * max(len(default), 1) if is_tuple else value
    with pytest.raises(errors.InputError, match=rf"^{name} is .*: it must be"):
      config_lib.resolve(_changed(name, given))


def test_an_integer_is_a_number_and_a_list_a_tuple():
  recipe = config_lib.resolve(_changed("optim.peak_lr", 1))
  assert isinstance(recipe.optim.peak_lr, float)
  recipe = config_lib.resolve(_changed("views.large.scale", [0.5, 1.0]))
  assert recipe.views.specs["large"].scale == (0.5, 1.0)


def test_a_recipe_can_be_resolved_again():
  recipe = config_lib.resolve(config_lib.base())
  assert config_lib.resolve(recipe) is recipe
  wrong = dataclasses.replace(recipe, train=config_lib.Train(epochs=0))
  with pytest.raises(ValueError, match=r"train\.epochs is 0"):
    config_lib.resolve(wrong)


def test_a_recipe_as_json_stores_it():
  recipe = config_lib.resolve(config_lib.base())
  stored = recipe.to_dict()
  assert json.loads(json.dumps(stored)) == stored
  assert stored["views"]["mean"] == [0.485, 0.456, 0.406]
  assert list(stored) == list(config_lib.Recipe.__dataclass_fields__)


def test_every_number_has_a_range():
  for name, value in _all_leaves().items():
    # The fields of small crops are those of large ones.
    name = name.replace("views.small.", "views.large.")
    if isinstance(value, (int, float, tuple)) and not isinstance(value, bool):
      assert name in REFUSED, name


@pytest.mark.parametrize(
  ("name", "value", "allowed"),
  [(k, v, allowed) for k, (vs, allowed) in REFUSED.items() for v in vs],
)
def test_a_value_out_of_range_is_refused_by_name(name, value, allowed):
  with pytest.raises(ValueError, match=rf"^{name} is ") as error:
    config_lib.resolve(_changed(name, value))
  assert repr(value) in str(error.value)
  assert allowed in str(error.value)


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize(
  "name",
  [
    name
    for name, value in _all_leaves().items()
    if isinstance(value, (int, float, tuple)) and not isinstance(value, bool)
  ],
)
def test_numbers_that_are_not_finite_are_refused(name, value):
  before = _all_leaves()[name]
  if isinstance(before, tuple):
    value = (*before[:-1], value)
  with pytest.raises(ValueError, match=rf"^{name} is .* finite"):
    config_lib.resolve(_changed(name, value))


@pytest.mark.parametrize(
  ("name", "value"),
  [
    ("views.small.count", 0),
    ("views.large.scale", (1.0, 1.0)),
    ("views.large.flip_probability", 1.0),
    ("views.large.jitter_strength", 0.0),
    ("views.eval_resize", 0),
    ("support.label_smoothing", 0.0),
    ("optim.start_lr", 0.0),
    ("optim.warmup_epochs", 0.5),
    ("optim.warmup_epochs", 100),
    ("optim.weight_decay", 0.0),
    ("seed", 2**31 - 1),
  ],
)
def test_values_at_the_edge_of_their_range_are_taken(name, value):
  config_lib.resolve(_changed(name, value))


@pytest.mark.parametrize(
  ("changes", "message"),
  [
    ({"train.bn_groups": 3}, "does not divide train.batch_size, 4096"),
    (
      {"train.bn_groups": 2, "train.bn_group_size": 1},
      "each decides which images share BatchNorm",
    ),
    ({"train.bn_groups": 2}, "labelled images cannot be cut into groups"),
  ],
)
def test_groups_of_batch_norm_that_cannot_be_formed_are_refused(
  changes, message
):
  config = config_lib.base()
  for name, value in changes.items():
    section, field = name.split(".")
    config[section][field] = value
  with pytest.raises(ValueError, match=message):
    config_lib.resolve(config)


def test_a_warm_up_longer_than_the_run_is_refused_with_both_numbers():
  config = config_lib.base()
  config.train.epochs = 5
  with pytest.raises(
    ValueError, match=r"optim.warmup_epochs is 10 but train.epochs is 5"
  ):
    config_lib.resolve(config)


@pytest.mark.parametrize(
  ("changes", "message"),
  [
    ({"source": "digits", "pipeline": "host"}, "'digits': it must be 'memory'"),
    ({"source": "idx", "pipeline": "host"}, "'idx': it must be 'memory'"),
    ({"source": "folder"}, "'folder': it must be 'host'"),
    (
      {"labels_per_class": 4, "labels_fraction": 0.1},
      "labels_per_class is 4 and data.labels_fraction is 0.1: set one",
    ),
    (
      {"labels_file": "a.txt"},
      "labels_file is 'a.txt' but data.labels_per_class is 4: the file tells",
    ),
    (
      {"labels_file": "a", "labels_per_class": 0, "labels_fraction": 0.1},
      "set labels_fraction to 0, or labels_file to ''",
    ),
    (
      {"source": "folder", "pipeline": "host", "tfds_name": "cifar10"},
      "data.tfds_name is 'cifar10' but data.source is 'folder': only 'tfds'",
    ),
    (
      {"source": "folder", "pipeline": "host", "image_size": 16},
      "data.image_size is 16 but data.pipeline is 'host': leave it 0",
    ),
    (
      {"white_level": 4095},
      "data.white_level is 4095 but data.pipeline is 'memory': only",
    ),
    (
      {"manifest": "a.csv"},
      "data.manifest is 'a.csv' but data.source is 'digits'",
    ),
    (
      {"unlabelled_dir": "u"},
      "data.unlabelled_dir is 'u' but data.source is 'digits'",
    ),
    ({"test_dir": "t"}, "data.test_dir is 't' but data.source is 'digits'"),
    (
      {
        "source": "folder",
        "pipeline": "host",
        "manifest": "a.csv",
        "unlabelled_dir": "u",
      },
      "data.unlabelled_dir is 'u' but data.manifest is given",
    ),
  ],
)
def test_fields_about_data_that_contradict_each_other(changes, message):
  config = config_lib.base()
  config.data.update(changes)
  with pytest.raises(ValueError, match=re.escape(message)):
    config_lib.resolve(config)


def test_images_on_disk_are_resized_to_be_evaluated():
  config = config_lib.base()
  config.data.update(source="folder", pipeline="host")
  config.views.eval_resize = 0
  with pytest.raises(ValueError, match=r"eval_resize is 0 but .* 'host'.* 224"):
    config_lib.resolve(config)


def test_data_on_disk_is_taken():
  config = config_lib.base()
  config.data.update(source="folder", pipeline="host", unlabelled_dir="u")
  config_lib.resolve(config)
  config.data.update(source="tfds", unlabelled_dir="", labels_per_class=0)
  config.data.labels_fraction = 0.1
  config_lib.resolve(config)
  config.data.update(labels_fraction=0.0, labels_file="list.txt")
  config_lib.resolve(config)


@pytest.mark.parametrize("every", [0, 20])
def test_a_retention_that_no_checkpoint_meets_is_refused(every):
  config = config_lib.base()
  config.checkpoint.every_steps = every
  config.checkpoint.keep_every_steps = 30
  with pytest.raises(
    ValueError, match=rf"keep_every_steps is 30 but .*every_steps is {every}"
  ):
    config_lib.resolve(config)
  config.checkpoint.every_steps = 15
  config_lib.resolve(config)


def test_mean_and_std_of_different_lengths_are_refused():
  with pytest.raises(ValueError, match=r"views.mean has 1 .* views.std 3"):
    config_lib.resolve(_changed("views.mean", (0.5,)))


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_every_recipe_is_valid_and_can_be_built(path):
  config = _load(path).get_config()
  recipe = config_lib.resolve(config)
  # It has the fields of its method and its views, and no others.
  same = config_lib.base(recipe.method.name)
  for name in set(recipe.views.specs) - set(same.views):
    same.views[name] = config_lib.view_spec()
  for name in {"large", "small"} - set(recipe.views.specs):
    del same.views[name]
  assert set(dict(_leaves(config))) == set(dict(_leaves(same)))


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_every_recipe_says_how_to_run_it(path):
  assert f"--config=configs/{path.name}" in _load(path).__doc__


def test_there_are_recipes():
  assert RECIPES
