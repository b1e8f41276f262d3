"""Rows of bars to bars that can be used: repaired, refused, counted."""
