"""Region features as other programs write them, one module a family."""
