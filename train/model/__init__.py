"""The dual encoder: towers, text encoders, token ids, loss. Importing this loads nothing heavy."""
