"""Other people's networks from folders, complete, frozen and from safetensors alone."""

import math
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from logging import CRITICAL
from pathlib import Path
from typing import Any

import torch

from nfldm3d.files import DataFormatError, read_json
from nfldm3d.models.weights import CONFIG, read_weight_shapes
from nfldm3d.tensor_files import Shapes, plan_network, require_finite

WHOLE = "copy the whole folder of the pipeline"
"""What to do about a folder that lacks something."""
MORE, FREE = 4, 2**22
"""Tied weights count several times; a few millions of numbers harm nobody."""

TOKEN_FIELDS = {"__type", "id", "content", "single_word", "lstrip", "rstrip", "normalized", "special"}
"""Of a token that a tokenizer has added to its vocabulary."""


def load_pretrained(
    cls: Any,
    folder: Path,
    device: torch.device,
    options: dict[str, Any],
    precision: str = "torch_dtype",
    **further: Any,
) -> Any:
    """One network of diffusers or transformers, complete and frozen.

    Args:
        cls: its class, with ``from_pretrained``.
        options: ``torch_dtype`` and ``variant`` as diffusers takes them.
        precision: how the network's library calls ``torch_dtype``.
        further: of the class's own.

    Raises:
        DataFormatError: the folder is incomplete, damaged, or of another network.
    """
    config, variant = read_config(folder), options.get("variant")
    held = read_weight_shapes(folder, variant)
    asked = {precision: options.get("torch_dtype") or torch.float32, "variant": variant}
    try:
        with _quietly():
            _require_size(plan_network(lambda: _build(cls, config, further), len(held)), held)
            network, found = cls.from_pretrained(
                str(folder), use_safetensors=True, local_files_only=True, output_loading_info=True, **asked, **further
            )
    except _refusals() as error:
        raise DataFormatError(
            folder, f"holds no {cls.__name__} in safetensors: {first_line(error)}; {WHOLE}"
        ) from error
    if missing := sorted(found["missing_keys"]):
        raise DataFormatError(folder, f"lacks weights: {', '.join(missing[:3])}; {WHOLE}")
    require_finite(network.state_dict(), folder, WHOLE)
    return freeze(network, device)


def _build(cls: Any, config: dict[str, Any], further: dict[str, Any]) -> torch.nn.Module:
    """A network as its folder describes it, without weights."""
    kind = getattr(cls, "config_class", None)  # transformers' networks have one, diffusers' have not
    return cls.from_config(dict(config)) if kind is None else cls(kind.from_dict(dict(config)), **further)


def _require_size(planned: Shapes, held: Shapes) -> None:
    """Raises a ValueError for a network that takes far more memory than its file has numbers."""
    asked, there = (sum(map(math.prod, shapes.values())) for shapes in (planned, held))
    if asked > MORE * there + FREE:
        raise ValueError(f"it asks for {asked} numbers, but the file holds {there}")


def _refusals() -> tuple[type[Exception], ...]:
    """What diffusers, transformers and tokenizers raise for files that they do not take."""
    from huggingface_hub.errors import StrictDataclassError
    from safetensors import SafetensorError

    known = (OSError, ValueError, RuntimeError, TypeError, LookupError, AttributeError, ArithmeticError, ImportError)
    return (*known, AssertionError, StrictDataclassError, SafetensorError)


def load_tokenizer(folder: Path) -> Any:
    """A tokenizer of transformers that needs no code of its own; raises a DataFormatError."""
    if not (folder / "tokenizer_config.json").is_file():
        raise DataFormatError(folder, f"holds no tokenizer_config.json; {WHOLE}")
    transformers = import_transformers()
    for name in ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json"):
        if (folder / name).is_file():
            _require_known_tokens(read_json(folder / name), folder / name)
    try:
        with _quietly():
            tokenizer = transformers.AutoTokenizer.from_pretrained(
                str(folder), local_files_only=True, trust_remote_code=False
            )
            tokenizer(["a red chair", ""], padding=True, truncation=True, return_tensors="pt")  # some fail only then
            return tokenizer
    except Exception as error:  # tokenizers raises no narrower one
        raise DataFormatError(folder, f"holds no readable tokenizer: {first_line(error)}; {WHOLE}") from error


def _require_known_tokens(content: object, path: Path) -> None:
    """Tokens with other fields than these get a line on the terminal each, from a library that cannot be kept quiet."""
    parts = content if isinstance(content, dict) else {}
    listed, numbered = parts.get("added_tokens"), parts.get("added_tokens_decoder")
    tokens = list(listed) if isinstance(listed, list) else []
    tokens += list(numbered.values()) if isinstance(numbered, dict) else []
    tokens += [part for part in parts.values() if isinstance(part, dict) and "content" in part]
    for token in tokens:
        fields = token.keys() if isinstance(token, dict) else {type(token).__name__}
        if unknown := sorted(fields - TOKEN_FIELDS) or sorted({"content"} - fields):
            raise DataFormatError(path, f"has a token with the unknown field {unknown[0]}, or without content; {WHOLE}")


@contextmanager
def _quietly() -> Iterator[None]:
    """They report every weight and option that a network has no use for, and draw a bar for a second's reading."""
    loaded = [sys.modules[name].utils.logging for name in ("diffusers", "transformers") if name in sys.modules]
    before = [(logging, logging.get_verbosity(), logging.is_progress_bar_enabled()) for logging in loaded]
    for logging in loaded:
        logging.set_verbosity(CRITICAL)
        logging.disable_progress_bar()
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "Initializing zero-element tensors")  # of what is refused later
            yield
    finally:
        for logging, level, bars in before:
            logging.set_verbosity(level)
            if bars:
                logging.enable_progress_bar()


def freeze(network: Any, device: torch.device) -> Any:
    """A network on a device, in evaluation mode, that gathers no gradients of its own."""
    return torch.nn.Module.to(network, device).eval().requires_grad_(False)


def read_config(folder: Path) -> dict[str, Any]:
    """The options of a folder's network; raises a DataFormatError."""
    path = folder / CONFIG
    if not path.is_file():
        raise DataFormatError(folder, f"holds no {CONFIG}; {WHOLE}")
    config = read_json(path)
    if not isinstance(config, dict):
        raise DataFormatError(path, f"is not a table of options; {WHOLE}")
    return config


def import_transformers() -> Any:
    """The package, or an ImportError that says how to get it."""
    try:
        import transformers
    except ImportError as error:
        raise ImportError(
            "encoders of texts and pictures are transformers': pip install 'nfldm3d[guidance]'"
        ) from error
    return transformers


def first_line(error: BaseException) -> str:
    """Of what another library says, for a message in one line."""
    return (str(error).splitlines() or [type(error).__name__])[0]
