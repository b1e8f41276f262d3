"""Pretrained time-series models, which are fitted to nothing here."""
