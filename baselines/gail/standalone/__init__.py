"""The commands of `python -m baselines.gail`: train on demonstrations, judge what came of it, search settings."""
