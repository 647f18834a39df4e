"""Reading and decoding of images during training, on the host."""
