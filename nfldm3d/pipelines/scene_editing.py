"""Editing by sampling again: parts of a scene made anew, and scenes that grow beyond their box."""

from dataclasses import dataclass, replace
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional
from tqdm.auto import tqdm

from nfldm3d._moved import warn_renamed
from nfldm3d.camera import Camera
from nfldm3d.fields import VoxelField, grid_resolution, require_voxels, voxelize
from nfldm3d.geometry import Box
from nfldm3d.image_decoder import ImageDecoder
from nfldm3d.models.nfldm.scene_voxels import Voxels, background_of, field_of
from nfldm3d.models.nfldm.trajectories import POSES, path_cameras, path_past, unpack_path
from nfldm3d.models.nfldm.views import Views, cubic_box
from nfldm3d.pipelines.encoding import fingerprint
from nfldm3d.pipelines.hierarchy import Hierarchy
from nfldm3d.pipelines.sampling import Kept, Sampler, split_generator
from nfldm3d.pipelines.scene_coding import PICTURE, SceneCoder
from nfldm3d.pipelines.scene_latents import SceneLatents
from nfldm3d.pipelines.windows import window_starts, window_weight
from nfldm3d.placement import keep_motion
from nfldm3d.rendering import render
from nfldm3d.scene import Scene

MOST_WINDOWS = 64
MARGIN = 4
"""Voxels around a region over which old and new are blended."""
LOOKS, SIGHT, HEADINGS = 24, 64, 8
"""Views of a scene that it is encoded from, pixels along each of their sides, and the directions they take in turn."""


@dataclass(frozen=True)
class Editor:
    """Networks of a scene generator, and how they sample."""

    coder: SceneCoder
    hierarchy: Hierarchy
    sampler: Sampler
    generator: torch.Generator | None = None


def resample(editor: Editor, scene: Scene, region: Box) -> Scene:
    """See ``SceneGenerator.edit``.

    The coarse latent is sampled where its cells meet the region, the fine one in the columns above and below them; g
    stays. Because a decoder's answer is global, old and new fields are blended over ``MARGIN`` voxels.
    """
    if not bool(_covered(scene.box, region, grid_resolution(scene.field)).any()):
        raise ValueError(f"the region {region} lies outside the scene, which fills {scene.box}; choose a box within it")
    scene, made = adopt(editor.coder, scene)
    box, field = scene.box, require_voxels(scene.field, "an adopted scene")
    cells = editor.coder.latent_autoencoder.config["downsampling"]
    inside = _covered(box, region, field.resolution)
    hierarchy, sampler = editor.hierarchy, editor.sampler
    g, c, f = hierarchy.fold(made)
    new_cells = functional.max_pool3d(inside.float()[None, None], cells)[0, 0].to(c.device)  # (x y z)
    folded = new_cells.movedim(-1, 0).repeat(c.shape[1] // new_cells.shape[-1], 1, 1)  # channel * heights + height
    columns = new_cells.amax(-1).repeat_interleave(cells, 0).repeat_interleave(cells, 1)
    draws = split_generator(editor.generator, 1)
    new_c = hierarchy.sample_grid("c", sampler, draws, g, None, kept=Kept(c, (1 - folded)[None]))
    new_f = hierarchy.sample_grid("f", sampler, draws, g, new_c, kept=Kept(f, (1 - columns).expand_as(f)))
    latents = hierarchy.unfold(g, new_c, new_f)
    (fresh,) = editor.coder.decode(latents, box)
    share = _soften(inside.float(), MARGIN).to(field.device)
    blended = _blend(field, require_voxels(fresh.field, "a decoded scene").to(field.device), share)
    extras = {name: value.to(field.device) for name, value in fresh.extras.items()}
    return editor.coder.note(replace(scene, field=blended, extras=scene.extras | extras))


def extend(editor: Editor, windows: tuple[int, int], scene: Scene | None = None) -> Scene:
    """See ``SceneGenerator.grow``.

    At every step the latents are the weighted mean of what each window makes of them, so neighbours agree; the decoded
    windows are blended in the same way. The g of all windows is one.
    """
    if min(windows) < 1 or max(windows) > MOST_WINDOWS:
        raise ValueError(f"a world needs at least one window along x and y, and {MOST_WINDOWS} at most, got {windows}")
    coder, hierarchy, sampler = editor.coder, editor.hierarchy, editor.sampler
    draws, kept_c, kept_f = split_generator(editor.generator, 1), None, None
    box = coder.box
    if scene is None:
        g = hierarchy.sample_g(sampler, draws)
    else:
        scene, made = adopt(coder, scene)
        box = scene.box
        g, c, f = hierarchy.fold(made)
        kept_c, kept_f = (_in_the_middle(values, windows) for values in (c, f))
    c = hierarchy.sample_grid("c", sampler, draws, g, None, kept=kept_c, windows=windows)
    f = hierarchy.sample_grid("f", sampler, draws, g, c, kept=kept_f, windows=windows)
    voxels, corner = _decode_windows(hierarchy, (g, c, f), windows, sampler.progress)
    (x, y, _), size = voxels.occupancy.shape, box.voxel_size(coder.scene_autoencoder.grid)
    lower = tuple(box.lower[axis] - corner[axis] * size[axis] for axis in (0, 1))
    world = Box((*lower, box.lower[2]), (lower[0] + x * size[0], lower[1] + y * size[1], box.upper[2]))  # type: ignore[arg-type]
    background = background_of(voxels, coder.scene_autoencoder.sky_code)
    cameras = None if scene is None else scene.cameras
    if cameras is None:
        cameras = path_cameras(unpack_path(g[0, -5 * POSES :], box), PICTURE, PICTURE)
    cameras = cameras.to(voxels.occupancy.device)
    grown = coder.networks.assemble(field_of(voxels, world), background, cameras)
    return grown if scene is None else replace(grown, metric=scene.metric, metadata=keep_motion(scene.metadata))


def resample_region(
    generator: Any,
    scene: Scene,
    region: Box,
    *,
    seed: torch.Generator | None = None,
    num_inference_steps: int = 40,
    rounds: int = 1,
    scheduler: object = None,
) -> Scene:
    """The old name of ``SceneGenerator.edit``."""
    warn_renamed("scene_editing.resample_region", "SceneGenerator.edit(scene, box, generator=...)")
    steps = num_inference_steps
    return generator.edit(scene, region, num_inference_steps=steps, rounds=rounds, scheduler=scheduler, generator=seed)


def grow_world(
    generator: Any,
    windows: tuple[int, int] = (3, 3),
    *,
    scene: Scene | None = None,
    seed: torch.Generator | None = None,
    num_inference_steps: int = 40,
    scheduler: object = None,
) -> Scene:
    """The old name of ``SceneGenerator.grow``."""
    warn_renamed("scene_editing.grow_world", "SceneGenerator.grow(windows, generator=...)")
    steps = num_inference_steps
    return generator.grow(windows, scene=scene, num_inference_steps=steps, scheduler=scheduler, generator=seed)


@torch.no_grad()
def adopt(coder: SceneCoder, scene: Scene) -> tuple[Scene, SceneLatents]:
    """A scene that these networks could have made, and its latents.

    A scene that they have made or encoded is taken as it is. Any other one is encoded from pictures of it and decoded,
    which costs sharpness; its box grows until its voxels are cubes. Cameras and scale stay those of the scene.
    """
    made = coder.recall(scene)
    if made is not None:
        return scene, made
    made = encode_scene(coder, scene)
    grid, decoder = coder.scene_autoencoder.grid, coder.scene_autoencoder.decoder
    own = isinstance(scene.appearance, ImageDecoder) and fingerprint(scene.appearance) == fingerprint(decoder)
    if own and isinstance(scene.field, VoxelField) and scene.field.resolution == grid:
        return scene, made
    decoded = coder.decode(made, cubic_box(scene.box, grid))[0]
    cameras = decoded.cameras if scene.cameras is None else scene.cameras.to(decoded.device)
    metadata = scene.metadata | decoded.metadata
    return replace(decoded, cameras=cameras, metric=scene.metric, metadata=metadata), made


@torch.no_grad()
def encode_scene(coder: SceneCoder, scene: Scene) -> SceneLatents:
    """The latents of any scene, from level views at open places spread over it."""
    cameras = look_around(scene)
    pictures = render(scene.to("cpu"), cameras)
    depth = torch.where(pictures.opacity > 0.5, pictures.depth, 0.0)
    path = None if scene.cameras is None else path_past(scene.cameras.reshape(-1).to("cpu"))
    return coder.encode(Views(pictures.image, cameras, depth if bool(depth.any()) else None), scene.box, path)


def look_around(scene: Scene) -> Camera:
    """Level cameras at open places of a scene: each far from walls and from the cameras before it."""
    field = voxelize(scene.field).to("cpu").unsigned()
    open_air = functional.max_pool3d((field.density > 0).float()[None, None], 3, 1, 1)[0, 0] == 0
    places = field.voxel_centers()[open_air]
    grounded = (field.density > 0).cummax(2).values[open_air]  # matter underneath
    places = places[grounded] if bool(grounded.any()) else places
    if len(places) == 0:
        places = torch.tensor(scene.box.center)[None]
    chosen = [places[len(places) // 2]]
    distance = (places - chosen[0]).norm(dim=-1)
    for _ in range(LOOKS - 1):
        chosen.append(places[int(distance.argmax())])
        distance = distance.minimum((places - chosen[-1]).norm(dim=-1))
    eyes = torch.stack(chosen)
    angle = torch.arange(LOOKS) * (2 * torch.pi * 3 / HEADINGS)  # neighbours in time look far apart
    ahead = torch.stack((angle.cos(), angle.sin(), torch.zeros(LOOKS)), dim=-1)
    return Camera.look_at(eyes, eyes + ahead, width=SIGHT, height=SIGHT, horizontal_fov_degrees=90.0)


def _covered(box: Box, region: Box, resolution: tuple[int, int, int]) -> Tensor:
    """Which voxels have their centre in a region; along an axis where none has, the one around the region's middle."""
    axes = []
    for axis, count in enumerate(resolution):
        size = (box.upper[axis] - box.lower[axis]) / count
        center = box.lower[axis] + (torch.arange(count) + 0.5) * size
        lower, upper = max(region.lower[axis], box.lower[axis]), min(region.upper[axis], box.upper[axis])
        chosen = (center >= lower) & (center <= upper)
        if lower < upper and not bool(chosen.any()):
            chosen[min(int(((lower + upper) / 2 - box.lower[axis]) / size), count - 1)] = True
        axes.append(chosen)
    x, y, z = axes
    return x[:, None, None] & y[:, None] & z


def _soften(inside: Float[Tensor, "x y z"], margin: int) -> Float[Tensor, "x y z"]:
    """1 inside, falling to 0 over ``margin`` voxels around."""
    grown = inside[None, None]
    total = grown.clone()
    for _ in range(margin):
        grown = functional.max_pool3d(grown, 3, 1, 1)
        total = total + grown
    return total[0, 0] / (margin + 1)


def _blend(old: VoxelField, new: VoxelField, share: Float[Tensor, "x y z"]) -> VoxelField:
    """V = share * new + (1 - share) * old; both stay what they are where the share is 0 or 1."""
    density = torch.where(share == 0, old.density, torch.lerp(old.density, new.density, share))
    weight = share[..., None]
    features = torch.where(weight == 0, old.features, torch.lerp(old.features, new.features, weight))
    return VoxelField(density, features, old.box, old.signed or new.signed)


def _in_the_middle(values: Float[Tensor, "1 channels x y"], windows: tuple[int, int]) -> Kept:
    """A larger grid that holds the given one in its middle, as nearly as windows allow, and nothing else."""
    parts = _middle(values, windows)
    shape = [size + (count - 1) * size // 2 for size, count in zip(values.shape[-2:], windows, strict=True)]
    canvas = values.new_zeros(*values.shape[:2], *shape)
    share = torch.zeros_like(canvas)
    canvas[parts], share[parts] = values, 1.0
    return Kept(canvas, share)


def _middle(values: Tensor, windows: tuple[int, int], size: int | None = None) -> tuple:
    size = values.shape[-1] if size is None else size
    x, y = ((count - 1) // 2 * size // 2 for count in windows)
    return (..., slice(x, x + size), slice(y, y + size))


def _decode_windows(
    hierarchy: Hierarchy, levels: tuple[Tensor, Tensor, Tensor], windows: tuple[int, int], progress: bool
) -> tuple[Voxels, tuple[int, int]]:
    """The voxels of a larger grid, the weighted mean over windows; and where the middle window begins."""
    coder, (g, c, f) = hierarchy.latent_autoencoder, levels
    size = int(coder.config["resolution"][0])
    coarse, weight = size // int(coder.config["downsampling"]), window_weight(size).to(c)
    occupancy = features = weights = sky = None
    starts = list(zip(window_starts(windows, size), window_starts(windows, coarse), strict=True))
    for (x, y), (u, v) in tqdm(starts, desc="decode windows", leave=False, disable=not progress):
        part_c = c[..., u : u + coarse, v : v + coarse]
        made = hierarchy.unfold(g, part_c, f[..., x : x + size, y : y + size])
        voxels = coder.decode(coder.quantize(made.latents)[0])[0]
        if occupancy is None:
            shape = [size + (count - 1) * size // 2 for count in windows]
            occupancy = voxels.occupancy.new_zeros(*shape, coder.heights)
            features = voxels.features.new_zeros(*shape, coder.heights, voxels.features.shape[-1])
            weights, sky = occupancy.new_zeros(shape), voxels.sky
        assert features is not None and weights is not None
        part = (slice(x, x + size), slice(y, y + size))
        occupancy[part] += weight[..., None] * voxels.occupancy
        features[part] += weight[..., None, None] * voxels.features
        weights[part] += weight
    assert occupancy is not None and features is not None and weights is not None and sky is not None
    whole = Voxels(occupancy / weights[..., None], features / weights[..., None, None], sky)
    middle = _middle(occupancy, windows, size)
    return whole, (middle[1].start, middle[2].start)
