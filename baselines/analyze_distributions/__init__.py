"""Real against generated sequences: how far apart two samples are, and how far they would be by chance.

metrics and two_sample (distances) -> report (with their noise) -> plots; samples reads files and runs; README.md says
how to read each number and picture.
"""
