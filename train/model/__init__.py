"""The dual encoder: towers, text encoders, token ids, loss. Importing this loads nothing heavy."""

POOLINGS = ("gpo", "mean", "attention", "transformer:1", "transformer:2", "transformer:4")
HEADS = 8  # of attention in pooling layers
