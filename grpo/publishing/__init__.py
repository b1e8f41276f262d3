"""Adapters to the Hugging Face Hub, each with a model card. No torch."""
