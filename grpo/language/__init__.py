"""What the model is asked and what it answers: prompts, answers, and the rewards that pay for them. No torch."""
