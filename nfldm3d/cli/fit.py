"""``nfldm3d fit``: posed images to a scene, with the figures that tell how good it is."""

import json
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated

import torch
import tyro

from nfldm3d.camera import Camera
from nfldm3d.cli.devices import open_device
from nfldm3d.data import PosedImages, read_posed_images
from nfldm3d.evaluation.metrics import SSIM_RADIUS, psnr, ssim
from nfldm3d.files import atomic_write
from nfldm3d.fitting import FitOptions, fit
from nfldm3d.fitting.checkpoint import is_under_way, remove_checkpoint
from nfldm3d.fitting.exposures import guess_factors, match_exposures
from nfldm3d.geometry import Box
from nfldm3d.pictures import save_contact_sheet
from nfldm3d.placement import Up, move_box
from nfldm3d.rendering import prepare
from nfldm3d.scene import Scene
from nfldm3d.scene_file import check_target
from nfldm3d.written_files import writing

LEAST_SIZE = SSIM_RADIUS + 1
"""Pixels a side of what is measured."""


@dataclass(frozen=True)
class Fit:
    """Fits a scene to a capture (transforms.json or COLMAP); beside it NAME.metrics.json tells how good it is, and
    NAME.contact.png shows it beside the photographs."""

    capture: Annotated[Path, tyro.conf.Positional]
    """Folder or file of the capture."""
    out: Path = Path("scene.nfld")
    """Scene to write."""
    options: Annotated[FitOptions, tyro.conf.arg(name="")] = field(default_factory=FitOptions)
    """How to fit. A box is in the coordinates of the capture's files."""
    images: Path | None = None
    """Folder of the pictures of a COLMAP model, if it is not called images."""
    up: Up = "auto"
    """Which direction of the capture's world points upwards; auto asks the cameras where the format does not say."""
    downscale: float = 1.0
    """Fit to pictures this many times smaller."""
    holdout_every: int = 0
    """Hold out every so many-th view (0, n, 2 n ...) and measure on it; 0 uses all views."""
    device: str = "cuda" if torch.cuda.is_available() else "cpu"
    """Where to fit."""
    resume: bool = True
    """Go on from the checkpoint of a fit that was stopped."""
    overwrite: bool = False
    """Replace what nfldm3d wrote there before and nobody has changed."""

    def run(self) -> None:
        """Fits, saves and measures."""
        device = open_device(self.device)
        check_target(self.out)
        sheet, metrics = (self.out.with_name(f"{self.out.stem}.{name}") for name in ("contact.png", "metrics.json"))
        checkpoint = self.out.with_name(f".{self.out.name}.checkpoint.safetensors")
        with writing(self.out, sheet, metrics, overwrite=self.overwrite or is_under_way(checkpoint)):
            self._fit(device, checkpoint, sheet, metrics)
        remove_checkpoint(checkpoint)

    def _fit(self, device: torch.device, checkpoint: Path, sheet: Path, metrics: Path) -> None:
        images, options = self._read()
        if not self.resume:
            remove_checkpoint(checkpoint)
        train, held_out = images.split(self.holdout_every) if self.holdout_every else (images, None)
        start = time.monotonic()
        scene = fit(train, options=options, checkpoint=checkpoint, device=device)
        seconds = time.monotonic() - start
        scene.save(self.out)
        judged = train[:: max(1, len(train) // 8)] if held_out is None else held_out
        figures = measure(scene, judged, sheet)
        figures = {"views": "training" if held_out is None else "held out"} | figures
        figures |= {"seconds": round(seconds, 1), "peak_memory_mb": peak_memory_mb(), "capture": str(self.capture)}
        with atomic_write(metrics) as temporary:
            temporary.write_text(json.dumps(figures, indent=1), encoding="utf-8")
        print(json.dumps(figures))  # noqa: T201 - the command's result

    def _read(self) -> tuple[PosedImages, FitOptions]:
        """The views, and the options with the box where reading has moved the world."""
        images, options = read_posed_images(self.capture, images=self.images, up=self.up), self.options
        if options.box is not None and images.scene_from_file is not None:
            box = move_box(Box(*options.box), images.scene_from_file)
            options = replace(options, box=(box.lower, box.upper))
        images = images if self.downscale == 1 else images.downscaled(self.downscale)
        for width, height in images.sizes or [(images.camera.width, images.camera.height)]:
            if min(width, height) < LEAST_SIZE:  # before the work, at whose end they are measured
                raise ValueError(
                    f"cannot measure pictures of {width}x{height} pixels; give larger ones, or lower --downscale, so "
                    f"that they have at least {LEAST_SIZE} a side"
                )
        return images, options


def measure(scene: Scene, images: PosedImages, sheet: Path) -> dict[str, object]:
    """Mean PSNR and SSIM of renders of the given views over the pixels that their masks leave, and a page with renders
    beside photographs. Where exposures were fitted, ``psnr_neighbours`` is that in the exposures that ``guess_factors``
    expects of these views, and ``psnr_exposed`` that after ``match_exposures``, which looks at the photographs."""
    sums, rows, count, counted = {"psnr": 0.0, "ssim": 0.0}, {}, len(images), 0
    exposures, fitted = scene.metadata.get("exposures"), scene.cameras
    known = torch.tensor(list(exposures.values())) if isinstance(exposures, Mapping) else None
    if known is not None:
        sums["psnr_exposed"] = 0.0
        if fitted is not None and len(fitted) == len(known):
            sums["psnr_neighbours"] = 0.0
    shown = set(range(0, count, max(1, -(-count // 6))))
    renderer = prepare(scene)
    for numbers, group in zip(images.group_numbers(), images.groups(), strict=True):  # one size at a time
        camera: Camera = group.camera.to(scene.device)
        size, shown_here = f", {camera.width}x{camera.height}" if images.sizes else "", []
        for place, number in enumerate(numbers):  # pictures of many megapixels would fill the memory
            view = group[[place]]
            truth, mask = view.load_images(), view.load_masks()
            with torch.no_grad():
                rendered = renderer.render(camera[[place]]).image.cpu()
            if number in shown:
                shown_here.append((truth, rendered))
            if mask is None or bool(mask.any()):
                sums["psnr"] += float(psnr(rendered, truth, mask))
                sums["ssim"] += float(ssim(rendered, truth, mask))
                if "psnr_exposed" in sums:
                    sums["psnr_exposed"] += float(psnr(match_exposures(rendered, truth, mask), truth, mask))
                if "psnr_neighbours" in sums:
                    assert known is not None and fitted is not None
                    factors = guess_factors(known, fitted.to("cpu"), view.camera)[..., None, None]
                    sums["psnr_neighbours"] += float(psnr((factors * rendered).clamp(0, 1), truth, mask))
                counted += 1
        if shown_here:
            photographs, renders = (torch.cat(pictures) for pictures in zip(*shown_here, strict=True))
            rows |= {f"photograph{size}": photographs, f"render{size}": renders}
    save_contact_sheet(rows, sheet)
    means = {name: round(total / counted, 4) if counted else None for name, total in sums.items()}
    return {"count": count, **means}


def peak_memory_mb() -> int | None:
    """The most memory this process has had, in MiB; None where the system does not tell."""
    try:
        import resource
    except ImportError:  # Windows
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak // 2**20 if sys.platform == "darwin" else peak // 2**10
