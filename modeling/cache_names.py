"""The cache of keys and values, under whichever name the installed library has for it.

Version 5.24 of the library renamed `past_key_values` to `cache`: `generate` gives it to a model's `forward` by the library's
name and by no other, and looks for it by that name in what `forward` returns; so do masks and activation checkpointing. To a
`forward` with `**kwargs` the other name is no error: every token is then written as if there were none before it. Models here
say `past_key_values`, take both names, and hand the library its own.
"""

import functools
from collections.abc import Callable
from typing import Any

from transformers import Cache
from transformers.modeling_outputs import BaseModelOutputWithPast
from transformers.utils import ModelOutput


CACHE_NAME = "cache" if "cache" in BaseModelOutputWithPast.__dataclass_fields__ else "past_key_values"


def takes_cache_by_both_names(forward: Callable) -> Callable:
    """Let a `forward` that has the argument `past_key_values` take it as `cache` too; outermost of its decorators.

    Raises:
        ValueError: both are given.
    """

    @functools.wraps(forward)
    def renamed(self, *args, **kwargs):
        if "cache" in kwargs:
            cache = kwargs.pop("cache")
            if cache is not None and kwargs.get("past_key_values") is not None:
                raise ValueError("past_key_values and cache are two names of one argument: give one.")
            if cache is not None:
                kwargs["past_key_values"] = cache
        return forward(self, *args, **kwargs)

    return renamed


def by_library_name(cache: Cache | None) -> dict[str, Any]:
    """Give a cache as the argument that the library expects; for its functions and its outputs."""
    return {CACHE_NAME: cache}


def cache_of(outputs: ModelOutput) -> Any:
    """Read the cache that a model returned; None: there is none."""
    return getattr(outputs, CACHE_NAME)


__all__ = ["CACHE_NAME", "by_library_name", "cache_of", "takes_cache_by_both_names"]
