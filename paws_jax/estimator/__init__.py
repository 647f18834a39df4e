"""`paws_jax.PawsClassifier`: training and classifying as in scikit-learn."""
