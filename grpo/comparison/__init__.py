"""The comparison of a run: its forecasters, folds, placebos, probes and trading, and what it leaves behind."""
