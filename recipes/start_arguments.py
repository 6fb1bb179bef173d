"""What a recipe says of where a language model starts from, and of how it writes."""

from dataclasses import dataclass, field, fields

from transformer_theatre.modeling.text_batches import check_options


@dataclass
class StartArguments:
    """A trained model to go on from, and how much of it learns."""

    _argument_group_name = "start"

    model_name_or_path: str | None = field(
        default=None,
        metadata={
            "help": "model folder, or model on the Hub, that training starts from, with its tokenizer; default: random weights"
        },
    )
    lora_rank: int | None = field(
        default=None,
        metadata={
            "help": "learn two thin matrices of this rank beside each matrix of the layers (LoRA, Hu et al., 2021), and no other "
            "weight; in the end they are added to the model. Needs the package peft; default: all weights learn"
        },
    )
    lora_alpha: float = field(
        default=16.0, metadata={"help": "LoRA: the product of the two is multiplied by alpha / rank"}
    )
    lora_dropout: float = field(default=0.0, metadata={"help": "LoRA: probability, on what the thin matrices read"})

    def __post_init__(self):
        """Check ranges.

        Raises:
            ValueError: an option is out of its range, or does not go with another.
        """
        if self.lora_rank is None:
            for part in fields(self):
                if part.name.startswith("lora_") and getattr(self, part.name) != part.default:
                    raise ValueError(
                        f"{part.name}={getattr(self, part.name)} needs lora_rank: without it all weights learn."
                    )
            return
        if self.model_name_or_path is None:
            raise ValueError(f"lora_rank={self.lora_rank} needs model_name_or_path: there is nothing yet to add to.")
        if self.lora_rank < 1:
            raise ValueError(f"lora_rank={self.lora_rank} must be 1 or more.")
        if not self.lora_alpha > 0:
            raise ValueError(f"lora_alpha={self.lora_alpha} must be above 0.")
        if not 0 <= self.lora_dropout < 1:
            raise ValueError(f"lora_dropout={self.lora_dropout} must be at least 0, and below 1.")


@dataclass
class SamplingArguments:
    """How the model writes, while it learns and afterwards; saved with it, in generation_config.json."""

    _argument_group_name = "writing"

    temperature: float = field(
        default=0.8, metadata={"help": "below 1 likely tokens become likelier; 0 takes the likeliest each time"}
    )
    top_k: int = field(default=200, metadata={"help": "draw from the likeliest so many tokens; 0: from all"})
    top_p: float = field(
        default=1.0, metadata={"help": "draw from the likeliest tokens that together have this probability"}
    )
    sample_tokens: int = field(
        default=100, metadata={"help": "tokens of the samples that each evaluation writes into the log; 0: none"}
    )
    sample_prompts: list[str] = field(
        default_factory=list,
        metadata={"help": "what the samples begin with; default: the first words of the validation text"},
    )

    def __post_init__(self):
        """Check ranges.

        Raises:
            ValueError: an option is out of its range.
        """
        check_options(temperature=self.temperature, top_k=self.top_k, top_p=self.top_p)
        if self.sample_tokens < 0:
            raise ValueError(f"sample_tokens={self.sample_tokens} must be 0 or more.")

    def for_generation(self) -> dict[str, float | None]:
        """What the library's generation configuration says of the same; it has no temperature 0."""
        if self.temperature == 0:
            return {"do_sample": False, "temperature": None, "top_k": None, "top_p": None}
        return {"do_sample": True, "temperature": self.temperature, "top_k": self.top_k, "top_p": self.top_p}
