"""One rule for text that cannot be used: it is never dropped in silence."""

from transformers.utils import logging


logger = logging.get_logger(__name__)


class BadLines:
    """What happens to rows that cannot be used: stop at the first, or leave them out and say so.

    Args:
        mode: "error" or "skip".
        unit: what the rows are, in the plural.

    Raises:
        ValueError: `mode` is neither.
    """

    def __init__(self, mode: str, unit: str):
        if mode not in ("error", "skip"):
            raise ValueError(f'bad_lines={mode!r} must be "error" (stop at the first) or "skip" (leave out and warn).')
        self.mode, self.unit = mode, unit
        self.reports: list[str] = []

    def report(self, origin: str, problem: str) -> None:
        """Note one bad row.

        Raises:
            ValueError: the mode is "error".
        """
        if self.mode == "error":
            raise ValueError(f'{origin}: {problem} (bad_lines="skip" leaves out such {self.unit}).')
        self.reports.append(f"{origin}: {problem}")

    def close(self, kept: int) -> None:
        """Warn once of all that was left out.

        Args:
            kept: number of good rows.

        Raises:
            ValueError: no row is left.
        """
        if not self.reports:
            return
        left_out, total = len(self.reports), len(self.reports) + kept
        if not kept:
            raise ValueError(f"None of the {total:,} {self.unit} can be used. The first: {self.reports[0]}.")
        more = f"; and {left_out - 3:,} more" if left_out > 3 else ""
        logger.warning(f"Left out {left_out:,} of {total:,} {self.unit}: {'; '.join(self.reports[:3])}{more}.")


class StreamedBadLines(BadLines):
    """The same for text that is read while it is used, once or often: each row is counted in the first epoch only.

    The first three are named as soon as they are met; the 10th, the 100th and so on with how many there were until then.

    Args:
        mode: "error" or "skip".
        unit: what the rows are, in the plural.
        quiet: warn of nothing, as another process does.
    """

    def __init__(self, mode: str, unit: str, *, quiet: bool = False):
        super().__init__(mode, unit)
        self.quiet, self.counted, self.known = quiet, 0, False

    def report(self, origin: str, problem: str) -> None:
        """Note one bad row.

        Raises:
            ValueError: the mode is "error".
        """
        if self.mode == "error":
            super().report(origin, problem)
        if self.known:
            return
        self.counted += 1
        if self.counted <= 3:
            self.reports.append(f"{origin}: {problem}")
        if not self.quiet and (self.counted <= 3 or str(self.counted).strip("0") == "1"):
            so_far = f", {self.counted:,} so far" if self.counted > 3 else ""
            logger.warning(f"Left out of the {self.unit}{so_far}: {origin}: {problem}.")

    def close(self, kept: int) -> None:
        """End an epoch; after the first, warn once of all that was left out.

        Args:
            kept: number of good rows.

        Raises:
            ValueError: no row is left.
        """
        total = self.counted + kept
        if not kept:
            first = f" The first: {self.reports[0]}." if self.reports else ""
            raise ValueError(f"None of the {total:,} {self.unit} of the stream can be used.{first}")
        if self.counted and not self.known and not self.quiet:
            logger.warning(f"Left out {self.counted:,} of {total:,} {self.unit}; they will not be counted again.")
        self.known = True
