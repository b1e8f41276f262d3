"""Forecasters that stand beside the language model, registered under the entry-point group "grpo.forecasters"."""
