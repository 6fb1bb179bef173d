"""What all processes of a run must do alike, when only one of them has seen the reason."""

from typing import Any

import torch


def on_any_process(flag: bool, args: Any) -> bool:
    """Say whether `flag` is true on any process; all of them must ask.

    Args:
        flag: of this process.
        args: the run's, which know the processes and the device.
    """
    if args.world_size == 1:
        return flag
    count = torch.tensor(float(flag), device=args.device)
    torch.distributed.all_reduce(count)
    return bool(count)
