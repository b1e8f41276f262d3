"""Forecasters with a classical fit: random walks, volatility models, bootstraps, ARIMA, regressions, trees."""
