"""How a model was trained, in the words of a model card: only what metrics.json says."""

from typing import Any

from .card_text import escape


# What training took: key of metrics.json -> unit, words.
_TAKEN = {
    "train_flops_per_second": (1e9, "{:,.1f} model GFLOP/s."),
    "train_mfu": (0.01, "{:.1f} % model FLOPs utilisation."),
    "train_peak_memory_bytes": (2**20, "{:,.0f} MiB of memory at most."),
    "train_gpu_energy_joules": (3.6e6, "{:.4g} kWh of the GPUs."),
    "train_cpu_energy_joules": (3.6e6, "{:.4g} kWh of the processors, whatever else ran on them."),
}
# Version in metrics.json -> the name that people know.
_SOFTWARE = {
    "train_torch_version": "PyTorch",
    "train_transformers_version": "transformers",
    "train_transformer_theatre_version": "transformer-theatre",
    "train_python_version": "Python",
}


def procedure(metrics: dict[str, Any]) -> list[str]:
    """Describe training, one point for each of: software, hardware, time and speed, energy, weights."""
    software = [f"{name} {escape(metrics[key])}" for key, name in _SOFTWARE.items() if key in metrics]
    points = [f"Software: {', '.join(software)}."] if software else []
    if "train_hardware" in metrics:
        processes = metrics.get("train_processes", 1)
        many = f"{processes} processes, each on " if processes > 1 else ""
        points.append(f"Device: {many}{escape(metrics['train_hardware'])}.")
    points += [taken] if (taken := _steps(metrics)) else []
    points += [words.format(metrics[key] / unit) for key, (unit, words) in _TAKEN.items() if key in metrics]
    joules = [
        metrics[f"train_{part}_energy_joules"] for part in ("gpu", "cpu") if f"train_{part}_energy_joules" in metrics
    ]
    if len(joules) > 1:
        points.append(f"{sum(joules) / 3.6e6:.4g} kWh together; memory, cooling and the power supply come on top.")
    if "train_skipped_updates" in metrics:
        points.append(f"{metrics['train_skipped_updates']:,} updates were skipped, as their loss was no number.")
    if "averaged" in metrics:
        points.append(f"The weights are an average: {escape(metrics['averaged'])}.")
    return points


def _steps(metrics: dict[str, Any]) -> str | None:
    if "train_steps" not in metrics:
        return None
    text = f"{metrics['train_steps']:,} optimizer steps"
    if "train_seconds" in metrics:
        text += f" in {metrics['train_seconds']:,.0f} seconds"
    if "train_tokens" in metrics:
        text += f", on {metrics['train_tokens']:,} tokens"
    if "train_tokens_per_second" in metrics:
        text += f", {metrics['train_tokens_per_second']:,.0f} real tokens per second"
    if "train_padding_share" in metrics:
        text += f", {100 * metrics['train_padding_share']:.1f} % padding"
    return f"{text}."


def left_out(metrics: dict[str, Any], rows: str) -> str | None:
    """Say how many rows there were to train on, and how many were left out; None where nobody counted.

    Args:
        metrics: content of metrics.json.
        rows: what they are, in the plural.
    """
    if "train_rows" not in metrics:
        return None
    text = f"{metrics['train_rows']:,} {rows} to train on"
    reasons = {"train_rows_too_long": "were too long", "train_rows_bad": "could not be used"}
    for key, reason in reasons.items():
        if key in metrics:
            count = metrics[key]
            text += f"; {count:,} more {reason}" if count else f"; none {reason}"
    return f"{text}."
