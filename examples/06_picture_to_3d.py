"""One picture of an object in, a mesh out: views from all around by 3DiM, a field fitted to them, a GLB of it.

    nfldm3d train view-diffusion --data objects --out runs/views            # once
    python examples/06_picture_to_3d.py chair.png --weights runs/views --out out/chair

The picture is cut out (PNG with transparency), or --mask tells what is the object.
"""

import argparse
from dataclasses import replace
from pathlib import Path

import torch

from nfldm3d import export_mesh, render
from nfldm3d.camera import Camera
from nfldm3d.models.views.sampling import ViewSampling
from nfldm3d.pictures import save_contact_sheet
from nfldm3d.pipelines.views import ViewSynthesizer, fit_object, make_view_path, read_object
from nfldm3d.pipelines.views.object_fitting import FIT, as_capture


def main(picture: Path, weights: str, out: Path, mask: Path | None, views: int, steps: int, fit_steps: int) -> None:
    model = ViewSynthesizer.from_pretrained(weights)
    given = read_object(picture, model.image_size, mask=mask)
    wanted = make_view_path("sphere", given.camera, views)  # views near the picture's come first
    sampling = ViewSampling(steps=steps, guidance=2.0, eta=0.0 if steps < 100 else 1.0)
    draws = torch.Generator().manual_seed(0)
    drawn = model.draw(given.image[None], given.camera, wanted, sampling, generator=draws)

    cameras, images = Camera.cat([given.camera, wanted]), torch.cat((given.image[None], drawn))
    scene = fit_object(as_capture(images, cameras, picture.stem), replace(FIT, steps=fit_steps))
    out.mkdir(parents=True, exist_ok=True)
    scene.save(out / "scene.nfld")
    export_mesh(scene, out / "scene.glb")
    shown = render(scene, cameras[:6]).image
    save_contact_sheet({"given and drawn": images[:6], "fitted": shown}, out / "views.png")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("picture", type=Path)
    parser.add_argument("--weights", required=True, help="a run of nfldm3d train view-diffusion, or a folder")
    parser.add_argument("--mask", type=Path)
    parser.add_argument("--out", type=Path, default=Path("out/object"))
    parser.add_argument("--views", type=int, default=24)
    parser.add_argument("--steps", type=int, default=64)
    parser.add_argument("--fit-steps", type=int, default=FIT.steps)
    main(**vars(parser.parse_args()))
