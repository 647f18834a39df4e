"""From a recipe to a trained state."""
