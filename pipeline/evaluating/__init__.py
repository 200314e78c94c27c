"""``tonics eval`` beyond the stage: other models, other questions, and what came out."""
