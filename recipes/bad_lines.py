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
