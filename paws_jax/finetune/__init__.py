"""Fine-tuning a pre-trained encoder on the labelled images."""
