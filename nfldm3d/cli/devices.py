"""Where commands compute: ``--device`` as a user writes it."""

import os

import torch


def open_device(name: str) -> torch.device:
    """The device of this name; plain ``cuda`` gives each process that ``torchrun`` starts here a GPU of its own.

    Raises:
        ValueError: there is no such device, or kernels do not run on it.
    """
    remedy = "leave --device out, or give cpu"
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise ValueError(f"--device {name!r} is none; give cpu, cuda, or one of several as cuda:1") from error
    if device.type not in ("cpu", "cuda"):
        raise ValueError(f"--device {name} is none that the kernels run on; {remedy}")
    if device.type == "cpu":
        return torch.device("cpu")
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if not count:
        raise ValueError(f"--device {name}: there is no CUDA device here; {remedy}")
    index = int(os.environ.get("LOCAL_RANK", "0")) % count if device.index is None else device.index
    if index >= count:
        raise ValueError(f"--device {name}: the last CUDA device here is cuda:{count - 1}; {remedy}")
    return torch.device("cuda", index)
