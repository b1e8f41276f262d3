"""Checks that configs share; no torch."""

from __future__ import annotations


def require_at_least(settings: object, least: int, *names: str) -> None:
    """Refuse settings below `least`.

    Raises:
        ValueError: the message names the first such field.
    """
    for name in names:
        if not getattr(settings, name) >= least:
            raise ValueError(f"{name} must be at least {least}; got {getattr(settings, name)}")


def require_positive(settings: object, *names: str) -> None:
    """Refuse settings that are not finite and above 0.

    Raises:
        ValueError: the message names the first such field.
    """
    for name in names:
        if not 0 < getattr(settings, name) < float("inf"):
            raise ValueError(f"{name} must be positive; got {getattr(settings, name)}")


def require_not_negative(settings: object, *names: str) -> None:
    """Refuse settings below 0.

    Raises:
        ValueError: the message names the first such field.
    """
    for name in names:
        if not getattr(settings, name) >= 0:
            raise ValueError(f"{name} must be 0 or more; got {getattr(settings, name)}")
