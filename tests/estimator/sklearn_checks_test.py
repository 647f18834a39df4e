"""scikit-learn's own checks of estimators, those that apply to images.

By its tags the estimator takes no table of features, and scikit-learn then
runs no check at all; here it claims to, and each check that fits a table is
listed with the reason why it does not apply.
"""

import pytest
from sklearn.utils import estimator_checks

from paws_jax.estimator import estimator as estimator_lib

if not hasattr(estimator_checks, "estimator_checks_generator"):
  pytest.skip("needs scikit-learn 1.6", allow_module_level=True)

_TABLE = "fits a table of numbers [n, features]; images are uint8 [n, H, W, Ch]"
_DTYPE = "passes other dtypes as table; images.py refuses them by name"
_ERROR = "wants its own words about a table that is empty, sparse or not finite"
_CONSTANT = "one class is refused: whatever the image, it would be predicted"
_NAME = "passes the name `fields`, which no recipe has, and is refused"
NOT_APPLICABLE = {
  "check_do_not_raise_errors_in_init_or_set_params": _NAME,
  **dict.fromkeys(
    (
      "check_array_api_input",
      "check_classifier_data_not_an_array",
      "check_classifiers_classes",
      "check_classifiers_regression_target",
      "check_classifiers_train",
      "check_dict_unchanged",
      "check_dont_overwrite_attributes",
      "check_dont_overwrite_parameters",
      "check_estimators_fit_returns_self",
      "check_estimators_overwrite_params",
      "check_estimators_pickle",
      "check_f_contiguous_array_estimator",
      "check_fit_check_is_fitted",
      "check_fit_idempotent",
      "check_fit_score_takes_y",
      "check_methods_sample_order_invariance",
      "check_methods_subset_invariance",
      "check_n_features_in",
      "check_n_features_in_after_fitting",
      "check_non_transformer_estimators_n_iter",
      "check_pipeline_consistency",
      "check_positive_only_tag_during_fit",
      "check_readonly_memmap_input",
      "check_requires_y_none",
      "check_supervised_y_2d",
      "check_transformer_data_not_an_array",
      "check_transformer_general",
      "check_transformer_n_iter",
      "check_transformer_preserve_dtypes",
    ),
    _TABLE,
  ),
  **dict.fromkeys(("check_dtype_object", "check_estimators_dtypes"), _DTYPE),
  **dict.fromkeys(
    (
      "check_complex_data",
      "check_estimator_sparse_array",
      "check_estimator_sparse_matrix",
      "check_estimator_sparse_tag",
      "check_estimators_empty_data_messages",
      "check_estimators_nan_inf",
      "check_fit1d",
      "check_fit2d_1feature",
      "check_fit2d_1sample",
      "check_fit2d_predict1d",
      "check_supervised_y_no_nan",
    ),
    _ERROR,
  ),
  **dict.fromkeys(
    (
      "check_classifiers_one_label",
      "check_classifiers_one_label_sample_weights",
    ),
    _CONSTANT,
  ),
}


class PawsClassifier(estimator_lib.PawsClassifier):
  """Claims to take a table, so that scikit-learn lists its checks."""

  def __sklearn_tags__(self):
    tags = super().__sklearn_tags__()
    tags.input_tags.two_d_array = True
    return tags


def _checks():
  listed = estimator_checks.estimator_checks_generator(PawsClassifier())
  return [(estimator_checks._check_name(check), check) for _, check in listed]


CHECKS = _checks()
APPLICABLE = [c for c in CHECKS if c[0] not in NOT_APPLICABLE]


@pytest.mark.parametrize(
  "check",
  [check for _, check in APPLICABLE],
  ids=[name for name, _ in APPLICABLE],
)
def test_estimator_passes(check):
  check(PawsClassifier())


def test_checks_are_found():
  names = {name for name, _ in APPLICABLE}
  assert {
    "check_get_params_invariance",
    "check_set_params",
    "check_estimators_unfitted",
    "check_no_attributes_set_in_init",
    "check_estimator_repr",
    "check_parameters_default_constructible",
  } <= names


def test_a_check_fails_where_it_should():
  class Wrong(PawsClassifier):
    def __init__(self, recipe="image_folder:laptop"):
      super().__init__(recipe)
      self.other = 1

  check = dict(CHECKS)["check_no_attributes_set_in_init"]
  with pytest.raises(AssertionError, match="'other'"):
    check.func(check.args[0], Wrong())
