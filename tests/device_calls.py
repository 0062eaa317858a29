"""Every public function with arguments on some device: what the tests of devices call."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import torch
from balls import BOX as BALL_BOX, make_ball
from on_devices import BOX, CPU, ball, cameras

import nfldm3d
import nfldm3d.data
import nfldm3d.export
import nfldm3d.fields
import nfldm3d.fitting
import nfldm3d.ops
import nfldm3d.rendering
from nfldm3d import (
    Box,
    Camera,
    EnvironmentMap,
    MeshOptions,
    PosedImages,
    Rays,
    Rgb,
    Scene,
    SphericalHarmonics,
    VoxelField,
    editing,
    geometry,
    lens,
    ops,
)
from nfldm3d.appearance import spherical_harmonics
from nfldm3d.data import BevMap
from nfldm3d.evaluation import distributions, metrics
from nfldm3d.fields import (
    NeuralField,
    SparseField,
    occupied_cells,
    read_innermost,
    require_voxels,
    split_levels,
    voxelize,
)
from nfldm3d.fitting import Schedule, Step, estimate_boxes, optimise
from nfldm3d.image_decoder import ImageDecoder
from nfldm3d.rendering import composite, find_occupancy, integrate, make_path, mean_distance, prepare, render, shade

Call = Callable[[torch.device], object]
POINTS = torch.rand(40, 3, generator=torch.Generator().manual_seed(1)) * torch.tensor(BOX.size) + torch.tensor(
    BOX.lower
)
TURN = geometry.turn_about(BOX.scaled(0.5), 2)
SLANT = torch.tensor([[0.8, -0.6, 0, 0.1], [0.6, 0.8, 0, 0.2], [0, 0, 1, 0.3], [0, 0, 0, 1]])


def march() -> ops.March:
    return ops.March((BOX.lower, BOX.upper), 0.1)


def rays(device: torch.device) -> Rays:
    return cameras(device).rays().reshape(-1)


def field(device: torch.device) -> VoxelField:
    return ball(device).field


def sparse(device: torch.device) -> SparseField:
    return SparseField.from_dense(field(device))


def integral(device: torch.device) -> ops.RayIntegral:
    return composite(ball(device).levels, rays(device))


def posed(device: torch.device) -> PosedImages:
    seen = render(ball(device), cameras(device))
    return PosedImages.from_tensors(seen.image, cameras(device), depth=seen.depth, masks=seen.depth > 0)


def bev(device: torch.device) -> BevMap:
    classes = (torch.arange(15).view(5, 3) % 3).byte().to(device)
    return BevMap(classes, classes.float(), (-1.0, 0.5), 0.5, ("void", "floor", "wall"), ((0, 0, 0),) * 3)


def formula(device: torch.device) -> Scene:
    """A scene whose field is no grid."""
    return Scene(make_ball().to(device), Rgb(), cameras=cameras(device))


def neural(device: torch.device) -> NeuralField:
    draws = torch.Generator().manual_seed(4)
    encoding = {"levels": 2, "log2_rows": 8, "base_resolution": 4}
    made = NeuralField(center=BOX.center, detail=16, encoding=encoding, width=16, generator=draws).to(device)
    with torch.no_grad():
        made.encoding.table.mul_(1e3)
    made.update_occupancy(generator=draws)
    return made


def decoder(device: torch.device) -> ImageDecoder:
    torch.manual_seed(2)
    return ImageDecoder(5, widths=(8, 8), octaves=1).to(device)


def optimised(device: torch.device) -> torch.Tensor:
    point, layer = torch.zeros(3, device=device), torch.nn.Linear(3, 1, bias=False).to(device)
    torch.nn.init.ones_(layer.weight)

    def loss(step: Step) -> torch.Tensor:
        return (layer(point[None]) - 2).square().sum() + (point - 1).square().sum()

    optimise({"point": point, "layer": layer}, loss, Schedule(5, rate=0.1), progress=False)
    return point.detach()


def features(device: torch.device, *shape: int) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(3)).to(device)


CALLS: dict[str, Call] = {
    # cameras
    "Camera.from_fov": lambda d: Camera.from_fov(cameras(d).world_from_camera, width=5, height=4),
    "Camera.from_intrinsics": lambda d: Camera.from_intrinsics(
        cameras(d).world_from_camera, cameras(d)[0].intrinsics, width=8, height=6, distortion=torch.zeros(5)
    ),
    "Camera.from_opencv": lambda d: Camera.from_opencv(
        cameras(d).view_matrix, cameras(d).intrinsics, width=8, height=6, distortion=torch.zeros(4, device=d)
    ),
    "Camera.intrinsics": lambda d: cameras(d).intrinsics,
    "Camera.view_matrix": lambda d: cameras(d).view_matrix,
    "Camera.look_at": lambda d: Camera.look_at(POINTS[:3].to(d), (0.0, 0.0, 9.0), width=5, height=4),
    "Camera.cat": lambda d: Camera.cat([cameras(d), replace(cameras(d), distortion=torch.zeros(3, 8, device=d))]),
    "Camera.centers": lambda d: cameras(d).centers,
    "Camera.forward": lambda d: cameras(d).forward,
    "Camera.to": lambda d: cameras(CPU).to(d),
    "Camera.reshape": lambda d: cameras(d).reshape(3, 1),
    "Camera.resized": lambda d: cameras(d).resized(7, 5),
    "Camera.cropped": lambda d: cameras(d).cropped(1, 2, 3, 4),
    "Camera.transformed": lambda d: cameras(d).transformed(SLANT),
    "Camera.pixel_centers": lambda d: cameras(d).pixel_centers(),
    "Camera.rays": lambda d: cameras(d).rays(),
    "Camera.project": lambda d: cameras(d).project(POINTS.expand(3, -1, -1).to(d)),
    "Camera.depth_per_distance": lambda d: cameras(d).depth_per_distance(cameras(d).rays()),
    "Camera.unproject": lambda d: cameras(d).unproject(torch.ones(3, 10, 14, device=d)),
    "Camera.interpolated": lambda d: [cameras(d).interpolated(5), cameras(d).interpolated(5, closed=True)],
    # boxes, rays, poses, lenses
    "Box.contains": lambda d: BOX.contains(POINTS.to(d)),
    "Box.clip": lambda d: BOX.clip(rays(d)),
    "Rays.reshape": lambda d: rays(d).reshape(3, -1),
    "Rays.to": lambda d: rays(CPU).to(d),
    "Rays.at": lambda d: rays(d).at(torch.ones(420, device=d)),
    "geometry.look_at": lambda d: geometry.look_at(POINTS.to(d), POINTS.to(d) + 1),
    "geometry.invert_pose": lambda d: geometry.invert_pose(cameras(d).world_from_camera),
    "geometry.transform_points": lambda d: geometry.transform_points(SLANT.to(d), POINTS.to(d)),
    "geometry.flip_opencv": lambda d: geometry.flip_opencv(SLANT.to(d)),
    "geometry.interpolate_poses": lambda d: geometry.interpolate_poses(
        cameras(d).world_from_camera, torch.tensor([0.0, 0.3, 1.9])
    ),
    "lens.project": lambda d: lens.project(POINTS.to(d) - 4, features(d, 8) / 50, fisheye=False),
    "lens.unproject": lambda d: lens.unproject(features(d, 9, 2) / 5, features(d, 8) / 50, fisheye=True),
    # appearances
    "Rgb.image": lambda d: Rgb(4).image(features(d, 6, 4), torch.ones(6, device=d), rays(d)[:6]),
    "Rgb.point_color": lambda d: Rgb(4).point_color(features(d, 6, 4), rays(d).directions[:6]),
    "SphericalHarmonics.image": lambda d: SphericalHarmonics(2).image(
        features(d, 6, 27), torch.ones(6, device=d), rays(d)[:6]
    ),
    "SphericalHarmonics.point_color": lambda d: SphericalHarmonics(1).point_color(
        features(d, 6, 12), rays(d).directions[:6]
    ),
    "SphericalHarmonics.change_frame": lambda d: SphericalHarmonics(2).change_frame(
        features(d, 6, 27), SphericalHarmonics(2).rotated(SLANT.to(d)[:3, :3]).frame
    ),
    "spherical_harmonics": lambda d: spherical_harmonics(rays(d).directions, 3),
    "EnvironmentMap.query": lambda d: EnvironmentMap(features(d, 4, 8, 3)).query(rays(d).directions),
    "EnvironmentMap.directions": lambda d: EnvironmentMap(features(d, 4, 8, 3)).directions(),
    "EnvironmentMap.rotated": lambda d: EnvironmentMap(features(d, 4, 8, 3)).rotated(SLANT[:3, :3]),
    "EnvironmentMap.to": lambda d: EnvironmentMap(features(CPU, 4, 8, 3)).to(d),
    "ImageDecoder.image": lambda d: decoder(d).image(
        features(d, 1, 12, 16, 5),
        torch.ones(1, 12, 16, device=d),
        cameras(d)[:1].resized(16, 12).rays(),
        torch.ones(1, 12, 16, device=d),
    ),
    "ImageDecoder.point_color": lambda d: decoder(d).point_color(features(d, 6, 5), rays(d).directions[:6]),
    "ImageDecoder.moved": lambda d: decoder(d).moved(SLANT),
    "ImageDecoder.quick": lambda d: (
        decoder(d)
        .quick()
        .image(
            features(d, 1, 12, 16, 5),
            torch.ones(1, 12, 16, device=d),
            cameras(d)[:1].resized(16, 12).rays(),
            torch.ones(1, 12, 16, device=d),
        )
    ),
    # fields
    "VoxelField.zeros": lambda d: VoxelField.zeros(BOX, (2, 3, 4), 5, d),
    "VoxelField.from_points": lambda d: VoxelField.from_points(POINTS.to(d), features(d, 40, 3), BOX, (3, 4, 5)),
    "VoxelField.to": lambda d: field(CPU).to(d),
    "VoxelField.check": lambda d: field(d).check(),
    "VoxelField.occupied_fraction": lambda d: torch.tensor(field(d).occupied_fraction, device=d),
    "VoxelField.unsigned": lambda d: replace(field(d), density=features(d, 11, 13, 7), signed=True).unsigned(),
    "VoxelField.detach": lambda d: field(d).detach(),
    "VoxelField.query": lambda d: field(d).query(POINTS.to(d)),
    "VoxelField.interpolate": lambda d: field(d).interpolate(POINTS.to(d)),
    "VoxelField.normals": lambda d: field(d).normals(POINTS.to(d)),
    "VoxelField.occupancy": lambda d: field(d).occupancy(),
    "VoxelField.bricks": lambda d: list(field(d).bricks()),
    "VoxelField.brick_mask": lambda d: field(d).brick_mask(),
    "VoxelField.voxel_centers": lambda d: field(d).voxel_centers(),
    "VoxelField.resampled": lambda d: field(d).resampled((4, 5, 6), BOX.scaled(1.2)),
    "VoxelField.query_density": lambda d: field(d).query_density(POINTS.to(d)),
    "VoxelField.integrate": lambda d: field(d).integrate(rays(d), torch.stack(BOX.clip(rays(d)), dim=-1), 0.1, 1e-3),
    "VoxelField.state": lambda d: field(d).state().tensors,
    "VoxelField.from_state": lambda d: VoxelField.from_state(field(d).state()),
    "SparseField.from_dense": lambda d: sparse(d),
    "SparseField.from_points": lambda d: SparseField.from_points(POINTS.to(d), features(d, 40, 3), BOX, (30, 40, 50)),
    "SparseField.to_dense": lambda d: sparse(d).to_dense(),
    "SparseField.pruned": lambda d: sparse(d).pruned(0.1),
    "SparseField.covering": lambda d: sparse(d).covering(0.1),
    "SparseField.subdivided": lambda d: sparse(d).subdivided(),
    "SparseField.to": lambda d: sparse(CPU).to(d),
    "SparseField.check": lambda d: sparse(d).check(),
    "SparseField.occupied_fraction": lambda d: torch.tensor(sparse(d).occupied_fraction, device=d),
    "SparseField.unsigned": lambda d: replace(sparse(d), density=-sparse(d).density, signed=True).unsigned(),
    "SparseField.detach": lambda d: sparse(d).detach(),
    "SparseField.query": lambda d: sparse(d).query(POINTS.to(d)),
    "SparseField.interpolate": lambda d: sparse(d).interpolate(POINTS.to(d)),
    "SparseField.query_density": lambda d: sparse(d).query_density(POINTS.to(d)),
    "SparseField.normals": lambda d: sparse(d).normals(POINTS.to(d)),
    "SparseField.occupancy": lambda d: sparse(d).occupancy(),
    "SparseField.bricks": lambda d: list(sparse(d).bricks()),
    "SparseField.inside": lambda d: sparse(d).inside,
    "SparseField.voxels": lambda d: sparse(d).voxels,
    "SparseField.voxel_centers": lambda d: sparse(d).voxel_centers(),
    "SparseField.integrate": lambda d: sparse(d).integrate(rays(d), torch.stack(BOX.clip(rays(d)), dim=-1), 0.1, 1e-3),
    "SparseField.state": lambda d: sparse(d).state().tensors,
    "SparseField.from_state": lambda d: SparseField.from_state(sparse(d).state()),
    "HashGrid.forward": lambda d: neural(d).encoding(0.1 * POINTS.to(d)),
    "HashGrid.gradient": lambda d: neural(d).encoding.gradient(0.1 * POINTS.to(d), features(d, 40, 4)),
    "HashGrid.grid_levels": lambda d: list(neural(d).encoding.grid_levels),
    "NeuralField.query": lambda d: neural(d).query(POINTS.to(d)),
    "NeuralField.query_density": lambda d: neural(d).query_density(POINTS.to(d)),
    "NeuralField.normals": lambda d: neural(d).normals(POINTS.to(d)),
    "NeuralField.occupancy": lambda d: neural(d).occupancy(),
    "NeuralField.update_occupancy": lambda d: neural(d).cells,
    "NeuralField.to_voxels": lambda d: neural(d).to_voxels((3, 4, 5)),
    "NeuralField.state": lambda d: neural(d).state().tensors,
    "NeuralField.from_state": lambda d: NeuralField.from_state(neural(d).state()).cells,
    "occupied_cells": lambda d: [occupied_cells(field(d)), occupied_cells(make_ball().to(d))],
    "read_innermost": lambda d: read_innermost(
        (make_ball().to(d), field(d)), POINTS.to(d), lambda part, points: part.query(points)[1][:, :3]
    ),
    "split_levels": lambda d: split_levels((make_ball().to(d), field(d)), POINTS.to(d)),
    "require_voxels": lambda d: require_voxels(field(d), "a test"),
    "voxelize": lambda d: [voxelize(make_ball().to(d)), voxelize(make_ball().to(d), BALL_BOX.scaled(0.5))],
    # scenes
    "Scene.to": lambda d: ball(CPU).to(d),
    "Scene.background_color": lambda d: ball(d).background_color(rays(d)),
    "Scene.render": lambda d: ball(d).render(cameras(d), with_normals=True),
    "render": lambda d: render(ball(d), cameras(d), with_normals=True, with_features=True),
    "prepare": lambda d: prepare(ball(d)).occupancies,
    "Renderer.render": lambda d: prepare(ball(d)).render(cameras(d)),
    "Renderer.color": lambda d: prepare(ball(d)).color(rays(d)),
    "find_occupancy": lambda d: [find_occupancy(field(d)), find_occupancy(make_ball().to(d))],
    "integrate": lambda d: [
        integrate(each, rays(d), torch.stack(each.box.clip(rays(d)), dim=-1), 0.1, 1e-3)
        for each in (field(d), make_ball().to(d))
    ],
    "composite": integral,
    "formula.render": lambda d: render(formula(d), cameras(d), with_normals=True),
    "formula.mesh": lambda d: nfldm3d.extract_mesh(formula(d)),
    "formula.edit": lambda d: [
        editing.crop(formula(d), BALL_BOX.scaled(0.5)),
        editing.resample(formula(d), 0.3),
        editing.transform(formula(d), SLANT),
    ],
    "mean_distance": lambda d: mean_distance(integral(d)),
    "shade": lambda d: shade(ball(d), integral(d).features, integral(d).opacity, mean_distance(integral(d)), rays(d)),
    "make_path": lambda d: [
        make_path(ball(d), name, views=2, width=8, height=6) for name in ("orbit", "panorama", "fly")
    ],
    "make_path.outside": lambda d: make_path(replace(ball(d), cameras=None), "orbit", views=2, width=8, height=6),
    "editing.crop": lambda d: editing.crop(ball(d), BOX.scaled(0.6)),
    "editing.resample": lambda d: editing.resample(ball(d), 0.3, BOX.scaled(1.3)),
    "editing.transform": lambda d: [editing.transform(ball(d), motion) for motion in (TURN, SLANT.to(d))],
    "editing.paste": lambda d: editing.paste(ball(d), editing.transform(editing.crop(ball(d), BOX.scaled(0.6)), SLANT)),
    "editing.compose": lambda d: editing.compose(replace(ball(d), surroundings=()), editing.transform(ball(d), SLANT)),
    "extract_mesh": lambda d: nfldm3d.extract_mesh(ball(d), options=MeshOptions(surroundings=True, max_faces=200)),
    "extract_mesh.texture": lambda d: nfldm3d.extract_mesh(ball(d), options=MeshOptions(texture_size=64)).texture,
    "extract_points": lambda d: nfldm3d.extract_points(ball(d), count=30, generator=torch.Generator().manual_seed(0)),
    "extract_splats": lambda d: nfldm3d.export.extract_splats(ball(d)),
    "extract_points.vertices": lambda d: nfldm3d.extract_points(ball(d)),
    # data
    "BevMap.seen_from": lambda d: bev(d).seen_from(POINTS.to(d)),
    "BevMap.picture": lambda d: bev(d).picture(),
    # kernels
    "build_occupancy": lambda d: ops.build_occupancy(field(d).density),
    "build_pool_occupancy": lambda d: ops.build_pool_occupancy(sparse(d).density, sparse(d).map),
    "PoolMap.of": lambda d: ops.PoolMap.of(sparse(d).places, sparse(d).resolution),
    "integrate_rays_in_pool": lambda d: ops.integrate_rays_in_pool(
        sparse(d).density, sparse(d).features, sparse(d).map, rays(d).origins, rays(d).directions, None, march()
    ),
    "interpolate_pool": lambda d: ops.interpolate_pool(
        sparse(d).features, sparse(d).map, POINTS.to(d), (BOX.lower, BOX.upper)
    ),
    "splat_frustums_into_pool": lambda d: ops.splat_frustums_into_pool(
        features(d, 420, 3),
        torch.ones(420, 4, device=d),
        torch.linspace(3, 5, 4, device=d).expand(420, 4),
        rays(d).origins,
        rays(d).directions,
        (BOX.lower, BOX.upper),
        sparse(d).map,
    ),
    "integrate_rays": lambda d: ops.integrate_rays(
        field(d).density, field(d).features, rays(d).origins, rays(d).directions, None, march()
    ),
    "interpolate": lambda d: ops.interpolate(field(d).features, POINTS.to(d), (BOX.lower, BOX.upper)),
    "splat_frustums": lambda d: ops.splat_frustums(
        features(d, 420, 3),
        torch.ones(420, 4, device=d),
        torch.linspace(3, 5, 4, device=d).expand(420, 4),
        rays(d).origins,
        rays(d).directions,
        (BOX.lower, BOX.upper),
        (3, 4, 5),
    ),
    "optimise": optimised,
    # evaluation
    "psnr": lambda d: metrics.psnr(features(d, 2, 3, 9, 8), features(d, 2, 3, 9, 8).flip(0), features(d, 2, 9, 8) > 0),
    "ssim": lambda d: metrics.ssim(features(d, 2, 3, 9, 8), features(d, 2, 3, 9, 8).flip(0)),
    "sharpness": lambda d: metrics.sharpness(features(d, 2, 3, 9, 8), features(d, 2, 3, 9, 8).flip(0)),
    "frechet_distance": lambda d: distributions.frechet_distance(features(d, 9, 4), 2 * features(d, 8, 4)),
    "kernel_distance": lambda d: distributions.kernel_distance(
        features(d, 9, 4), 2 * features(d, 8, 4), subsets=2, size=5, generator=torch.Generator().manual_seed(0)
    ),
    "measure_coverage": lambda d: torch.tensor(
        list(vars(distributions.measure_coverage(features(d, 9, 4), 2 * features(d, 8, 4))).values()), device=d
    ),
    "intersection_over_union": lambda d: distributions.intersection_over_union(
        bev(d).classes.long()[None], bev(d).classes.long()[None].flip(1), 3
    ),
}
"""What is called; results stay on the device of the arguments."""

ON_THE_CPU: dict[str, Call] = {
    "PosedImages.from_tensors": lambda d: [posed(d).camera, posed(d).load_images()],
    "PosedImages.groups": lambda d: [group.camera for group in posed(d).groups()],
    "PosedImages.resized": lambda d: posed(d).resized(7, 5).camera,
    "PosedImages.downscaled": lambda d: posed(d).downscaled(2).load_images(),
    "PosedImages.split": lambda d: posed(d).split(2)[0].camera,
    "PosedImages.load_images": lambda d: posed(d).load_images(),
    "PosedImages.load_depth": lambda d: posed(d).load_depth(),
    "PosedImages.load_masks": lambda d: posed(d).load_masks(),
    "PosedImages.load_alpha": lambda d: posed(d).load_alpha(),
    "PosedImages.load_labels": lambda d: posed(d).load_labels(),
    "estimate_boxes": lambda d: torch.tensor([*estimate_boxes(posed(d))[0].size]),
    "Box.around": lambda d: torch.tensor([*Box.around(POINTS.to(d)).size]),
}
"""Captures live in CPU memory, whatever they were made from; boxes are plain numbers."""


FILES: dict[str, Callable[[torch.device, Path], object]] = {
    "Scene.save": lambda d, path: ball(d).save(path / "scene.nfld"),
    "Scene.save.decoder": lambda d, path: decoded(d).save(path / "decoded.nfld"),
    "PosedImages.save": lambda d, path: replace(posed(d), bev=bev(d)).save(path / "capture"),
    "Scene.export": lambda d, path: ball(d).export(path / "scene.glb"),
    "export_scene": lambda d, path: nfldm3d.export.export_scene(ball(d), path / "scene.nvdb"),
    "export_mesh": lambda d, path: [nfldm3d.export_mesh(ball(d), path / f"mesh.{kind}") for kind in ("glb", "usda")],
    "export_mesh.cameras": lambda d, path: nfldm3d.export_mesh(ball(d), path / "mesh.usdc", cameras=cameras(d)),
    "export_mesh.plain": lambda d, path: [
        nfldm3d.export_mesh(ball(d), path / f"mesh.{kind}") for kind in ("obj", "ply")
    ],
    "export_splats": lambda d, path: nfldm3d.export.export_splats(ball(d), path / "splats.ply"),
    "export_points": lambda d, path: nfldm3d.export_points(ball(d), path / "points.ply", count=25),
    "export_volume": lambda d, path: [
        nfldm3d.export_volume(ball(d), path / f"volume.{kind}") for kind in ("nvdb", "vdb")
    ],
    "export_cameras": lambda d, path: nfldm3d.export.export_cameras(cameras(d), path / "cameras.usda"),
    "render_video": lambda d, path: nfldm3d.render_video(
        ball(d), make_path(ball(d), "orbit", views=2, width=16, height=16), path / "video.gif", progress=False
    ),
}


def decoded(device: torch.device) -> Scene:
    """A scene that is shown by a network."""
    return Scene(replace(field(device), features=features(device, 11, 13, 7, 5)), decoder(device))
