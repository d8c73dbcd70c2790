"""One page that runs a model in the browser: its source (`src/`), and writing and serving it."""
