"""What the neural baselines share: inputs without price level, checkpoints, learning curves, early stopping."""
