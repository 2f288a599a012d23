"""Plain functions over rows, as a run: columns, models, row sources, the output folder, and `run` itself."""
