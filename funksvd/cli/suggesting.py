"""A parser of command lines that asks "did you mean ...?" where a name is nearly right."""

from __future__ import annotations

import argparse
import difflib
import re
from collections.abc import Iterable, Sequence
from typing import Any, NoReturn

# The texts of argparse's errors about a name: that of options, and that of a command or a choice.
UNKNOWN_OPTIONS = re.compile(r"unrecognized arguments: (.*)")
UNKNOWN_CHOICE = re.compile(r"invalid choice: '(.*?)'")


class SuggestingParser(argparse.ArgumentParser):
    """An `ArgumentParser` that suggests an option, a command or a choice."""

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        """Parse as argparse does; a command complains itself of options that it does not have.

        argparse leaves that to the parser of all commands, which does not know the options of one.
        """
        parsed, unknown = super().parse_known_args(args, namespace)
        if unknown:
            self.error(f"unrecognized arguments: {' '.join(unknown)}")
        return parsed, unknown

    def error(self, message: str) -> NoReturn:
        """Print the usage and an error, with a suggestion if there is one, and exit with code 2."""
        super().error(message + self._suggestion(message))

    def _suggestion(self, message: str) -> str:
        """Return "; did you mean ...?" for an error about a name, "" if nothing is similar."""
        unknown = UNKNOWN_OPTIONS.match(message)
        if unknown is not None:
            given = [text.partition("=")[0] for text in unknown[1].split() if text.startswith("-")]
            return suggestion(given, self._option_string_actions)
        choice = UNKNOWN_CHOICE.search(message)
        if choice is not None:
            return suggestion([choice[1]], self._choices())
        return ""

    def _choices(self) -> list[str]:
        """Return the names of all commands and choices."""
        names: list[str] = []
        for action in self._actions:
            names.extend(map(str, action.choices or ()))
        return names


def suggestion(given: Sequence[str], known: Iterable[str]) -> str:
    """Return "; did you mean ...?" with the name most similar to the first given one that has one.

    It is "" if none has.
    """
    for text in given:
        close = difflib.get_close_matches(text, list(known), n=1)
        if close:
            return f"; did you mean {close[0]}?"
    return ""
