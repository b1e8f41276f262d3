"""Stochastic generative flow networks, as samplers of small exact tasks and as a forecaster of price paths."""
