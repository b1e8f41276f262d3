"""The pipeline's stages, each one a command: `python -m grpo.stages.NAME --help`."""
