"""The one base class of every error that a user can mend."""

from __future__ import annotations


class UserError(ValueError):
    """Something that the user can mend: the message is one line that names the place and a way out that works.

    Commands print it without a traceback and exit with 1; any other exception counts as a bug and keeps its traceback.
    A plugin of another package raises it, or a class of its own derived from it, for the same treatment.
    """


def require(condition: bool, message: str) -> None:
    """Refuse a value.

    Raises:
        UserError: the condition does not hold; the message names the place and the way out.
    """
    if not condition:
        raise UserError(message)
