"""Where images come from: arrays, folders, manifests, idx files, TFDS."""
