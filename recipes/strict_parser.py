"""A parser of command lines that raises ValueError, as everything else here does where input is wrong."""

import argparse


class StrictParser(argparse.ArgumentParser):
    """The standard library's, which ends no program."""

    def error(self, message: str):
        """Raise what argparse would print below its usage.

        Raises:
            ValueError: always.
        """
        raise ValueError(f"{message}. `{self.prog} --help` shows what is possible.")


def whole_number(word: str) -> int:
    """Read a number of things, for an option.

    Raises:
        argparse.ArgumentTypeError: it is none, or less than 1.
    """
    if not word.isdecimal() or not 1 <= int(word) < 2**31:
        raise argparse.ArgumentTypeError(f"{word!r} must be a whole number, 1 or more")
    return int(word)
