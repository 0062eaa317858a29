"""How fast the scene auto-encoder is: a training step beside the same step on torch twins, and encoding.

A scene is a furnished hall of painted walls in a box of 32 x 32 x 8 m, of 64 x 64 x 16 voxels; 16 views of 64 x 64
pixels with depth are encoded, parts of 8 others are rendered and compared. The step encodes, splats, renders, decodes
and computes all gradients, in the precision that training chooses. The peer is the same network and the same loss, with
``nfldm3d.ops.reference`` in place of the kernels. ``encode`` has no peer: 16 views to a field, without gradients.

    python examples/benchmarks/autoencoders.py [--json] [--device cuda] [--scenes 2]
"""

import argparse
import json
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from torch import Tensor

from nfldm3d import Box, Camera, ops
from nfldm3d.models.nfldm.scene_autoencoder import SceneAutoencoder
from nfldm3d.models.nfldm.views import Views
from nfldm3d.ops import reference
from nfldm3d.training import TrainingOptions
from nfldm3d.training.processes import start_processes
from nfldm3d.training.scene_source import SceneBatch, SceneItem, SceneSource, crop_targets
from nfldm3d.training.scene_stage import SceneStage

sys.path.insert(0, str(Path(__file__).parent))
from rendering import best_time

BOX = Box((-16.0, -16.0, -4.0), (16.0, 16.0, 4.0))
HALL = Box((-9.3, -7.2, -2.0), (8.4, 7.9, 3.1))
COLUMNS = [Box((x - 0.7, y - 0.6, -2.0), (x + 0.7, y + 0.6, 3.1)) for x, y in ((-5, -3), (-4, 4), (3, -4), (5, 3))]
FIELDS = ("name", "ours_s", "peer_s", "ratio")


def look(count: int, seed: int) -> Views:
    """Views from random places in the hall, with exact depth."""
    generator = torch.Generator().manual_seed(seed)
    eyes = (torch.rand(count, 3, generator=generator) - 0.5) * torch.tensor([13.0, 10.0, 0.5])
    angles = 2 * torch.pi * torch.rand(count, generator=generator)
    ahead = torch.stack((angles.cos(), angles.sin(), torch.zeros(count)), dim=-1)
    camera = Camera.look_at(eyes, eyes + ahead, width=64, height=64, horizontal_fov_degrees=90.0)
    rays = camera.rays()
    distance = HALL.clip(rays)[1]
    for column in COLUMNS:
        near, far = column.clip(rays)
        distance = torch.where((near > 0) & (near < far), distance.minimum(near), distance)
    points = rays.at(distance)
    colors = 0.45 + 0.25 * torch.sin(points * torch.tensor([0.6, 0.5, 0.9])) + 0.15 * torch.sin(6 * points)
    cosine = (rays.directions * camera.forward[:, None, None]).sum(-1)
    return Views(colors.movedim(-1, 1).clamp(0, 1), camera, distance * cosine)


def make_item(seed: int) -> SceneItem:
    """A scene as training draws it."""
    inputs, others = look(16, seed), look(8, seed + 1000)
    assert inputs.depth is not None and others.depth is not None
    poses = torch.cat((inputs.camera.world_from_camera, others.camera.world_from_camera))
    camera = Camera.from_fov(poses, width=64, height=64, horizontal_fov_degrees=90.0)
    images, depth = torch.cat((inputs.images, others.images)), torch.cat((inputs.depth, others.depth))
    targets = crop_targets(others, 32, torch.Generator().manual_seed(seed))
    return SceneItem(inputs, targets, Views(images, camera, depth), BOX)


@contextmanager
def on_twins() -> Iterator[None]:
    """Lets the networks run on torch twins."""
    kernels = {name: getattr(ops, name) for name in ("integrate_rays", "splat_frustums")}
    try:
        for name in kernels:
            setattr(ops, name, getattr(reference, name))
        yield
    finally:
        for name, kernel in kernels.items():
            setattr(ops, name, kernel)


def make_step(device: torch.device, scenes: int) -> tuple[Callable[[], Tensor], SceneAutoencoder]:
    """A function that computes loss and gradients of one batch, and the network."""
    torch.manual_seed(0)
    accelerator = start_processes(TrainingOptions(steps=1, device="cpu" if device.type == "cpu" else "auto"), True)
    model = SceneAutoencoder()
    stage = SceneStage(model, SceneSource([]), [None])  # type: ignore[list-item] - nothing is drawn or judged
    stage.to(device)
    batch = SceneBatch([make_item(seed) for seed in range(scenes)]).to(device)

    def step() -> Tensor:
        model.zero_grad()
        with accelerator.autocast():
            loss, _ = stage.loss(batch, torch.Generator())
        loss.backward()
        return loss.detach()

    return step, model


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true", help="print one line of JSON per row")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--scenes", type=int, default=2, help="scenes of a batch")
    arguments = parser.parse_args()
    device = torch.device(arguments.device)
    step, model = make_step(device, arguments.scenes)
    loss = float(step())
    ours = best_time(step, 5)
    with on_twins():
        assert abs(float(step()) - loss) < 0.01 * loss, "kernels and twins disagree"
        peer = best_time(step, 3)
    views = look(16, 0).to(device)
    with torch.no_grad():
        encode = best_time(lambda: model.eval().encode(views, BOX), 5)
    rows = [
        dict(zip(FIELDS, ("training_step", ours, peer, peer / ours), strict=True)),
        dict(zip(FIELDS, ("encode_16_views", encode, None, None), strict=True)),
    ]
    if arguments.json:
        for row in rows:
            print(json.dumps(row))
        return
    print(f"{'':18}{'ours':>10}{'peer':>10}{'ratio':>8}")
    for row in rows:
        peer_text = "" if row["peer_s"] is None else f"{row['peer_s']:8.3f} s{row['ratio']:7.1f}x"
        print(f"{row['name']:18}{row['ours_s']:8.3f} s{peer_text}")


if __name__ == "__main__":
    main()
