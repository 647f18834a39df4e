"""Labels that are no class names are refused or warned of."""

import pytest

from paws_jax import errors
from paws_jax.data.labels import label_names


@pytest.mark.parametrize(
  "label",
  [
    *("nan", "NaN", "None", "NA", "N/A", "null", "NULL", "<NA>", "NaT", "#N/A"),
    *(" nan ", "none", "\\N", "#REF!", "nil", "n.a."),
    # Of spreadsheets in other languages, R, pandas and databases.
    *("#NV", "#WERT!", "#SPILL!", "#\u00a1VALOR!", "#N/D", "Err:502"),
    *("(null)", "[null]", "NA_character_", "pd.NA", "np.nan", "(None)"),
  ],
)
def test_labels_of_programs_for_a_missing_one(label):
  assert label_names.missing(["cat", label, label], real_labels="") == [label]
  assert label_names.missing([label], real_labels=f"x, {label}") == []


@pytest.mark.parametrize(
  "label",
  [
    "cat",
    "Nan Goldin",
    "nana",
    "na\u00efve",
    "Namibia",
    "",
    "0",
    "no",
    "#wow!",
  ],
)
def test_labels_that_are_names(label):
  assert not label_names.is_missing(label)


@pytest.mark.parametrize(
  ("names", "found"),
  [
    (("china", "china|sky", "sky"), ["china|sky"]),
    (("a;b", "c"), ["a;b"]),
    (("sky, sea", "sea", "sky"), ["sky, sea"]),
    (("sky,sea", "sea,sky"), ["sky,sea", "sea,sky"]),
    (("sky,sea", "sea,fog", "fog,sky"), ["sky,sea", "sea,fog", "fog,sky"]),
    (("sky sea", "sea sky"), ["sky sea", "sea sky"]),
    (("sky sea", "sky", "sea"), ["sky sea"]),
    (("sky+sea", "sky", "sea"), ["sky+sea"]),
    (("sky_sea", "sky", "sea"), ["sky_sea"]),
    (("1 0 0", "0 1 0"), ["1 0 0", "0 1 0"]),
    (("['sky', 'sea']", "['sky']"), ["['sky', 'sea']", "['sky']"]),
    (("{sky,sea}", "fog"), ["{sky,sea}"]),
    (("('sky', 'sea')", "fog"), ["('sky', 'sea')"]),
    (("sky and sea", "sky", "sea"), ["sky and sea"]),
    (("sky__sea", "sky", "sea"), ["sky__sea"]),
    (("sky::sea", "sky", "sea"), ["sky::sea"]),
    (("sky > sea", "sea > sky"), ["sky > sea", "sea > sky"]),
    (("sky\uff1bsea", "fog"), ["sky\uff1bsea"]),
    (("sky\u3001sea", "sky", "sea"), ["sky\u3001sea"]),
    (("bird: robin", "fish: trout", "(large)"), []),
    # Names of one class, as in ImageNet and elsewhere.
    (("tench, Tinca tinca", "goldfish, Carassius auratus"), []),
    (("maillot", "maillot, tank suit", "swimming trunks"), []),
    (("polar bear", "brown bear", "bear"), []),
    (("red apple", "green apple", "red pear", "green pear"), []),
    (("ice_cream", "ice-cream", "b"), []),
    (("cat", "dog"), []),
    (("a|", "|b", "|"), []),
  ],
)
def test_several_labels_in_one(names, found):
  (*lines,) = [
    line
    for line in label_names.warnings(names, [0] * 40)
    if "several labels" in line
  ]
  if not found:
    assert not lines
    return
  (line,) = lines
  assert line.startswith(f"{len(found)} of {len(names)} classes look like")
  for name in found:
    assert repr(name) in line
  assert "An image has one label here" in line


@pytest.mark.parametrize(
  ("names", "num_images", "warned"),
  [
    (("0.5", "1.25", "3"), 30, True),
    (("0,5", "1,25"), 30, True),
    (("-1e-3", ".5"), 30, True),
    (tuple(map(str, range(40))), 60, True),
    # Digits, grades, and class numbers with several images each.
    (tuple(map(str, range(10))), 10, False),
    (tuple(map(str, range(100))), 400, False),
    (("1.0", "2.0"), 8, False),
    (("1.5", "cat"), 8, False),
  ],
)
def test_numbers_to_be_predicted(names, num_images, warned):
  lines = label_names.warnings(names, [0] * num_images)
  assert len(lines) == warned
  if warned:
    assert "each number is a class of its own" in lines[0]


@pytest.mark.parametrize(
  "name",
  [
    *("?", "-", ".", "unknown", "No label", "-1", "-1.0", "-999", "inf"),
    *("(blank)", "unassigned", "not applicable"),
  ],
)
def test_names_that_may_stand_for_a_missing_label(name):
  (line,) = label_names.warnings(("cat", "dog", name), [0] * 9)
  assert line.startswith(f"the class name {name!r} may stand for a missing")
  # Signs may be what is classified.
  assert label_names.warnings(("?", "!", "-"), [0] * 9) == ()


def test_class_folders_named_like_a_missing_label():
  names = ("None", "cat", "nan")
  with pytest.raises(
    errors.InputError,
    match=r"^data\.dir = 'x' has the class folder 'None', 'nan', .*data.unlab"
    r"elled_dir to it; .*--config\.data\.real_labels=None,nan$",
  ):
    label_names.check_folders("data.dir = 'x'", names, real_labels="")
  label_names.check_folders("data.dir = 'x'", names, real_labels="none,NaN")
  with pytest.raises(errors.InputError, match=r"real_labels='<NA>'$"):
    label_names.check_folders("data.dir = 'x'", ("<NA>",), real_labels="")
