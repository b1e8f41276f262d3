"""The commands of `python -m baselines.seqgan`: train on a text file of sequences, and sample."""
