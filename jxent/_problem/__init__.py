"""One call as one pytree: its bundles, and what is resolved before any statistic."""
