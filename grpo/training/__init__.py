"""Training: GRPO with shared prompts, SFT, the guard that keeps the best adapter, rejection sampling."""
