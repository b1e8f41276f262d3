"""A Decision Transformer (Chen et al. 2021) of daily returns; `baselines.trader` trains the same network on trades."""
