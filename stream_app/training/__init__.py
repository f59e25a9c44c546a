"""Training: labelled rows in, a ready Triton model folder out."""
