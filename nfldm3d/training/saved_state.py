"""A checkpoint: a folder with everything that a run needs to go on, and sums that tell whether it is whole.

model.safetensors       weights as they are trained
ema.safetensors         averaged weights, if the run has them
optimizer.safetensors   moments, named <moment>/<parameter>
state.json              how far the run is, which is also what order and randomness follow from
manifest.json           size and SHA-256 of each of these
"""

import json
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from nfldm3d.files import DataFormatError, measure_file, read_json, refuse_outside
from nfldm3d.tensor_files import read_tensors, require_finite, write_tensors
from nfldm3d.training.averaging import AveragedWeights
from nfldm3d.written_files import atomic_folder

VERSION = 1
OTHER = "use another checkpoint"
MODEL, EMA, OPTIMIZER = "model.safetensors", "ema.safetensors", "optimizer.safetensors"
STEP, MOMENTS = "step", ("exp_avg", "exp_avg_sq")
"""What AdamW keeps of each parameter."""
STATE, MANIFEST = "state.json", "manifest.json"


@dataclass
class Progress:
    """How far a run is."""

    step: int = 0
    """Steps done, skipped ones included."""
    samples: int = 0
    """Position in the stream of samples, over all processes."""
    seconds: float = 0.0
    """Time spent, over all sittings."""
    skipped: int = 0
    """Steps whose loss or gradient was not finite."""
    skipped_in_row: int = 0
    """Such steps since the last good one."""
    best_step: int = -1
    """Step of the best evaluation; -1 before the first."""
    best_score: float = 0.0


@dataclass
class TrainingState:
    """Everything that changes while a network is trained."""

    model: nn.Module
    optimizer: torch.optim.Optimizer
    """Its parameter groups hold parameters of the model in the order of ``parameter_names``."""
    ema: AveragedWeights | None
    scaler: torch.amp.GradScaler | None
    """Loss scaling of fp16."""
    progress: Progress


def save_checkpoint(folder: Path, state: TrainingState) -> None:
    """Writes a checkpoint, whole or not at all.

    Raises:
        OSError: if it cannot be written; what was there before is untouched.
    """
    from safetensors import SafetensorError

    contents: dict[str, dict[str, Tensor]] = {MODEL: state.model.state_dict(), OPTIMIZER: _moments(state)}
    if state.ema is not None:
        contents[EMA] = state.ema.tensors
    head: dict[str, Any] = {"version": VERSION, "progress": asdict(state.progress)}
    if state.scaler is not None:
        head["scaler"] = state.scaler.state_dict()
    try:
        with atomic_folder(folder, noted=False) as temporary:
            for name, tensors in contents.items():
                write_tensors(temporary / name, tensors)
            (temporary / STATE).write_text(json.dumps(head, indent=1), encoding="utf-8")
            sums = {file.name: measure_file(file) for file in sorted(temporary.iterdir())}
            (temporary / MANIFEST).write_text(json.dumps(sums, indent=1), encoding="utf-8")
    except (SafetensorError, ValueError) as error:  # safetensors and ``atomic_folder`` wrap the system's errors
        raise OSError(str(error)) from error


def remove_checkpoint(folder: Path) -> None:
    """Deletes a checkpoint's files, and its folder if nobody has put others there."""
    for name in (MANIFEST, STATE, OPTIMIZER, EMA, MODEL):
        (folder / name).unlink(missing_ok=True)
    with suppress(OSError):
        folder.rmdir()


def find_damage(folder: Path) -> str | None:
    """What is wrong with a checkpoint's files, or None."""
    try:
        refuse_outside(folder, folder / MANIFEST)
        sums = read_json(folder / MANIFEST)
        if not isinstance(sums, dict) or not {MODEL, OPTIMIZER, STATE} <= set(sums):
            return f"{MANIFEST} is incomplete"
        if unknown := set(sums) - {MODEL, EMA, OPTIMIZER, STATE}:  # names of a file may lead anywhere
            return f"{MANIFEST} names {min(unknown)!r}, which is no part of a checkpoint"
        refuse_outside(folder, *(folder / name for name in sums))
        for name, expected in sums.items():
            size = (folder / name).stat().st_size
            if size != expected["bytes"]:
                return f"{name} has {size} bytes instead of {expected['bytes']}"
            if measure_file(folder / name) != expected:
                return f"{name} has changed since it was written"
    except (DataFormatError, OSError, KeyError, TypeError) as error:
        return str(error)
    return None


def read_progress(folder: Path) -> Progress:
    """How far the run was when it wrote this checkpoint."""
    return Progress(**_read_head(folder)["progress"])


def load_checkpoint(folder: Path, state: TrainingState) -> None:
    """Puts a checkpoint into ``state``.

    Raises:
        DataFormatError: if its weights are those of another architecture; the message says what differs.
    """
    head = _read_head(folder)
    weights = _read_weights(folder / MODEL, state)
    moments = read_tensors(folder / OPTIMIZER, remedy=OTHER)
    _require_moments(moments, state, folder / OPTIMIZER)
    averages = weights
    if state.ema is not None and (folder / EMA).exists():
        averages = _read_weights(folder / EMA, state)
    state.model.load_state_dict(weights)
    if state.ema is not None:
        state.ema.load(averages)
    _restore_moments(moments, state)
    if state.scaler is not None and "scaler" in head:
        state.scaler.load_state_dict(head["scaler"])
    state.progress = Progress(**head["progress"])


def _read_weights(path: Path, state: TrainingState) -> dict[str, Tensor]:
    """Weights of the network that is trained, which are numbers."""
    weights = read_tensors(path, remedy=OTHER)
    require_same_shapes(weights, state.model.state_dict(), path)
    require_finite(weights, path, OTHER)
    return weights


def _require_moments(moments: dict[str, Tensor], state: TrainingState, path: Path) -> None:
    """Raises DataFormatError unless each parameter has all that AdamW keeps of it, in its shape, or nothing."""
    require_finite(moments, path, OTHER)
    parameters, kept = dict(state.model.named_parameters()), dict[str, set[str]]()
    trained = set(parameter_names(state))
    for key, value in moments.items():
        moment, _, name = key.partition("/")
        if name not in trained:
            raise DataFormatError(path, f"has moments of {name}, which this run does not train; start a new run folder")
        kept.setdefault(name, set()).add(moment)
        shape = () if moment == STEP else tuple(parameters[name].shape)
        if moment not in (STEP, *MOMENTS) or tuple(value.shape) != shape or not value.is_floating_point():
            raise DataFormatError(path, f"{key} is {value.dtype} of shape {tuple(value.shape)}, not {shape}; {OTHER}")
    for name, found in kept.items():
        if lacking := {STEP, *MOMENTS} - found:
            raise DataFormatError(path, f"lacks {min(lacking)} of {name}; {OTHER}")


def require_same_shapes(found: dict[str, Tensor], wanted: dict[str, Tensor], path: Path) -> None:
    """Raises DataFormatError if names or shapes of weights differ."""
    shapes = [{name: tuple(value.shape) for name, value in tensors.items()} for tensors in (found, wanted)]
    if shapes[0] == shapes[1]:
        return
    differing = [name for name in sorted({*found, *wanted}) if shapes[0].get(name) != shapes[1].get(name)]
    shown = ", ".join(f"{name} {shapes[0].get(name, 'missing')}, not {shapes[1].get(name)}" for name in differing[:3])
    raise DataFormatError(
        path,
        f"belongs to another architecture: {len(differing)} of {len(wanted)} weights differ ({shown}); "
        "build the network with the options in config.json, or start a new run folder",
    )


def _read_head(folder: Path) -> dict[str, Any]:
    head = read_json(folder / STATE)
    if not isinstance(head, dict) or head.get("version") != VERSION or not isinstance(head.get("progress"), dict):
        raise DataFormatError(folder / STATE, f"is not of version {VERSION}; use the nfldm3d that wrote it")
    if unknown := set(head["progress"]) - set(asdict(Progress())):
        raise DataFormatError(folder / STATE, f"has unknown fields {sorted(unknown)}; use the nfldm3d that wrote it")
    for name, value in head["progress"].items():
        kinds = (int,) if type(getattr(Progress(), name)) is int else (int, float)
        if type(value) not in kinds or (value < 0 and not name.startswith("best")):
            raise DataFormatError(folder / STATE, f"{name} is {value!r}, which is no progress; use another checkpoint")
    if not _is_scaler(head.get("scaler")):
        raise DataFormatError(folder / STATE, f"scaler is {head['scaler']!r}, no state of one; {OTHER}")
    return head


def _is_scaler(value: Any) -> bool:
    """Whether a value is what ``GradScaler.state_dict`` gives, or nothing."""
    numbers = value.values() if isinstance(value, dict) else ()
    return value is None or (isinstance(value, dict) and all(type(number) in (int, float) for number in numbers))


def parameter_names(state: TrainingState) -> list[str]:
    """Names of the parameters that the optimiser holds, in its order."""
    names = {parameter: name for name, parameter in state.model.named_parameters()}
    return [names[parameter] for group in state.optimizer.param_groups for parameter in group["params"]]


def _moments(state: TrainingState) -> dict[str, Tensor]:
    saved = state.optimizer.state_dict()["state"]
    names = parameter_names(state)
    return {f"{key}/{names[index]}": value for index, moments in saved.items() for key, value in moments.items()}


def _restore_moments(tensors: dict[str, Tensor], state: TrainingState) -> None:
    numbers = {name: number for number, name in enumerate(parameter_names(state))}
    parameters = dict(state.model.named_parameters())
    moments: dict[int, dict[str, Tensor]] = {}
    for key, value in tensors.items():
        moment, _, name = key.partition("/")
        if value.shape == parameters[name].shape:  # the fused optimiser needs the strides of channels-last weights
            value = torch.zeros_like(parameters[name], dtype=value.dtype).copy_(value)
        moments.setdefault(numbers[name], {})[moment] = value
    groups = state.optimizer.state_dict()["param_groups"]
    state.optimizer.load_state_dict({"state": moments, "param_groups": groups})
