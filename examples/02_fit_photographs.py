"""Photographs with known cameras to a scene: fit, look, measure.

    python examples/02_fit_photographs.py path/to/capture --seconds 120 --downscale 4

A capture is a folder with a transforms.json (instant-ngp, nerfstudio, NeRF-synthetic) or a COLMAP model. Record one
with ``nfldm3d capture vizdoom --out out/capture`` if you have none.
"""

import argparse
from pathlib import Path

from nfldm3d import fit, read_posed_images, render
from nfldm3d.evaluation.metrics import psnr
from nfldm3d.fitting import FitOptions
from nfldm3d.pictures import save_contact_sheet


def main(capture: Path, out: Path, options: FitOptions, downscale: float) -> None:
    images = read_posed_images(capture).downscaled(downscale)
    print(images)
    train, held_out = images.split(holdout_every=8)
    scene = fit(train, options=options)
    print(scene)
    truth, rendered = held_out.load_images(), render(scene, held_out.camera).image  # (views 3 height width)
    print(f"held-out PSNR {float(psnr(rendered, truth)):.2f} dB")
    save_contact_sheet({"photograph": truth[:4], "render": rendered[:4]}, out / "contact.png")
    scene.save(out / "scene.nfld")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("capture", type=Path)
    parser.add_argument("--out", type=Path, default=Path("out/fit"))
    parser.add_argument("--seconds", type=float, default=120.0)
    parser.add_argument("--downscale", type=float, default=1.0)
    parser.add_argument("--voxels", type=int, default=None)
    arguments = parser.parse_args()
    chosen = FitOptions(time_budget=arguments.seconds, voxels=arguments.voxels)
    main(arguments.capture, arguments.out, chosen, arguments.downscale)
