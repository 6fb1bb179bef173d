"""What a process does that has the transformers library and not this package: load a model, and answer its golden input.

It runs by `python -c` with the text of this file, in whatever environment; hence it imports nothing of ours. `golden` uses the
same functions where the package is installed.
"""

import json
import sys
from pathlib import Path
from typing import Any

import torch
import transformers
from safetensors import safe_open
from safetensors.torch import save_file


GOLDEN = "golden.safetensors"
# Tokens: of the golden input, of what stands before the decoder, and of what is written after it.
_SOURCE, _TARGET, _WRITTEN = 12, 5, 12
_TOLERANCE = 1e-4


def auto_class_of(config: dict[str, Any]) -> str | None:
    """Name the Auto class that loads what a config.json describes; None: it names no code that travels with it."""
    [architecture, *_] = config.get("architectures") or [""]
    for auto_class, reference in (config.get("auto_map") or {}).items():
        if auto_class != "AutoConfig" and str(reference).rpartition(".")[2] == architecture:
            return auto_class
    return None


def golden_input(model: Any, tokenizer: Any) -> tuple[str | None, dict[str, torch.Tensor]]:
    """Make an input that depends on vocabulary and tokenizer alone: two rows (or choices), the second padded.

    Returns:
        A text, None where there is no tokenizer; and the arguments of the model's forward.
    """
    config = model.config
    size = min(getattr(config, "source_vocab_size", None) or config.vocab_size, config.vocab_size)
    text, ids = None, _spread(range(size), _SOURCE)
    if tokenizer is not None:
        known = range(min(size, len(tokenizer)))
        words = [i for i in known if i not in tokenizer.all_special_ids and tokenizer.decode([i]).strip().isalnum()]
        text = str(tokenizer.decode(_spread(words or known, _SOURCE - 4)))
        ids = tokenizer(text)["input_ids"][:_SOURCE] or ids
    most = getattr(config, "max_position_embeddings", None)
    ids = ids if most is None else ids[: max(1, most - _WRITTEN + 1, most // 2)]
    rows, pad = [ids, ids[: (len(ids) + 1) // 2]], getattr(config, "pad_token_id", None) or 0
    inputs = {
        "input_ids": torch.tensor([row + [pad] * (len(ids) - len(row)) for row in rows]),
        "attention_mask": torch.tensor([[1] * len(row) + [0] * (len(ids) - len(row)) for row in rows]),
    }
    if "MultipleChoice" in type(model).__name__:
        inputs = {name: tensor[None] for name, tensor in inputs.items()}
    if config.is_encoder_decoder:
        before = [config.decoder_start_token_id or 0, *_spread(range(config.vocab_size), _TARGET - 1)]
        inputs["decoder_input_ids"] = torch.tensor([before, before[:1] + before[:0:-1]])
    return text, inputs


def _spread(values: Any, count: int) -> list[int]:
    """Take at most `count` of some values, from all over them."""
    step = max(1, len(values) // (count + 1))
    return [values[place] for place in range(step, len(values), step)][:count] or list(values[:1])


def answer(model: Any, tokenizer: Any, text: str | None, inputs: dict[str, torch.Tensor]) -> tuple[dict, dict]:
    """Let a model answer the golden input.

    Returns:
        Tensors: `logits` (or the last hidden state of a model without), float32, at real tokens; `generated_ids`, greedy, of
        the first row, where the model writes. And what it writes in words, None where it writes none.
    """
    written, words = {}, None
    with torch.inference_mode():
        output = model(**inputs, return_dict=True)
        logits = output.logits if "logits" in output else output.last_hidden_state
        if logits.shape[:2] == inputs["attention_mask"].shape and logits.dim() == 3:
            logits = logits[inputs["attention_mask"].bool()]
        written["logits"] = logits.float().contiguous()
        if model.can_generate():
            first = {name: inputs[name][:1] for name in ("input_ids", "attention_mask")}
            most = getattr(model.config, "max_position_embeddings", None) or inputs["input_ids"].shape[-1] + _WRITTEN
            # The last token that is written is not read.
            room = min(_WRITTEN, most - inputs["input_ids"].shape[-1] + 1)
            limits = {"do_sample": False, "num_beams": 1, "max_new_tokens": room}
            written["generated_ids"] = model.generate(**first, **limits).contiguous()
    if tokenizer is not None and hasattr(model, "translate"):
        [words] = model.translate([text], tokenizer=tokenizer, max_new_tokens=_WRITTEN)
    elif tokenizer is not None and hasattr(model, "continue_text"):
        [words] = model.continue_text([text], tokenizer=tokenizer, max_new_tokens=_WRITTEN, temperature=0.0)
    return written, {"text": text, "written": words}


def versions() -> dict[str, str]:
    """Say what the model ran on."""
    python = ".".join(map(str, sys.version_info[:3]))
    return {"transformers": transformers.__version__, "torch": torch.__version__, "python": python}


def save_golden(path: Path, model: Any, tokenizer: Any, auto_class: str):
    """Write the golden input of a model, and its answer: one file of tensors, whose header holds the words."""
    text, inputs = golden_input(model, tokenizer)
    tensors, words = answer(model, tokenizer, text, inputs)
    about = {"auto_class": auto_class, **words, "made_with": versions()}
    # One entry: of several, safetensors writes any first, and the same answer would be another file.
    save_file({**inputs, **tensors}, path, metadata={"golden": json.dumps(about, ensure_ascii=False)})


def read_golden(path: Path) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
    """Read a golden file: its tensors, and what its header says."""
    with safe_open(path, framework="pt") as file:
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        return tensors, json.loads(file.metadata()["golden"])


def compare(model: Any, tokenizer: Any, path: Path) -> dict[str, Any]:
    """Let a model answer a golden input, and hold the answer against the golden one.

    Returns:
        `difference`: the largest of a logit; `tolerance`; `differs`: what else is not as it was, in words.
    """
    golden, about = read_golden(path)
    inputs = {name: tensor for name, tensor in golden.items() if name not in ("logits", "generated_ids")}
    found, words = answer(model, tokenizer, about["text"], inputs)
    differs, difference = [], float("inf")
    if found["logits"].shape == golden["logits"].shape:
        difference = float((found["logits"] - golden["logits"]).abs().max())
    if "generated_ids" in golden and not torch.equal(found["generated_ids"], golden["generated_ids"]):
        differs.append("the tokens that it generates")
    if words["written"] != about["written"]:
        differs.append("the text that it writes")
    ids = inputs["input_ids"].flatten(0, -2)[0]
    if tokenizer is not None and tokenizer(about["text"])["input_ids"][: len(ids)] != ids.tolist():
        differs.append("what the tokenizer makes of the golden text")
    tolerance = _TOLERANCE * max(1.0, float(golden["logits"].abs().max()))
    return {"difference": difference, "tolerance": tolerance, "differs": differs}


def load(place: str, auto_class: str, has_tokenizer: bool, **options: Any) -> tuple[Any, Any]:
    """Load a model in float32, and its tokenizer, as the library does it.

    Raises:
        ValueError: weights are missing, for which the library would draw random ones, or have no place in the model.
    """
    loader = getattr(transformers, auto_class)
    model, loading = loader.from_pretrained(
        place, trust_remote_code=True, dtype=torch.float32, output_loading_info=True, **options
    )
    for kind in ("missing_keys", "unexpected_keys", "mismatched_keys"):
        if keys := sorted(map(str, loading[kind])):
            raise ValueError(f"The weights do not fit {type(model).__name__}: {kind}, first {keys[0]}.")
    model.eval()
    tokenizer = None
    if has_tokenizer:
        tokenizer = transformers.AutoTokenizer.from_pretrained(place, trust_remote_code=False, **options)
    return model, tokenizer


def main(job: dict[str, Any]) -> dict[str, Any]:
    """Do one job.

    Args:
        job: `place`, a folder or a repository, of which `options` may name a revision; and either `write`, the file to write
            the golden answer of a folder to, or `golden`, the file to compare with.
    """
    sys.modules["transformer_theatre"] = None  # type: ignore[assignment]  # importing the package now fails
    transformers.utils.logging.disable_progress_bar()
    place, options = job["place"], job.get("options", {})
    if "write" in job:
        config = json.loads((Path(place) / "config.json").read_text(encoding="utf-8"))
        auto_class = auto_class_of(config) or "AutoModel"
        model, tokenizer = load(place, auto_class, (Path(place) / "tokenizer_config.json").is_file())
        save_golden(Path(job["write"]), model, tokenizer, auto_class)
        return versions()
    about = read_golden(Path(job["golden"]))[1]
    model, tokenizer = load(place, about["auto_class"], about["text"] is not None, **options)
    module = type(model).__module__
    if not module.startswith("transformers_modules."):
        raise RuntimeError(f"{module} was loaded, not the code beside the model.")
    return {**versions(), **compare(model, tokenizer, Path(job["golden"]))}


if __name__ == "__main__":
    print("\nANSWER " + json.dumps(main(json.loads(sys.argv[1]))))
