"""A trader's Decision Transformer (Chen et al. 2021): from trade files to a model of what the trader does.

The steps in order: ingestion -> features -> labels -> states -> actions -> dataset, joined by pipeline; then model,
training and inference.
"""
