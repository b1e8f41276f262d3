"""Real against generated sequences: how far apart two samples are, and how far they would be by chance.

distances and two_sample (two samples) -> analysis (every distance with its noise) -> plots; samples reads files and
runs; README.md says how to read each number and picture. `python -m baselines.analyze_distributions` is the command.
"""
