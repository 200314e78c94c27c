"""The stages, one module each; ``graph.py`` says in which order they stand."""
