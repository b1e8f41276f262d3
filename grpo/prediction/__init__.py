"""Forecasts of a stock with a trained adapter: tables, JSON and fan charts."""
