"""Where the files of a recipe lie, in a folder that holds the files of many."""

from pathlib import Path

from .arguments import Recipe
from .data_arguments import SPLITS
from .text_data import find_file


# Keys of a recipe that name files that are there before it runs.
_KEYS = [f"{split}_{kind}" for split in SPLITS for kind in ("source", "target", "text", "file")]


def data_files(recipe: Recipe) -> list[str]:
    """Name the files that a recipe reads."""
    files = [recipe.values.get(key) for key in _KEYS]
    return [name for file in files if file for name in (file if isinstance(file, list) else [file])]


def data_folder(recipe: Recipe, root: Path) -> Path:
    """Find the folder in which the files of a recipe lie: `root`, or one in it, or in one of those.

    Raises:
        ValueError: there is none, or more than one.
    """
    names = data_files(recipe)
    if all(_is_there(root / name) for name in names):  # or it reads a data set, and no files
        return root
    places = sorted(path for pattern in ("*", "*/*") for path in root.glob(pattern) if path.is_dir())
    found = [place for place in places if all(_is_there(place / name) for name in names)]
    if len(found) != 1:
        where = "in no folder of" if not found else f"in {len(found)} folders of"
        raise ValueError(f"The files of {recipe.name} lie {where} {root}: {', '.join(names)}.")
    return found[0]


def _is_there(path: Path) -> bool:
    try:
        return path.is_dir() or find_file(path).is_file()
    except ValueError:
        return False
