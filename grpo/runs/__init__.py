"""Run folders: the stages, where things lie, the one resume rule, manifests, checkpoints and the log. No torch."""
