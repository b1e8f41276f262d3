"""What this machine can do: its hardware, the memory a run needs, and the checks of preflight and doctor."""
