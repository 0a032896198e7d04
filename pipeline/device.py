"""Where networks run."""

import os

import torch

from ckd.storage.errors import UserError


def chosen_device(name: str) -> torch.device:
    """Return the device that a configuration asks for.

    Raises:
        UserError: it asks for a GPU and there is none.
    """
    if name == "cuda" and not torch.cuda.is_available():
        raise UserError("device: cuda is asked for, but torch sees no GPU here; set device to auto or cpu")
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    # torchrun starts one process per GPU.
    return torch.device(name, int(os.environ.get("LOCAL_RANK", "0"))) if name == "cuda" else torch.device(name)
