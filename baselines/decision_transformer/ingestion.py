"""Step 1: from trade files to bars and to the trader's books."""

from __future__ import annotations


class TraderDataError(ValueError):
    """Trade files, or a file made of them, that cannot be used; the message is one line with a way out."""
