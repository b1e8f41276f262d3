"""What forecasters are built from: windows as features, paths, quantiles, saving, optional packages."""
