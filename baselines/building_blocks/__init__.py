"""What forecasters are built from: windows as features and volatility, paths, quantiles, files, optional packages."""
