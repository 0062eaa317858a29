"""The package that only these adapters need."""

from importlib import import_module
from types import ModuleType


def import_kaolin(module: str) -> ModuleType:
    """A module of Kaolin; raises one ImportError that says how to get Kaolin if it cannot be had."""
    try:
        return import_module(module)
    except (ImportError, OSError, RuntimeError) as error:
        raise ImportError(
            f"this needs NVIDIA Kaolin, but {module} cannot be imported ({error}). The package 'kaolin' on PyPI is an "
            "empty placeholder; real ones are made for one pair of torch and CUDA each: pip install kaolin -f "
            "https://nvidia-kaolin.s3.us-east-2.amazonaws.com/torch-{TORCH}_cu{CUDA}.html, or conda-forge's, or built "
            "from source: https://kaolin.readthedocs.io/en/latest/notes/installation.html"
        ) from error
