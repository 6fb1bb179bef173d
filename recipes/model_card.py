"""Render `model_card.md` into a model folder's README.md, with what was measured and nothing else."""

import importlib.resources
import platform
import re
import sys
from pathlib import Path
from typing import Any

import torch
import transformers
import yaml
from huggingface_hub import EvalResult, ModelCard, ModelCardData
from transformers import PreTrainedConfig, PreTrainedModel

from .run_folder import write_whole


# Where each figure of metrics.json comes from, in the order of the card's table.
_RESULTS = {
    "test_bleu": "BLEU on the test set: {test_bleu_signature}",
    "test_bleu_lowercase": "the same, lower-cased: {test_bleu_lowercase_signature}",
    "test_bleu_moses_lowercase": "the same, lower-cased, in the tokens of Moses: {test_bleu_moses_lowercase_signature}",
    "test_chrf": "chrF2 on the test set: {test_chrf_signature}",
    "test_exact_match": "share of test outputs equal to the reference, %",
    "test_rouge1": "ROUGE-1 on the test set: F-score of words, best reference, no stemming",
    "test_rouge2": "ROUGE-2 on the test set: the same of pairs of words",
    "test_rougeL": "ROUGE-L on the test set: the same of the longest common subsequence",
    "test_symbol_error_rate": "edits per symbol of the nearest test reference, %",
    **{
        f"{split}_{name}": f"{what} of {rows}"
        for split, rows in (("test", "{test_rows} test rows"), ("eval", "the validation rows"))
        for name, what in (
            ("accuracy", "share of right answers, %,"),
            ("f1", "F1, %, of class 1, or mean over more than two classes,"),
            ("matthews_correlation", "Matthews correlation"),
            ("pearsonr", "Pearson's correlation"),
            ("spearmanr", "Spearman's rank correlation"),
        )
    },
    "eval_bleu": "BLEU on the validation set, beam {eval_num_beams}: {eval_bleu_signature}",
    "eval_chrf": "chrF2 on the validation set, beam {eval_num_beams}: {eval_chrf_signature}",
    "eval_perplexity": "validation perplexity per token, without label smoothing",
    "eval_nll": "validation negative log-likelihood per token, nats",
    "eval_bits_per_byte": "validation bits per byte of text",
}
_SHARES = {"test_exact_match", "test_symbol_error_rate", "test_accuracy", "eval_accuracy", "test_f1", "eval_f1"}
_TOKENIZERS = {"character": "characters", "symbol": "characters and symbols"}
# What training took: key of metrics.json -> unit, words.
_TAKEN = {
    "train_flops_per_second": (1e9, "{:,.1f} model GFLOP/s."),
    "train_mfu": (0.01, "{:.1f} % model FLOPs utilisation."),
    "train_peak_memory_bytes": (2**20, "{:,.0f} MiB of memory at most."),
    "train_gpu_energy_joules": (3.6e6, "{:.4g} kWh of the GPUs."),
    "train_cpu_energy_joules": (3.6e6, "{:.4g} kWh of the processors, whatever else ran on them."),
}
# By the Hub's name of what a model does.
_USAGE = {
    "translation": """from transformers import AutoModelForSeq2SeqLM, pipeline

name = "{place}"  # {what}
model = AutoModelForSeq2SeqLM.from_pretrained(name, trust_remote_code=True)
print(model.translate([{example!r}]))  # any number of texts, in any order

translator = pipeline("translation", model=name, trust_remote_code=True)
print(translator({example!r}))""",
    "text-generation": """from transformers import AutoModelForCausalLM

name = "{place}"  # {what}
model = AutoModelForCausalLM.from_pretrained(name, trust_remote_code=True)
print(model.continue_text([{example!r}], max_new_tokens=200))""",
    "text-classification": """from transformers import pipeline

name = "{place}"  # {what}
classify = pipeline("text-classification", model=name, trust_remote_code=True)
print(classify({example!r}))  # of two texts: classify({{"text": ..., "text_pair": ...}})""",
    "multiple-choice": """from transformers import AutoModelForMultipleChoice, AutoTokenizer

name = "{place}"  # {what}
model = AutoModelForMultipleChoice.from_pretrained(name, trust_remote_code=True)
tokenizer = AutoTokenizer.from_pretrained(name)
context, answers = {example!r}, ["one answer", "another"]
inputs = tokenizer([context] * len(answers), answers, padding=True, return_tensors="pt")
print(model(**{{key: value[None] for key, value in inputs.items()}}).logits.softmax(-1))""",
}
_LIMITS = {
    "translation": "It maps text of the kind it was trained on, one sentence at a time, and knows nothing else.",
    "text-generation": "It continues text of the kind it was trained on. What it writes is not checked against any fact.",
    "text-classification": "It answers on text of the kind it was trained on, and gives an answer on any other text too.",
    "multiple-choice": "It chooses among answers of the kind it was trained on, and always chooses one.",
}
_CITATION = {
    "theatre_transformer": """@inproceedings{vaswani2017attention,
  title     = {Attention Is All You Need},
  author    = {Vaswani, Ashish and Shazeer, Noam and Parmar, Niki and Uszkoreit, Jakob and Jones, Llion and
               Gomez, Aidan N. and Kaiser, Lukasz and Polosukhin, Illia},
  booktitle = {Advances in Neural Information Processing Systems},
  year      = {2017},
}""",
    "theatre_gpt": """@techreport{radford2018improving,
  title       = {Improving Language Understanding by Generative Pre-Training},
  author      = {Radford, Alec and Narasimhan, Karthik and Salimans, Tim and Sutskever, Ilya},
  institution = {OpenAI},
  year        = {2018},
}""",
    "theatre_lstm": """@inproceedings{luong2015effective,
  title     = {Effective Approaches to Attention-based Neural Machine Translation},
  author    = {Luong, Minh-Thang and Pham, Hieu and Manning, Christopher D.},
  booktitle = {Proceedings of the 2015 Conference on Empirical Methods in Natural Language Processing},
  year      = {2015},
}""",
}


def template_path() -> Path:
    """Find `model_card.md`: in the installed package, or at the top of the checkout it runs from."""
    package = Path(str(importlib.resources.files("transformer_theatre")))
    installed = package / "model_card.md"
    return installed if installed.is_file() else package.parents[1] / "model_card.md"


def escape(text: Any) -> str:
    """Make text safe inside a Markdown table or paragraph: no markup, no second line."""
    return re.sub(r"([\\`*_{}\[\]<>|#])", r"\\\1", " ".join(str(text).split()))


def write_model_card(
    folder: Path,
    model: PreTrainedModel,
    *,
    name: str,
    recipe_name: str,
    recipe: dict[str, Any],
    metrics: dict[str, Any],
    data: str,
    languages: list[str],
    example: str,
    contract: str | None = None,
    by_language: dict[str, float] | None = None,
) -> Path:
    """Write README.md into a model folder.

    Args:
        folder: the model folder; `figures/attention.png` is shown if it is there.
        model: what was trained.
        name: what the model is called.
        recipe_name: the recipe that made it.
        recipe: the recipe as it was run.
        metrics: content of metrics.json; only figures that are in it appear.
        data: one paragraph on what it was trained on.
        languages: language codes, for the Hub's metadata.
        example: an input for the code that shows how to use it.
        contract: what the recipe's anchor says of the result, if it has one.
        by_language: exact match in percent for each language, if that was measured.

    Returns:
        The path of the card.
    """
    kind = model.config.model_type
    does = _does(model)
    results = [
        {
            "name": key.removeprefix("test_").removeprefix("eval_"),
            "value": _figure(key, metrics[key]),
            "interval": _interval(key, metrics),
            "how": escape(how),
        }
        for key, how in ((key, how.format_map(metrics)) for key, how in _RESULTS.items() if key in metrics)
    ]
    picture = folder / "figures" / "attention.png"
    card = ModelCard.from_template(
        _metadata(does, name, recipe, metrics, languages),
        template_path=str(template_path()),
        title=escape(name),
        summary=_summary(kind, recipe_name, recipe),
        architecture=_architecture(model),
        parameters=model.num_parameters(),
        vocabulary=model.config.vocab_size,
        tokenizer_kind=_TOKENIZERS.get(recipe.get("tokenizer", ""), "byte-level BPE pieces"),
        beginning=escape(_beginning(recipe)),
        seed=recipe.get("seed", 42),
        versions={"transformers": transformers.__version__},
        usage=_fenced(_USAGE[does].format(**_place(recipe), example=example)),
        picture="figures/attention.png" if picture.is_file() else None,
        limits=_limits(does),
        data=data,
        procedure=_procedure(metrics, model.device),
        recipe=_fenced(yaml.safe_dump(recipe, allow_unicode=True, sort_keys=False).strip()),
        results=results,
        intervals=escape(metrics["interval_signature"]) if "interval_signature" in metrics else None,
        languages=[{"name": escape(k), "value": f"{v:.2f}"} for k, v in (by_language or {}).items()],
        contract=escape(contract) if contract else None,
        departures=_departures(model),
        citation=_CITATION[kind],
    )
    path = folder / "README.md"
    write_whole(path, str(card))
    return path


def _does(model: PreTrainedModel) -> str:
    """Name what a model does, as the Hub does."""
    tasks = {"Classification": "text-classification", "MultipleChoice": "multiple-choice"}
    named = next((does for ending, does in tasks.items() if type(model).__name__.endswith(ending)), "text-generation")
    return "translation" if model.config.is_encoder_decoder else named


def _place(recipe: dict[str, Any]) -> dict[str, str]:
    """Say where the code that loads the model finds it."""
    if recipe.get("hub_model_id"):
        return {"place": str(recipe["hub_model_id"]), "what": "its repository on the Hub"}
    return {"place": ".", "what": 'this folder; or "user/repository", once it is on the Hub'}


def _fenced(code: str) -> str:
    """Keep text from ending the block of code that it stands in."""
    return code.replace("```", "'''")


def _figure(key: str, value: float) -> str:
    if key in _SHARES:
        return f"{100 * value:.2f}"
    return f"{value:.2f}" if value >= 10 else f"{value:.4f}"


def _interval(key: str, metrics: dict[str, Any]) -> str:
    """Write the bounds of a figure; nothing where there are none."""
    bounds = [metrics[f"{key}_{side}"] for side in ("low", "high") if f"{key}_{side}" in metrics]
    return " to ".join(_figure(key, bound) for bound in bounds)


def _metadata(does: str, name: str, recipe: dict, metrics: dict, languages: list[str]) -> ModelCardData:
    names = {
        "test_bleu": ("bleu", "BLEU"),
        "test_chrf": ("chrf", "chrF2"),
        "eval_perplexity": ("perplexity", "Perplexity"),
        "test_accuracy": ("accuracy", "Accuracy"),
        "test_f1": ("f1", "F1"),
        "test_matthews_correlation": ("matthews_correlation", "Matthews correlation"),
        "test_pearsonr": ("pearsonr", "Pearson's correlation"),
        "test_spearmanr": ("spearmanr", "Spearman's correlation"),
    }
    results = [
        EvalResult(
            task_type=does,
            dataset_type=_dataset(recipe),
            dataset_name=_dataset(recipe),
            metric_type=metric_type,
            metric_name=metric_name,
            metric_value=round(metrics[key], 4),
        )
        for key, (metric_type, metric_name) in names.items()
        if key in metrics
    ]
    return ModelCardData(
        language=languages or None,
        library_name="transformers",
        pipeline_tag=does,
        tags=["transformer-theatre", "from-scratch"],
        model_name=name if results else None,
        eval_results=results or None,
    )


def _dataset(recipe: dict[str, Any]) -> str:
    """Name what the figures were measured on."""
    files = (
        recipe.get(key)
        for key in (
            "dataset",
            "test_source",
            "validation_source",
            "validation_text",
            "train_text",
            "test_file",
            "train_file",
        )
    )
    names = (name[0] if isinstance(name, list) else name for name in files if name)
    return next((Path(str(name)).name for name in names), "unnamed")


def _beginning(recipe: dict[str, Any]) -> str:
    """Say which weights the run began with."""
    source = recipe.get("model_name_or_path")
    return f"the weights of {Path(source).name}" if source else "random weights"


def _summary(kind: str, name: str, recipe: dict[str, Any]) -> str:
    what = {
        "theatre_transformer": 'The original Transformer ("Attention Is All You Need", 2017)',
        "theatre_gpt": 'A GPT ("Improving Language Understanding by Generative Pre-Training", 2018)',
        "theatre_lstm": "An LSTM, of the kind that the Transformer replaced",
    }[kind]
    how = "fine-tuned" if recipe.get("model_name_or_path") else "trained from scratch"
    return f"{what}, {how}; the recipe started from {escape(name)} of Transformer Theatre."


def _architecture(model: PreTrainedModel) -> str:
    config = model.config
    if config.model_type == "theatre_lstm":
        return _lstm_architecture(config)
    norm = "pre-norm" if config.norm_first else "post-norm"
    if config.is_encoder_decoder:
        return (
            f"encoder-decoder, {config.encoder_layers} + {config.decoder_layers} layers, width {config.d_model}, "
            f"{config.encoder_attention_heads} heads, feed-forward {config.encoder_ffn_dim}, {norm}, "
            f"{config.position_embeddings} positions"
        )
    return (
        f"decoder only, {config.num_hidden_layers} layers, width {config.d_model}, {config.num_attention_heads} heads, "
        f"feed-forward {config.ffn_dim}, {norm}, {config.max_position_embeddings} learned positions"
    )


def _lstm_architecture(config: PreTrainedConfig) -> str:
    size = f"{config.num_hidden_layers} LSTM layers of width {config.hidden_size}"
    if not config.is_encoder_decoder:
        return f"decoder only, {size}"
    direction = "bidirectional" if config.bidirectional else "backwards" if config.reverse_source else "forwards"
    attention = "without attention" if config.attention == "none" else "with Luong's attention"
    feeding = " and input feeding" if config.input_feeding else ""
    return f"encoder-decoder, {size} each, the encoder {direction}, {attention}{feeding}"


def _limits(does: str) -> str:
    return (
        f"{_LIMITS[does]} It repeats whatever bias its training text has. Measure it on your own text before you rely "
        "on it."
    )


def _device_name(device: torch.device) -> str:
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"CPU, {torch.get_num_threads()} threads" if device.type == "cpu" else device.type


def _procedure(metrics: dict[str, Any], device: torch.device) -> str:
    parts = [
        f"PyTorch {torch.__version__}, transformers {transformers.__version__}, Python {platform.python_version()}."
    ]
    parts.append(f"Device: {_device_name(device)}.")
    if "train_rows" in metrics:
        left_out = metrics.get("train_rows_too_long")
        parts.append(
            f"{metrics['train_rows']:,} rows to train on{f'; {left_out:,} more were too long' if left_out else ''}."
        )
    if "train_steps" in metrics:
        time = f" in {metrics['train_seconds']:,.0f} seconds" if "train_seconds" in metrics else ""
        parts.append(
            f"{metrics['train_steps']:,} optimizer steps{time}, "
            f"{metrics['train_tokens_per_second']:,.0f} real tokens per second, "
            f"{100 * metrics['train_padding_share']:.1f} % padding."
        )
    parts += [words.format(metrics[key] / unit) for key, (unit, words) in _TAKEN.items() if key in metrics]
    if "averaged" in metrics:
        parts.append(f"The weights are an average: {escape(metrics['averaged'])}.")
    return " ".join(parts)


def _departures(model: PreTrainedModel) -> str:
    """Take the list from where it is kept: the docstring of the model's file."""
    text = sys.modules[type(model).__module__].__doc__ or ""
    start = text.find("Departures from")
    return text[start:].partition("\n\nLocal tensors")[0].partition(":\n")[2].strip() or text[start:].strip()
