"""One way to show progress: on stderr, a bar that moves on a terminal, and a line now and then in a log file."""

import sys

from tqdm.auto import tqdm


def progress_bar(total: int, what: str, unit: str, *, shown: bool = True, initial: int = 0) -> tqdm:
    """Make a progress bar, with speed and time left.

    Args:
        total: units until the end.
        what: what is being done, such as "training".
        unit: what is counted, in the singular.
        shown: False counts in silence.
        initial: units that are done already.
    """
    return tqdm(
        total=total,
        desc=what,
        unit=f" {unit}",
        initial=initial,
        disable=not shown,
        dynamic_ncols=True,
        mininterval=0.5 if sys.stderr.isatty() else 20,
    )
