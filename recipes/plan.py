"""`theatre plan`: what a recipe takes on a number of devices: memory, operations, hours; computed, and measured if asked."""

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from .arguments import parse_recipe
from .cost import Assumptions, update_seconds
from .devices import DEVICES, Device, find_device
from .flops import training_flops
from .measured_update import checkpoints_activations, measure_update
from .memory import Bytes, TrainingMemory, training_memory
from .model_arguments import model_config, presets_for, settle_positions, vocabulary_size
from .models import load_config
from .pretrained import for_model_of
from .run_arguments import RunArguments
from .train import for_text_of, load_recipe, script


# Share of a device's memory that the formula may fill: the rest is for what lives only for a moment (13 to 20 % where it was
# measured: docs/scaling.md), the driver, the kernels, and what lies between blocks; assumed.
USABLE = 0.75
# Usual sizes of a device's memory, GB.
SIZES = (12, 16, 24, 40, 80)


@dataclass(frozen=True)
class Plan:
    """What is known of a run before it begins.

    Args:
        model_class: such as `TransformerForConditionalGeneration`.
        config: of the model.
        args: of the run.
        parameters: of the model, tied ones once.
        rows: in a batch of one device.
        source_length: tokens of the source in each of them; 0 for a language model.
        target_length: tokens of the target.
        devices: how many share an update.
    """

    model_class: Any
    config: Any
    args: RunArguments
    parameters: int
    rows: int
    source_length: int
    target_length: int
    devices: int

    @property
    def tokens(self) -> int:
        """In an update, padding counted."""
        row = self.source_length + self.target_length
        return self.rows * row * self.args.gradient_accumulation_steps * self.devices

    @property
    def operations(self) -> float:
        """In an update."""
        rows = self.rows * self.args.gradient_accumulation_steps * self.devices
        return training_flops(self.config, self.source_length, self.target_length, rows)

    def memory(self, on_cpu: bool = False) -> TrainingMemory:
        """On one device."""
        return training_memory(
            self.config,
            self.parameters,
            self.rows,
            self.source_length,
            self.target_length,
            bytes_of=self._bytes_of(on_cpu),
            fused_attention=self.config._attn_implementation != "eager",
            checkpoints_activations=checkpoints_activations(self.args),
            fsdp_size=self.args.fsdp_size,
            keeps_average=bool(self.args.ema_decay),
            buckets=self.devices > 1 and self.args.fsdp_size == 1,
        )

    def kept(self, on_cpu: bool = False) -> float:
        """Bytes that the backward pass needs of the forward pass: of the output, the gradient alone."""
        memory, bytes_of = self.memory(on_cpu), self._bytes_of(on_cpu)
        copies = 2 * self.parameters if bytes_of.half else 0
        return memory.activations + memory.logits * bytes_of.logit_kept / bytes_of.logit + copies

    def _bytes_of(self, on_cpu: bool) -> Bytes:
        """How large numbers are; on a CPU, dropout's masks are numbers too."""
        half = bool(self.args.bf16 or self.args.fp16)
        return Bytes(half, mask=(2 if half else 4) if on_cpu else 1, scaled=bool(self.args.fp16))


def parser() -> argparse.ArgumentParser:
    """Build the options that are the plan's own; all others are the recipe's."""
    options = argparse.ArgumentParser(prog="theatre plan RECIPE", allow_abbrev=False, description=__doc__)
    options.add_argument("--devices", type=int, default=1, help="devices that train together (default: 1)")
    options.add_argument("--device", help=f"kind of device: {', '.join(d.name for d in DEVICES)} (default: all)")
    options.add_argument("--price", type=float, help="of a device for an hour; costs are in the same currency")
    options.add_argument("--utilisation", type=float, default=0.3, help="assumed share of peak speed (default: 0.3)")
    options.add_argument(
        "--mean_length", type=int, default=30, help="assumed tokens of a side of a pair of texts (default: 30)"
    )
    options.add_argument("--measure", action="store_true", help="make one update here, and compare its memory")
    return options


def make_plan(name: str, overrides: Sequence[str], devices: int = 1, mean_length: int = 30) -> Plan:
    """Read a recipe, and find out what an update of it is.

    Args:
        name: of the recipe, or its file.
        overrides: `["--key", "value", ...]`.
        devices: that train together.
        mean_length: tokens of a side of a pair; a language model's rows have the recipe's length.

    Raises:
        ValueError: the recipe or an option is wrong.
    """
    for option, value in (("devices", devices), ("mean_length", mean_length)):
        if value < 1:
            raise ValueError(f"{option}={value} must be 1 or more.")
    recipe = load_recipe(name)
    recipe = for_model_of(for_text_of(recipe, overrides), overrides)
    task = script(recipe.task)
    if not hasattr(task, "AUTO_CLASS"):
        raise ValueError(
            f"{name} is of task {recipe.task}: a plan is made for translation and language_modeling only."
        )
    parts, _ = parse_recipe(recipe, overrides, *task.argument_types(recipe, overrides))
    model_args, data, args = parts[0], parts[-2], parts[-1]
    if devices % args.fsdp_size:
        raise ValueError(f"fsdp_size={args.fsdp_size} must divide devices={devices}.")
    model_class = presets_for(task.AUTO_CLASS)[model_args.preset]
    model_args.vocab_size = vocabulary_size(model_class, model_args)
    settle_positions(model_class, model_args, getattr(data, "row_length", None))
    config = model_config(model_class, model_args)
    if started := next(filter(None, (getattr(part, "model_name_or_path", None) for part in parts)), None):
        config = load_config(started, task.AUTO_CLASS)
    if config.is_encoder_decoder:
        source = target = mean_length
    else:
        source = 0
        target = data.row_length or getattr(config, "max_position_embeddings", None) or 128
    rows = args.per_device_train_batch_size
    if args.max_tokens_per_batch == "auto":
        raise ValueError("max_tokens_per_batch=auto is found on the device when a run begins: give the plan a number.")
    if args.max_tokens_per_batch:
        rows = max(1, args.max_tokens_per_batch // (source + target))
    with torch.device("meta"):
        parameters = sum(weight.numel() for weight in model_class(config).parameters())
    return Plan(model_class, config, args, parameters, rows, source, target, devices)


def main(argv: Sequence[str]) -> int:
    """Run the command line behind `theatre plan`.

    Raises:
        ValueError: the recipe or an option is wrong.
    """
    options = parser()
    if not argv or argv[0] in ("-h", "--help"):
        options.print_help()
        print("\nAll options of the recipe are options too: theatre train RECIPE --help")
        return 0 if argv else 2
    own, overrides = options.parse_known_args(argv[1:])
    plan = make_plan(argv[0], overrides, own.devices, own.mean_length)
    print("\n".join(summary(argv[0], plan)))
    chosen = DEVICES if own.device is None else [find_device(own.device)]
    if chosen == [None]:
        raise ValueError(f"There is no device {own.device!r}. Choose one of: {', '.join(d.name for d in DEVICES)}.")
    if not 0 < own.utilisation <= 1:
        raise ValueError(f"utilisation={own.utilisation} must be above 0, and 1 at most.")
    print("\n".join(table(plan, [d for d in chosen if d is not None], own.utilisation, own.price)))
    if own.measure:
        print("\n".join(comparison(plan)))
    return 0


def precision_of(args: RunArguments) -> str:
    """Name the numbers that a run multiplies, as `Device.peaks` does."""
    if args.bf16 or args.fp16:
        return "bfloat16" if args.bf16 else "float16"
    return "tf32" if args.tf32 else "float32"


def summary(name: str, plan: Plan) -> list[str]:
    """Say what an update is, and what it takes."""
    accumulated = plan.args.gradient_accumulation_steps
    sides = f"{plan.source_length} + " if plan.source_length else ""
    lines = [
        f"{name}: {plan.parameters:,} parameters, {precision_of(plan.args)}",
        f"An update: {plan.tokens:,} tokens; {plan.devices} x {accumulated} batches of {plan.rows} rows of "
        f"{sides}{plan.target_length} tokens; {plan.operations:.3g} operations",
    ]
    if plan.args.max_steps > 0:
        lines.append(
            f"The run: {plan.args.max_steps:,} updates, {plan.tokens * plan.args.max_steps:,} tokens, "
            f"{plan.operations * plan.args.max_steps:.3g} operations"
        )
    lines.append(f"Memory of a device, by formula, GB: {parts_of(plan.memory())}")
    largest = ", ".join(f"{size} GB {largest_batch(plan, size):,}" for size in SIZES)
    return [*lines, f"Largest batch of a device, by formula, in tokens: {largest}"]


def largest_batch(plan: Plan, memory_gb: float) -> int:
    """Return how many tokens, of both sides and with padding, a batch of a device may have, in hundreds; 0: none fits."""
    memory = plan.memory()
    fixed = memory.weights + memory.gradients + memory.optimizer
    row = (memory.total - fixed) / plan.rows
    rows = max(0, int((USABLE * memory_gb * 1e9 - fixed) / row))
    return rows * (plan.source_length + plan.target_length) // 100 * 100


def parts_of(memory: TrainingMemory) -> str:
    """Lay memory out in one line."""
    names = ("weights", "gradients", "optimizer", "activations", "logits", "total")
    return ", ".join(f"{name} {getattr(memory, name) / 1e9:.2f}" for name in names)


def table(plan: Plan, devices: Sequence[Device], utilisation: float, price: float | None) -> list[str]:
    """Say of each kind of device whether the run fits, and how long it takes; by formula, with assumptions stated."""
    assumed = Assumptions(utilisation, precision_of(plan.args), price)
    updates = plan.args.max_steps if plan.args.max_steps > 0 else 1000
    what = "the run" if plan.args.max_steps > 0 else "1,000 updates"
    lines = [
        "",
        f"Hours of {what} on {plan.devices} of them, computed for {utilisation:.0%} of their {assumed.precision} peak"
        + (" (--bf16 true has a far higher one):" if assumed.precision == "float32" else ":"),
        f"{'device':<10}  {'memory':>7}  {'fits':>4}  {'hours':>8}  {'device hours':>12}  {'cost':>10}",
    ]
    for device in devices:
        fits = "yes" if plan.memory().total < USABLE * device.memory_gb * 1e9 else "no"
        row = f"{device.name:<10}  {device.memory_gb:>4.0f} GB  {fits:>4}"
        if assumed.precision not in device.peaks:
            lines.append(f"{row}  {'-':>8}  {'-':>12}  {'-':>10}")
            continue
        seconds = update_seconds(plan.operations, 4 * plan.parameters, device, plan.devices, assumed)
        hours = updates * seconds / 3600
        cost = "-" if price is None else f"{hours * plan.devices * price:,.0f}"
        lines.append(f"{row}  {hours:>8,.1f}  {hours * plan.devices:>12,.1f}  {cost:>10}")
    return lines


def comparison(plan: Plan) -> list[str]:
    """Make an update here, and hold the formula against it."""
    device = plan.args.device
    measured = measure_update(
        plan.model_class, plan.config, plan.args, plan.rows, plan.source_length, plan.target_length
    )
    memory, kept = plan.memory(on_cpu=device.type == "cpu"), plan.kept(on_cpu=device.type == "cpu")
    return [
        "",
        f"Measured on {device.type}: a batch of {plan.rows} rows took {measured.seconds:.1f} seconds, the optimizer's step included",
        f"Kept for the backward pass, GB: {measured.kept / 1e9:.3f} measured, {kept / 1e9:.3f} by formula",
        f"Peak, GB: {measured.peak / 1e9:.2f} measured, {memory.total / 1e9:.2f} by formula ({parts_of(memory)})",
    ]
