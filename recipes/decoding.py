"""Text in, text out: translation of many lines, and continuation of a prompt."""

from collections.abc import Iterator, Sequence

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase, set_seed

from .progress import progress_bar


# Section 6.1: "maximum output length during inference to input length + 50".
EXTRA_LENGTH = 50


def translate(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    texts: Sequence[str],
    *,
    num_beams: int | None = None,
    batch_tokens: int = 4096,
    progress: bool = False,
    first_line: int = 1,
) -> list[str]:
    """Translate texts, in any number and of any length, and return them in the same order.

    Texts are sorted by length and fill batches of `batch_tokens`; a blank text stays blank, and never meets the model.

    Args:
        model: an encoder-decoder; it is put into evaluation mode.
        tokenizer: the model's own.
        texts: one source each.
        num_beams: beams of the search; None: what the model's generation configuration says.
        batch_tokens: padded source tokens, times beams, in one batch.
        progress: show a bar on stderr.
        first_line: number of the first text, for messages.

    Raises:
        ValueError: a text has more tokens than the model has learned positions; the message says in which line.
    """
    model.eval()
    beams = num_beams or model.generation_config.num_beams or 1
    wanted = [index for index, text in enumerate(texts) if text.strip()]
    ids = dict(zip(wanted, tokenizer([texts[index] for index in wanted])["input_ids"], strict=True)) if wanted else {}
    limit = _learned_positions(model)
    for index in wanted:
        if limit is not None and len(ids[index]) > limit:
            raise ValueError(
                f"Line {first_line + index} has {len(ids[index])} tokens; the model has {limit} learned positions."
            )
    translated = [""] * len(texts)
    with progress_bar(len(wanted), "translating", "text", shown=progress) as bar:
        for batch in _batches(
            sorted(wanted, key=lambda index: len(ids[index]), reverse=True), ids, batch_tokens // beams
        ):
            inputs = tokenizer.pad({"input_ids": [ids[index] for index in batch]}, return_tensors="pt").to(
                model.device
            )
            longest = inputs["input_ids"].shape[1] + EXTRA_LENGTH
            output = model.generate(
                **inputs, num_beams=beams, max_new_tokens=min(longest, limit - 1) if limit else longest
            )
            for index, row in zip(batch, output.tolist(), strict=True):
                # A shorter text than its batch's longest has a lower limit.
                written = row[1 : 1 + len(ids[index]) + EXTRA_LENGTH]
                translated[index] = str(tokenizer.decode(written, skip_special_tokens=True))
            bar.update(len(batch))
    return translated


def _learned_positions(model: PreTrainedModel) -> int | None:
    learned = getattr(model.config, "position_embeddings", "learned") == "learned"
    return model.config.max_position_embeddings if learned else None


def _batches(order: Sequence[int], ids: dict[int, list[int]], budget: int) -> Iterator[list[int]]:
    """Cut `order`, sorted from the longest text to the shortest, into batches of at most `budget` padded tokens."""
    start = 0
    while start < len(order):
        size = max(1, budget // len(ids[order[start]]))
        yield list(order[start : start + size])
        start += size


def continue_text(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    prompt: str,
    *,
    max_new_tokens: int = 500,
    temperature: float = 0.8,
    top_k: int | None = 200,
    seed: int | None = None,
) -> str:
    """Continue a prompt, beyond the model's context too: when it is full, the newer half of it is kept.

    Args:
        model: a causal model; it is put into evaluation mode.
        tokenizer: the model's own.
        prompt: what the text begins with; empty: the beginning of a document.
        max_new_tokens: tokens; fewer if the document ends.
        temperature: below 1 likely tokens become likelier; 0 takes the likeliest each time.
        top_k: draw from the likeliest so many; None: from all.
        seed: of the draw.

    Returns:
        The continuation, without the prompt.

    Raises:
        ValueError: the prompt fills the context, or holds a character that the tokenizer does not know.
    """
    model.eval()
    if seed is not None:
        set_seed(seed)
    ids = tokenizer(prompt, add_special_tokens=False)["input_ids"] or [tokenizer.bos_token_id]
    limit = model.config.max_position_embeddings
    if len(ids) >= limit:
        raise ValueError(f"The prompt has {len(ids)} tokens; the model has {limit} learned positions, so give fewer.")
    unknown = tokenizer.unk_token_id
    if unknown is not None and unknown in ids:
        strange = next(c for c in prompt if unknown in tokenizer(c, add_special_tokens=False)["input_ids"])
        raise ValueError(
            f"The prompt holds {strange!r}, which does not occur in the text that the tokenizer learned from."
        )
    sampling = (
        {"do_sample": True, "temperature": temperature, "top_k": top_k or 0} if temperature else {"do_sample": False}
    )

    start = len(ids)
    while (left := max_new_tokens - (len(ids) - start)) > 0:
        context = ids[-limit // 2 :] if len(ids) >= limit else ids
        inputs = torch.tensor([context], device=model.device)
        room = min(left, limit - len(context))
        output = model.generate(inputs, attention_mask=torch.ones_like(inputs), max_new_tokens=room, **sampling)
        new = output[0, len(context) :].tolist()
        ids = [*ids, *new]
        if new[-1] == tokenizer.eos_token_id or len(new) < room:
            break
    return str(tokenizer.decode(ids[start:], skip_special_tokens=True))


@torch.no_grad()
def cross_attention(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, text: str
) -> tuple[torch.Tensor, list[int], list[int]]:
    """Translate one text, and tell what each token written looked at.

    Returns:
        The last layer's weights (heads, target, source), the source's token ids, and the ids of the tokens written, the end
        token included.
    """
    model.eval()
    inputs = tokenizer([text], return_tensors="pt").to(model.device)
    output = model.generate(**inputs, max_new_tokens=inputs["input_ids"].shape[1] + EXTRA_LENGTH)
    before = model.config._attn_implementation
    # Only the eager attention has weights to show.
    model.set_attn_implementation("eager")
    try:
        seen = model(**inputs, decoder_input_ids=output[:, :-1], output_attentions=True)
    finally:
        model.set_attn_implementation(before)
    return seen.cross_attentions[-1][0], inputs["input_ids"][0].tolist(), output[0, 1:].tolist()
