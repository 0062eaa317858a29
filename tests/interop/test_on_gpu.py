"""Kaolin's and nerfacc's adapters give on the GPU what they give on the CPU."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from on_devices import BOX, assert_same_on_gpu, ball, cameras
from stand_in_kaolin import stand_in

import nfldm3d.interop.kaolin
from nfldm3d import extract_mesh
from nfldm3d.fields import SparseField
from nfldm3d.interop.kaolin import (
    from_kaolin_camera,
    from_kaolin_mesh,
    from_kaolin_spc,
    from_kaolin_voxelgrid,
    sparse_from_kaolin_spc,
    spc_box,
    to_kaolin_camera,
    to_kaolin_feature_grid,
    to_kaolin_mesh,
    to_kaolin_spc,
    to_kaolin_voxelgrid,
)
from nfldm3d.interop.nerfacc import NerfaccCallbacks, from_nerfacc_rendering

CALLS: dict[str, Callable[[torch.device], object]] = {
    "to_kaolin_camera": lambda d: vars(to_kaolin_camera(cameras(d))),
    "from_kaolin_camera": lambda d: from_kaolin_camera(to_kaolin_camera(cameras(d))),
    "to_kaolin_mesh": lambda d: vars(to_kaolin_mesh(extract_mesh(ball(d)))),
    "from_kaolin_mesh": lambda d: from_kaolin_mesh(to_kaolin_mesh(extract_mesh(ball(d)))),
    "to_kaolin_voxelgrid": lambda d: [
        to_kaolin_voxelgrid(ball(d).field, kind) for kind in ("occupancy", "opacity", "density")
    ],
    "from_kaolin_voxelgrid": lambda d: from_kaolin_voxelgrid(to_kaolin_voxelgrid(ball(d).field), BOX),
    "to_kaolin_feature_grid": lambda d: to_kaolin_feature_grid(ball(d).field),
    "from_kaolin_spc": lambda d: from_kaolin_spc(to_kaolin_spc(ball(d).field), spc_box(ball(d).field)),
    "sparse_from_kaolin_spc": lambda d: sparse_from_kaolin_spc(
        to_kaolin_spc(SparseField.from_dense(ball(d).field)), spc_box(ball(d).field)
    ),
    "spc_box": lambda d: torch.tensor(spc_box(ball(d).field).size, device=d),
    "to_kaolin_spc": lambda d: to_kaolin_spc(ball(d).field).features,
}


@pytest.mark.cuda
@pytest.mark.parametrize("name", CALLS)
def test_kaolins_types_come_and_go(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    stand_in(monkeypatch)
    assert_same_on_gpu(CALLS[name])


def test_no_adapter_is_left_out() -> None:
    assert set(nfldm3d.interop.kaolin.__all__) == set(CALLS)


@pytest.mark.cuda
def test_nerfaccs_callbacks_answer_on_the_gpu(tmp_path: Path) -> None:
    def ask(device: torch.device) -> list[object]:
        rays = cameras(device).rays().reshape(-1)
        callbacks = NerfaccCallbacks(ball(device), rays)
        starts, ends = torch.full((9,), 3.0, device=device), torch.full((9,), 3.1, device=device)
        samples = (starts, ends, torch.arange(9, device=device))
        places = rays.at(torch.full((len(rays.origins),), 4.0, device=device))
        limits = (callbacks.t_min, callbacks.t_max, callbacks.render_bkgd)
        return [*limits, callbacks.sigma_fn(*samples), callbacks.rgb_sigma_fn(*samples), callbacks.occ_eval_fn(places)]

    assert_same_on_gpu(ask)


@pytest.mark.cuda
def test_nerfaccs_pictures_become_renderings() -> None:
    def fold(device: torch.device) -> object:
        values = torch.rand(3 * 140, 5, generator=torch.Generator().manual_seed(0)).to(device)
        return from_nerfacc_rendering(cameras(device), *values.split((3, 1, 1), dim=-1))

    assert_same_on_gpu(fold)
