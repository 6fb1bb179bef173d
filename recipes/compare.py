"""`theatre compare`: train what belongs to a comparison, and put the figures side by side."""

from collections.abc import Sequence

from .nearest import nearest


COMPARISONS = {
    "gpt1-ablation": "what pre-training, the auxiliary loss and the Transformer each bring (GPT-1, table 5)"
}

USAGE = """usage: theatre compare COMPARISON [options]

{comparisons}

`theatre compare COMPARISON --help` shows its options."""


def main(argv: Sequence[str]) -> int:
    """Run the command line behind `theatre compare`.

    Raises:
        ValueError: there is no such comparison, or an option of it is wrong.
    """
    if not argv or argv[0] in ("-h", "--help"):
        print(USAGE.format(comparisons="\n".join(f"  {name:<16}{what}" for name, what in COMPARISONS.items())))
        return 0 if argv else 2
    if argv[0] not in COMPARISONS:
        near = nearest(argv[0], COMPARISONS)
        raise ValueError(f"There is no comparison {argv[0]!r}{near}. Choose one of: {', '.join(COMPARISONS)}.")
    from .ablation import main as ablation

    return ablation(argv[1:])
