"""What the Hub's refusals mean, in one sentence that says what to do; and which of them are worth another try."""

import time
from collections.abc import Callable, Iterator
from typing import TypeVar

from huggingface_hub import constants, get_token
from huggingface_hub.errors import (
    DisabledRepoError,
    GatedRepoError,
    HfHubHTTPError,
    HTTPError,
    LocalTokenNotFoundError,
    OfflineModeIsEnabled,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)
from transformers.utils import logging

from .first_line import first_line


logger = logging.get_logger(__name__)
Result = TypeVar("Result")

# Seconds between tries, unless the Hub names its own.
WAITS = (1, 2, 4, 8, 16)
_LONGEST_WAIT = 300
_TRANSIENT = (408, 429, 500, 502, 503, 504)


def causes(error: BaseException) -> Iterator[BaseException]:
    """Yield an error and what it came from: the library wraps the Hub's errors into its own."""
    seen: BaseException | None = error
    while seen is not None:
        yield seen
        seen = seen.__cause__ or seen.__context__


def status_of(error: BaseException) -> int | None:
    """Return the status with which the Hub answered; None: it did not, or this is no error of its."""
    response = getattr(error, "response", None) if isinstance(error, HfHubHTTPError) else None
    return None if response is None else response.status_code


def is_transient(error: BaseException) -> bool:
    """Say whether the same request may succeed a little later: the Hub is busy, or the connection broke."""
    status = status_of(error)
    return isinstance(error, HTTPError) if status is None else status in _TRANSIENT


def wait_before(number: int, error: BaseException, what: str):
    """Wait before try `number` (2 or more), as long as the Hub asks for or a little longer each time."""
    seconds: float = WAITS[min(number - 2, len(WAITS) - 1)]
    asked = getattr(getattr(error, "response", None), "headers", {}).get("Retry-After", "")
    if str(asked).isdecimal():
        seconds = min(int(asked), _LONGEST_WAIT)
    logger.warning(f"{what}: {first_line(error)[:200]} Trying again in {seconds:g} s ({number} of {len(WAITS) + 1}).")  # type: ignore[arg-type]
    time.sleep(seconds)


def patiently(call: Callable[[], Result], what: str) -> Result:
    """Do what changes nothing when it is done twice, up to six times where the Hub is busy or the connection breaks.

    Raises:
        Exception: what the last try raised.
    """
    for number in range(2, len(WAITS) + 2):
        try:
            return call()
        except Exception as error:
            if not is_transient(error):
                raise
            wait_before(number, error, what)
    return call()


def explain(
    error: BaseException, repository: str, revision: str | None = None, token: str | None = None
) -> str | None:
    """Say what an error means for somebody who reads or writes a repository.

    Args:
        error: of the Hub's client, or of the library, which wraps those.
        repository: "user/repository".
        revision: that was asked for.
        token: that was used; None: that of the environment or of `hf auth login`, if there is one.

    Returns:
        A sentence; None: it is no error of the Hub.
    """
    where, has_token = f"{constants.ENDPOINT}/{repository}", (token or get_token()) is not None
    log_in = "log in by `hf auth login`, or set HF_TOKEN"
    for cause in causes(error):
        status = status_of(cause)
        if isinstance(cause, GatedRepoError):
            first = "ask for access" if has_token else f"{log_in}, and ask for access"
            return f"The model {repository!r} is gated: {first} at {where}."
        if isinstance(cause, DisabledRepoError) or (status == 403 and "disabled" in str(cause)):
            return f"The model {repository!r} was disabled by the Hub: {where} says why."
        if isinstance(cause, RevisionNotFoundError):
            return f"The model {repository!r} has no revision {revision!r}: see {where}/tree/main for its branches and tags."
        if isinstance(cause, LocalTokenNotFoundError):
            return f"There is no token for the Hub: {log_in}."
        if status == 401 and not has_token:
            return f"There is no model {repository!r} on {constants.ENDPOINT} that anybody may see; if it is private, {log_in}."
        if status == 401:
            return f"The Hub does not accept the token (HF_TOKEN, or of `hf auth login`): it is wrong or has expired; {log_in}."
        if isinstance(cause, RepositoryNotFoundError):
            return (
                f"There is no model {repository!r} on {constants.ENDPOINT}, or it is private and the token in use may not see it: "
                f"`hf auth whoami` says whose that is."
            )
        if status == 403:
            return (
                f"The token in use may not write to {repository!r}: it needs the role write, and the rights of its owner. "
                "`hf auth whoami` says whose it is; https://huggingface.co/settings/tokens makes another."
            )
        if isinstance(cause, OfflineModeIsEnabled):
            return "The Hub is not asked: HF_HUB_OFFLINE is set. Unset it."
        if isinstance(cause, HTTPError) and (status is None or status in _TRANSIENT):
            answered = f"answered {status}" if status else f"did not answer ({first_line(cause)})"  # type: ignore[arg-type]
            return f"The Hub at {constants.ENDPOINT} {answered}, also after {len(WAITS)} more tries."
        if isinstance(cause, HfHubHTTPError):
            return f"The Hub refused: {first_line(cause)}"
    return None
