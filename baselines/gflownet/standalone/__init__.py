"""The commands of `python -m baselines.gflownet`."""
