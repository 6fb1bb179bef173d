"""Fields of two configurations: one table for each format, read in both directions."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from transformers import PreTrainedConfig


@dataclass(frozen=True)
class Fields:
    """The table of one format.

    Args:
        same: fields of ours, and what they are called there.
        theirs: fields there that ours has no word for, with the only value that it can express; a configuration may lack
            them.
        ours: fields of ours that they have no word for, with the only value that they can express.
    """

    same: Mapping[str, str]
    theirs: Mapping[str, Any] = field(default_factory=dict)
    ours: Mapping[str, Any] = field(default_factory=dict)

    def to_ours(self, config: PreTrainedConfig) -> dict[str, Any]:
        """Give our fields, from their configuration.

        Raises:
            ValueError: a field has a value that ours cannot express.
        """
        _check(config, self.theirs, "cannot be converted")
        return {ours: getattr(config, theirs) for ours, theirs in self.same.items()}

    def to_theirs(self, config: PreTrainedConfig) -> dict[str, Any]:
        """Give their fields, from our configuration.

        Raises:
            ValueError: a field has a value that theirs cannot express.
        """
        _check(config, self.ours, "cannot be expressed in that format")
        return {theirs: getattr(config, ours) for ours, theirs in self.same.items()}


def _check(config: PreTrainedConfig, only: Mapping[str, Any], problem: str):
    for name, value in only.items():
        found = getattr(config, name, value)
        if found != value:
            raise ValueError(
                f"A {config.model_type} model with {name}={found!r} {problem}: only {name}={value!r} can."
            )
