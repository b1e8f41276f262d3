"""Base models and adapters: their names, records and settings, loading them, and fetching them from the Hub."""
