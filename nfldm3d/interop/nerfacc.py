"""nerfacc without a compiler: puts kernels that run on CPU and CUDA where nerfacc looks for its own.

    import nfldm3d.interop.nerfacc
    nfldm3d.interop.nerfacc.install()

After that, unchanged nerfacc code runs on CPU tensors and on CUDA tensors.
"""

import functools
import importlib
import importlib.util
import subprocess
import sys
import warnings
from collections.abc import Callable
from types import ModuleType
from typing import Any

import torch
from torch import Tensor

from nfldm3d.interop import nerfacc_backend
from nfldm3d.interop.nerfacc_field import NerfaccCallbacks, from_nerfacc_rendering
from nfldm3d.interop.nerfacc_grid import occ_grid_estimator
from nfldm3d.interop.nerfacc_segments import pack_info

__all__ = ["NerfaccCallbacks", "from_nerfacc_rendering", "install", "occ_grid_estimator"]

VERSIONS = ("0.5.3", "0.5.2")
NATIVE = "nerfacc.csrc"
LOADER = "nerfacc.cuda._backend"


def install(*, force: bool = False) -> bool:
    """Makes this package nerfacc's backend and returns True, or leaves a working compiled one alone and returns False.

    nerfacc may have been imported before or not; installing twice changes nothing. ``force`` replaces a compiled
    backend, too, which is what CPU tensors need.

    Two more things change, wherever they were imported to: ``pack_info`` works on every device, and ``rendering`` of no
    samples at all returns results that a loss can go back from.

    Raises:
        ImportError: nerfacc is not installed, or it is neither version 0.5.2 nor 0.5.3.
    """
    nerfacc = _import_nerfacc()
    version = _version_of(nerfacc)
    current = sys.modules.get(NATIVE)
    if not force and not _is_ours(current) and _has_compiled_backend():
        return False
    native = current if current is not None and _is_ours(current) else _native_module(version)
    sys.modules[NATIVE] = native
    nerfacc.csrc = native  # pyright: ignore[reportAttributeAccessIssue]
    loader = sys.modules.get(LOADER)
    if loader is None:
        # nerfacc's own loader would look for a compiler, make a build folder and print.
        loader = ModuleType(LOADER, "Stands in for nerfacc's loader of compiled code.")
        sys.modules[LOADER] = loader
        importlib.import_module("nerfacc.cuda")._backend = loader  # pyright: ignore[reportAttributeAccessIssue]
    loader._C = native  # pyright: ignore[reportAttributeAccessIssue]
    _replace_everywhere("pack_info", importlib.import_module("nerfacc.pack").pack_info, pack_info)
    rendering = importlib.import_module("nerfacc.volrend").rendering
    if not hasattr(rendering, "__wrapped__"):
        _replace_everywhere("rendering", rendering, _keep_gradients(rendering))
    samples = importlib.import_module("nerfacc.data_specs").RaySamples
    if not hasattr(samples, "chunk_cnts"):  # its _to_cpp asks for it, but no version has it
        samples.chunk_cnts = property(lambda self: None if self.packed_info is None else self.packed_info[:, 1])
    return True


def _import_nerfacc() -> ModuleType:
    try:
        with warnings.catch_warnings():
            # Python's, when it compiles nerfacc's docstrings, which hold escapes that are none.
            warnings.simplefilter("ignore", SyntaxWarning)
            warnings.simplefilter("ignore", DeprecationWarning)
            return importlib.import_module("nerfacc")
    except ModuleNotFoundError as error:
        if error.name != "nerfacc":
            raise
        raise ImportError("nerfacc is not installed: pip install nerfacc==0.5.3") from error


def _version_of(nerfacc: ModuleType) -> str:
    version = nerfacc.__version__.split("+")[0]  # wheels with compiled code append torch's and CUDA's versions
    if version not in VERSIONS:
        raise ImportError(
            f"nerfacc {version} is installed, but its backend is known for {' and '.join(VERSIONS)} only: "
            "pip install nerfacc==0.5.3"
        )
    return version


def _native_module(version: str) -> ModuleType:
    """What nerfacc expects of its compiled code."""
    native = ModuleType(NATIVE, "nerfacc's native functions, from nfldm3d's kernels.")
    native.__file__ = nerfacc_backend.__file__
    for name in (
        "RaySegmentsSpec",
        "ray_aabb_intersect",
        "traverse_grids",
        "inclusive_sum",
        "exclusive_sum",
        "inclusive_prod_forward",
        "inclusive_prod_backward",
        "exclusive_prod_forward",
        "exclusive_prod_backward",
        "searchsorted",
        "importance_sampling",
        "opencv_lens_undistortion",
        "opencv_lens_undistortion_fisheye",
    ):
        setattr(native, name, getattr(nerfacc_backend, name))
    if version == "0.5.2":
        native.traverse_grids = nerfacc_backend.traverse_grids_v052  # pyright: ignore[reportAttributeAccessIssue]
    return native


def _is_ours(native: Any) -> bool:
    return getattr(native, "__file__", None) == nerfacc_backend.__file__


def _has_compiled_backend() -> bool:
    """Whether nerfacc's own CUDA code is there and loads; what has not been compiled yet is not compiled now."""
    loader = sys.modules.get(LOADER)
    if loader is not None:
        return getattr(loader, "_C", None) is not None and not _is_ours(loader._C)
    try:
        if importlib.util.find_spec(NATIVE) is not None:
            importlib.import_module(NATIVE)
            return True
        if not torch.cuda.is_available() or not _was_compiled_on_first_use():
            return False
        return getattr(importlib.import_module(LOADER), "_C", None) is not None
    except (ImportError, OSError, RuntimeError, subprocess.SubprocessError):  # stale: built for another torch
        sys.modules.pop(LOADER, None)
        return False


def _was_compiled_on_first_use() -> bool:
    from pathlib import Path

    from torch.utils.cpp_extension import _get_build_directory

    return any(Path(_get_build_directory("nerfacc_cuda", verbose=False)).glob("nerfacc_cuda*.so"))


def _replace_everywhere(name: str, old: object, new: object) -> None:
    """Also where ``from nerfacc import name`` put it."""
    for module in list(sys.modules.values()):
        if getattr(module, "__dict__", {}).get(name) is old:
            setattr(module, name, new)


def _keep_gradients(rendering: Callable) -> Callable:
    """nerfacc's rendering asks the field nothing if there are no samples: then nothing would require a gradient."""

    @functools.wraps(rendering)
    def rendering_of_any_samples(
        t_starts: Tensor,
        t_ends: Tensor,
        ray_indices: Tensor | None = None,
        n_rays: int | None = None,
        rgb_sigma_fn: Callable | None = None,
        rgb_alpha_fn: Callable | None = None,
        render_bkgd: Tensor | None = None,
    ) -> tuple[Tensor, Tensor, Tensor, dict]:
        results = rendering(t_starts, t_ends, ray_indices, n_rays, rgb_sigma_fn, rgb_alpha_fn, render_bkgd)
        if len(t_starts) == 0 and torch.is_grad_enabled():
            for result in results[:3]:
                result.requires_grad_()
        return results

    return rendering_of_any_samples
