"""The command `python -m baselines.analyze_distributions`; what it does lies in `grpo.evaluation.distributions`."""
