"""What this machine can do: the memory that a training needs, and what doctor finds."""
