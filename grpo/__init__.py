"""Fine-tune a language model with GRPO to forecast prices, and measure what it learnt.

Imports go one way: grpo.stages -> {trainer, rewards, modeling, generation, forecaster} ->
{prompts, config, runs} -> grpo.evaluation -> preprocessing. grpo never imports baselines: forecasters are
found by name through the entry-point group "grpo.forecasters".
"""
