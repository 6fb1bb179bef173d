"""README.md of a converted model: where it came from, under which licence, and what was compared."""

from pathlib import Path
from typing import Any

from huggingface_hub import ModelCard, ModelCardData
from transformers import PreTrainedConfig

from .parity import Parity


_USE = {True: "theatre translate FOLDER < source.txt", False: 'theatre generate FOLDER --prompt "Once"'}
_TEXT = """---
{data}
---

# {name}

Converted from `{source}` by `theatre convert` (Transformer Theatre): the same weights in another order, as a
`{model_type}` model. Who trained it, on what, and under which licence, is what the original says.

```bash
{use}
```

Compared with the original:

```
{parity}
```
"""


def write_card(folder: Path, source: str, origin: Path, config: PreTrainedConfig, parity: Parity):
    """Write README.md, with the licence and the languages of the original's.

    Args:
        folder: the converted model's.
        source: what the original was called.
        origin: the original's file or folder.
        config: of the converted model.
        parity: what was compared.
    """
    translates, kind = config.is_encoder_decoder, config.model_type
    fixed: dict[str, Any] = {
        "library_name": "transformers",
        "pipeline_tag": "translation" if translates else "text-generation",
        "tags": ["transformer-theatre"],
    }
    data = ModelCardData(**fixed, **_metadata(origin / "README.md"))
    name = Path(source).name.replace("`", "'")
    use = _USE[translates] if kind.startswith("theatre_") else f"# {kind}: the library loads it without this package"
    fields = {"source": source.replace("`", "'"), "model_type": kind, "use": use, "parity": parity}
    text = _TEXT.format(data=data.to_yaml(), name=name, **fields)
    (folder / "README.md").write_text(text, encoding="utf-8")


def _metadata(readme: Path) -> dict[str, Any]:
    """Take what must not get lost from the original's metadata, if there is any that can be read."""
    if not readme.is_file():
        return {}
    try:
        data = ModelCard.load(readme).data.to_dict()
    except (ValueError, OSError, UnicodeDecodeError):
        return {}
    return {key: data[key] for key in ("license", "license_name", "license_link", "language") if key in data}
