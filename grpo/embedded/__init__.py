"""The embedded model: a small language model for forecasting prompts, shipped with the package, and its builder."""
