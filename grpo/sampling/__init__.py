"""Sampling: the language model as a forecaster, generation with shared prompts, vLLM, an endpoint, probes."""
