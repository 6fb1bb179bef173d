"""Counting the tokens of batches: real ones, and those that were only padding."""

import torch


class TokenCounter:
    """Counts the tokens that training has seen on this process, and what their attention depends on."""

    def __init__(self):
        self._sums = torch.zeros(5, dtype=torch.long)
        self.padded = 0

    def add(self, inputs: dict[str, torch.Tensor]):
        """Count one batch: its source by `attention_mask`, its target by `labels`; a causal model has a target alone."""
        mask_BS = (inputs["attention_mask"] != 0).flatten(
            0, -2
        )  # rows of several sequences, such as choices, are as many rows
        first_B = mask_BS.sum(1)
        self.padded += mask_BS.numel()
        if "decoder_input_ids" in inputs:
            source_B, target_B = first_B, (inputs["labels"] != -100).sum(1)
            self.padded += inputs["labels"].numel()
        else:
            source_B, target_B = torch.zeros_like(first_B), first_B
        squares_B = target_B**2
        if "position_ids" in inputs:  # documents that do not see one another: each position adds an odd number
            squares_B = (2 * inputs["position_ids"] + 1).sum(1)
        # Summed where the batch is: reading a number off an accelerator at every step would make it wait.
        sums = torch.stack([source_B, target_B, source_B**2, squares_B, source_B * target_B]).sum(1)
        self._sums = self._sums.to(sums.device) + sums

    @property
    def sums(self) -> list[int]:
        """Over all rows, of s tokens of source and t of target: the sums of s, t, s * s, t * t and s * t."""
        return self._sums.tolist()

    @property
    def real(self) -> int:
        """Tokens that were no padding."""
        return sum(self.sums[:2])
