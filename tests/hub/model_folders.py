"""Model folders as a run leaves them, small and quick to make; and processes that know another Hub."""

import json
import os
import subprocess
import sys

import torch

from transformer_theatre.modeling import AUTO_CLASSES
from transformer_theatre.recipes.tokenization import train_bpe_tokenizer


TEXT = ["ein hund sieht die katze", "die frau rennt schnell durch den garten", "zwei kinder spielen im haus"] * 4
FIELDS = {
    "theatre_transformer": {
        "d_model": 16,
        "encoder_layers": 1,
        "decoder_layers": 1,
        "encoder_attention_heads": 2,
        "decoder_attention_heads": 2,
        "encoder_ffn_dim": 32,
        "decoder_ffn_dim": 32,
    },
    "theatre_gpt": {
        "d_model": 16,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "ffn_dim": 32,
        "max_position_embeddings": 64,
    },
    "theatre_lstm": {"hidden_size": 16, "num_hidden_layers": 1},
}
CARD = """---
library_name: transformers
license: cc-by-4.0
language: de
---

# A model

```python
name = "."  # this folder; or "user/repository", once it is on the Hub
```

```bash
theatre translate . < source.txt
```
"""

RECIPE = """
task: translation
train_source: text.de
train_target: text.en
validation_source: text.de
validation_target: text.en
vocab_size: 290
preset: transformer-tiny
d_model: 16
encoder_layers: 1
decoder_layers: 1
encoder_ffn_dim: 32
decoder_ffn_dim: 32
max_steps: 4
save_steps: 2
save_strategy: steps
eval_strategy: "no"
use_cpu: true
push_to_hub: true
hub_model_id: model
hub_strategy: all_checkpoints
hub_always_push: true
"""


def make(folder, auto_class="AutoModelForSeq2SeqLM", kind=0, seed=0, **saving):
    """Write a model folder, with all that a run leaves in it, and what must not be published; return model and tokenizer."""
    torch.manual_seed(seed)
    model_class = AUTO_CLASSES[auto_class][kind]
    config_class = model_class.config_class
    tokenizer = train_bpe_tokenizer(TEXT, 290, appends_eos=auto_class == "AutoModelForSeq2SeqLM")
    fields = {name: getattr(tokenizer, name) for name in ("pad_token_id", "bos_token_id", "eos_token_id")}
    if config_class.model_type != "theatre_gpt":
        fields["decoder_start_token_id"] = tokenizer.bos_token_id
    if model_class.__name__ == "LSTMForCausalLM":
        fields["is_encoder_decoder"] = False
    model = model_class(config_class(vocab_size=len(tokenizer), **FIELDS[config_class.model_type], **fields)).eval()
    model.save_pretrained(folder, **saving)
    tokenizer.save_pretrained(folder)
    write(folder, "README.md", CARD)
    write(folder, "metrics.json", json.dumps({"test_bleu": 12.5}))
    write(folder, "evaluation.json", json.dumps({"bleu": 12.5}))
    write(
        folder,
        "recipe.yaml",
        f"# Written by `theatre train` from the recipe x/y\ntask: translation\noutput_dir: {folder}\n",
    )
    write(folder, "figures/attention.png", "\x89PNG not really")
    # Left behind by a run, and not for anybody else.
    torch.save({"place": str(folder), "token": "hf_user_write"}, folder / "training_args.bin")
    write(folder, "trainer_state.json", json.dumps({"best_model_checkpoint": str(folder / "checkpoint-1")}))
    write(folder, "fingerprint.json", "{}")
    write(folder, "run.log", f"saved to {folder}")
    write(folder, "notes.py", "print('mine')")
    write(folder, "checkpoint-1/optimizer.pt", "state")
    return model, tokenizer


def write(folder, name, text):
    """Write a file into a folder, which may be missing."""
    (folder / name).parent.mkdir(parents=True, exist_ok=True)
    (folder / name).write_text(text, encoding="utf-8")


def process(hub, home, *words, token="hf_user_write", **variables):
    """Run Python in a process that knows this Hub and no other, with a home of its own."""
    env = {name: value for name, value in os.environ.items() if name not in ("HF_TOKEN", "HF_HUB_OFFLINE")}
    env |= {**hub.env(home, token), **variables}
    return subprocess.run([sys.executable, *map(str, words)], env=env, capture_output=True, text=True, check=False)


def theatre(hub, home, *words, **variables):
    """Run the command in such a process."""
    return process(hub, home, "-m", "transformer_theatre.recipes.theatre", *words, **variables)


def write_recipe(folder):
    """Write a recipe that pushes all its checkpoints, and its text, into a folder."""
    write(folder, "text.de", "\n".join(TEXT) + "\n")
    write(folder, "text.en", "\n".join(line.upper() for line in TEXT) + "\n")
    write(folder, "toy/tiny.yaml", RECIPE)
    return folder / "toy" / "tiny.yaml"
