"""What every ``nfldm3d train`` command does: begin with earlier weights, train, write the weights."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from nfldm3d.training import TrainingOptions
from nfldm3d.written_files import atomic_folder

if TYPE_CHECKING:
    from diffusers.models.modeling_utils import ModelMixin

    from nfldm3d.training.stage import Stage


def begin_with(network: "ModelMixin", weights: str | None, name: str) -> None:
    """Fills a network with the weights of an earlier one where they fit, and says what begins afresh."""
    if weights is None:
        return
    from nfldm3d.models.weight_folders import find_weights
    from nfldm3d.models.weights import load_network, take_over

    folder = find_weights(weights) / name
    if fresh := take_over(network, load_network(type(network), folder)):
        print(f"begins afresh, as {folder} has other shapes: {', '.join(fresh)}")  # noqa: T201


def run_stage(
    stage: "Stage", result: "tuple[str, ModelMixin]", out: Path, options: TrainingOptions, resume: bool
) -> bool:
    """Trains ``stage`` and writes the network ``result``, of which the stage trains all or a part, under its name.

    Returns whether this process is the one that writes.
    """
    name, network = result
    return run_and_write(stage, lambda folder: network.half().save_pretrained(folder / name), out, options, resume)


def run_and_write(
    stage: "Stage", write: Callable[[Path], None], out: Path, options: TrainingOptions, resume: bool
) -> bool:
    """Trains ``stage``, whose model then holds the best weights, and has ``write`` fill the folder of weights.

    Returns whether this process is the one that writes.
    """
    import logging

    import torch

    from nfldm3d.training import read_weights, train

    logging.basicConfig(format="%(message)s")
    logging.getLogger("nfldm3d").setLevel(logging.INFO)
    torch.manual_seed(options.seed)
    outcome = train(stage, out, options=options, resume=resume)
    if outcome.evaluation is None:
        return False
    stage.model.load_state_dict(read_weights(out)[1])
    with atomic_folder(out / "weights") as temporary:
        write(temporary)
    figures = {key: round(float(value), 4) for key, value in outcome.evaluation.scalars.items()}
    print(json.dumps({"step": outcome.step, "seconds": round(outcome.seconds, 1)} | figures))  # noqa: T201
    return True
