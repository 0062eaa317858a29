"""nerfacc's native functions under their own names and signatures, from Warp kernels, for CPU and CUDA tensors.

Signatures follow nerfacc.cpp of nerfacc 0.5.3 (``v052``: of 0.5.2), because nerfacc calls them by position.
"""

import torch
from jaxtyping import Bool, Float, Int, Int64
from torch import Tensor

from nfldm3d.interop.nerfacc_segments import RaySegmentsSpec, pack, pack_intervals, rows_of, values_of
from nfldm3d.ops.resampling import sample_rows, search_rows
from nfldm3d.ops.segments import running_product, running_product_adjoint, running_sum
from nfldm3d.ops.traversal import (
    Crossings,
    NestedGrids,
    RayStretches,
    Stepping,
    intersect_boxes,
    traverse_grids as traverse,
)
from nfldm3d.ops.undistortion import COEFFICIENTS, undistort_points


def ray_aabb_intersect(
    rays_o: Float[Tensor, "rays 3"],
    rays_d: Float[Tensor, "rays 3"],
    aabbs: Float[Tensor, "boxes 6"],
    near_plane: float,
    far_plane: float,
    miss_value: float,
) -> tuple[Float[Tensor, "rays boxes"], Float[Tensor, "rays boxes"], Bool[Tensor, "rays boxes"]]:
    """Where rays enter and leave boxes, and whether they do."""
    return intersect_boxes(rays_o, rays_d, aabbs, near=float(near_plane), far=float(far_plane), miss=float(miss_value))


def traverse_grids(
    rays_o: Float[Tensor, "rays 3"],
    rays_d: Float[Tensor, "rays 3"],
    rays_mask: Bool[Tensor, " rays"],
    binaries: Bool[Tensor, "grids x y z"],
    aabbs: Float[Tensor, "grids 6"],
    t_sorted: Float[Tensor, "rays crossings"],
    t_indices: Int64[Tensor, "rays crossings"],
    hits: Bool[Tensor, "rays grids"],
    near_planes: Float[Tensor, " rays"],
    far_planes: Float[Tensor, " rays"],
    step_size: float,
    cone_angle: float,
    compute_intervals: bool,
    compute_samples: bool,
    compute_terminate_planes: bool,
    traverse_steps_limit: int,
    over_allocate: bool,
) -> tuple[RaySegmentsSpec, RaySegmentsSpec, Float[Tensor, " rays"] | None]:
    """The intervals and samples of rays in occupied cells, and where their walks ended; see ``ops.traversal``.

    Unlike nerfacc's own, it heeds ``rays_mask`` without ``over_allocate``, too, and the planes of rays that are left
    out or find nothing are never undefined.
    """
    found = traverse(
        RayStretches(rays_o, rays_d, near_planes, far_planes, rays_mask),
        NestedGrids(binaries, aabbs),
        Crossings(t_sorted, t_indices, hits),
        Stepping(float(step_size), float(cone_angle), traverse_steps_limit),
        in_one_pass=over_allocate,
    )
    intervals, samples = RaySegmentsSpec(), RaySegmentsSpec()
    if compute_intervals:
        intervals = pack(found.edges, found.edge_counts, found.edge_rays)
        intervals.is_left, intervals.is_right = found.is_left, found.is_right
    if compute_samples:
        samples = pack(found.middles, found.sample_counts, found.sample_rays)
        samples.is_valid = found.is_valid
    return intervals, samples, found.ends if compute_terminate_planes else None


def traverse_grids_v052(
    rays_o: Float[Tensor, "rays 3"],
    rays_d: Float[Tensor, "rays 3"],
    binaries: Bool[Tensor, "grids x y z"],
    aabbs: Float[Tensor, "grids 6"],
    t_mins: Float[Tensor, "rays grids"],
    t_maxs: Float[Tensor, "rays grids"],
    hits: Bool[Tensor, "rays grids"],
    near_planes: Float[Tensor, " rays"],
    far_planes: Float[Tensor, " rays"],
    step_size: float,
    cone_angle: float,
    compute_intervals: bool,
    compute_samples: bool,
) -> tuple[RaySegmentsSpec, RaySegmentsSpec]:
    """The same for nerfacc 0.5.2, which leaves the sorting of the crossings to its backend."""
    t_sorted, t_indices = torch.sort(torch.cat([t_mins, t_maxs], dim=-1), dim=-1)
    mask = torch.ones(len(rays_o), dtype=torch.bool, device=rays_o.device)
    rays, grids, crossings = (rays_o, rays_d, mask), (binaries, aabbs), (t_sorted, t_indices, hits)
    stepping, wanted = (step_size, cone_angle), (compute_intervals, compute_samples, False)
    found = traverse_grids(*rays, *grids, *crossings, near_planes, far_planes, *stepping, *wanted, -1, False)
    return found[0], found[1]


def inclusive_sum(
    chunk_starts: Int64[Tensor, " chunks"],
    chunk_cnts: Int64[Tensor, " chunks"],
    inputs: Float[Tensor, " n"],
    normalize: bool,
    backward: bool,
) -> Float[Tensor, " n"]:
    """Running sums of each chunk; ``backward`` gives their gradient."""
    _refuse_normalized_gradient(normalize, backward)
    return running_sum(inputs, chunk_starts, chunk_cnts, reverse=backward, normalize=normalize)


def exclusive_sum(
    chunk_starts: Int64[Tensor, " chunks"],
    chunk_cnts: Int64[Tensor, " chunks"],
    inputs: Float[Tensor, " n"],
    normalize: bool,
    backward: bool,
) -> Float[Tensor, " n"]:
    """Sums of each chunk before each element; ``backward`` gives their gradient."""
    _refuse_normalized_gradient(normalize, backward)
    return running_sum(inputs, chunk_starts, chunk_cnts, exclusive=True, reverse=backward, normalize=normalize)


def inclusive_prod_forward(
    chunk_starts: Int64[Tensor, " chunks"], chunk_cnts: Int64[Tensor, " chunks"], inputs: Float[Tensor, " n"]
) -> Float[Tensor, " n"]:
    """Running products of each chunk."""
    return running_product(inputs, chunk_starts, chunk_cnts)


def inclusive_prod_backward(
    chunk_starts: Int64[Tensor, " chunks"],
    chunk_cnts: Int64[Tensor, " chunks"],
    inputs: Float[Tensor, " n"],
    outputs: Float[Tensor, " n"],
    grad_outputs: Float[Tensor, " n"],
) -> Float[Tensor, " n"]:
    """Their gradient, which is right where inputs are zero, too; it does not need ``outputs``."""
    return running_product_adjoint(inputs, chunk_starts, chunk_cnts, grad_outputs)


def exclusive_prod_forward(
    chunk_starts: Int64[Tensor, " chunks"], chunk_cnts: Int64[Tensor, " chunks"], inputs: Float[Tensor, " n"]
) -> Float[Tensor, " n"]:
    """Products of each chunk before each element."""
    return running_product(inputs, chunk_starts, chunk_cnts, exclusive=True)


def exclusive_prod_backward(
    chunk_starts: Int64[Tensor, " chunks"],
    chunk_cnts: Int64[Tensor, " chunks"],
    inputs: Float[Tensor, " n"],
    outputs: Float[Tensor, " n"],
    grad_outputs: Float[Tensor, " n"],
) -> Float[Tensor, " n"]:
    """Their gradient, which is right where inputs are zero, too; it does not need ``outputs``."""
    return running_product_adjoint(inputs, chunk_starts, chunk_cnts, grad_outputs, exclusive=True)


def searchsorted(
    query: RaySegmentsSpec, key: RaySegmentsSpec
) -> tuple[Int64[Tensor, "*queries"], Int64[Tensor, "*queries"]]:
    """The neighbours of each query among its ray's keys: positions in the ray if queries have rows, else in ``vals``.

    Raises:
        ValueError: queries and keys are not of the same number of rays, or say nothing about rays.
    """
    values = values_of(query)
    rows = rows_of(key)
    if values.dim() > 1:
        batch = values[..., 0].numel()
        if batch != len(rows.starts):
            raise ValueError(f"values are of {batch} rays, sorted_sequence is of {len(rows.starts)}: they must match")
        rays = torch.arange(batch, device=values.device).repeat_interleave(values.shape[-1])
    elif query.ray_indices is not None:
        rays = query.ray_indices.long()
    else:
        places = torch.arange(len(values), device=values.device)
        rays = torch.searchsorted(rows_of(query).starts, places, right=True) - 1
    lefts, rights = search_rows(values.reshape(-1), rays, rows, relative=values.dim() > 1)
    return lefts.view(values.shape), rights.view(values.shape)


def importance_sampling(
    ray_segments: RaySegmentsSpec,
    cdfs: Float[Tensor, "*segments"],
    n_intervels_per_ray: Int[Tensor, "*rays"] | int,
    stratified: bool,
) -> tuple[RaySegmentsSpec, RaySegmentsSpec]:
    """New intervals and samples where the distribution rises; ``stratified`` shifts each ray's by torch's generator.

    One number of intervals for all rays gives rows, a tensor of numbers flat results.

    Raises:
        ValueError: an int below 1, or as many numbers as there are no rays.
    """
    values, rows = values_of(ray_segments), rows_of(ray_segments)
    device, number = values.device, len(rows.starts)
    shifts = torch.rand(number, device=device) if stratified else torch.full((number,), 0.5, device=device)
    if isinstance(n_intervels_per_ray, Tensor):
        counts = n_intervels_per_ray.reshape(-1).to(torch.int64).clamp(min=0)
        if len(counts) != number:
            raise ValueError(f"n_intervals_per_ray has {len(counts)} numbers, but there are {number} rays")
        samples, edges = sample_rows(rows, cdfs.reshape(-1), torch.where(rows.counts > 0, counts, 0), shifts)
        return pack_intervals(edges), pack(samples.values, samples.counts)
    if n_intervels_per_ray < 1:
        raise ValueError(f"n_intervals_per_ray must be at least 1, got {n_intervels_per_ray}")
    counts = torch.full((number,), n_intervels_per_ray, device=device)
    samples, edges = sample_rows(rows, cdfs.reshape(-1), counts, shifts)
    batch = values.shape[:-1] if values.dim() > 1 else (number,)
    return (
        RaySegmentsSpec(vals=edges.values.view(*batch, n_intervels_per_ray + 1)),
        RaySegmentsSpec(vals=samples.values.view(*batch, n_intervels_per_ray)),
    )


def opencv_lens_undistortion(
    uv: Float[Tensor, "*points 2"], params: Float[Tensor, "*points coefficients"], eps: float, max_iterations: int
) -> Float[Tensor, "*points 2"]:
    """Undistorted coordinates; params are k1 k2 p1 p2 k3, or k1 k2 p1 p2 k3 k4 k5 k6, or k1 to k6 p1 p2 s1 to s4.

    Raises:
        ValueError: another number of coefficients.
    """
    if params.shape[-1] not in (5, 8, COEFFICIENTS):
        raise ValueError(f"params must hold 5, 8 or 12 coefficients, got {params.shape[-1]}")
    lenses = params.reshape(-1, params.shape[-1])
    if params.shape[-1] < COEFFICIENTS:
        lenses = torch.nn.functional.pad(lenses, (0, COEFFICIENTS - params.shape[-1]))
        lenses = lenses[:, [0, 1, 4, 5, 6, 7, 2, 3, 8, 9, 10, 11]]
    points = uv.reshape(-1, 2)
    return undistort_points(points, lenses, tolerance=float(eps), steps=max_iterations).view(uv.shape)


def opencv_lens_undistortion_fisheye(
    uv: Float[Tensor, "*points 2"], params: Float[Tensor, "*points 4"], criteria_eps: float, criteria_iters: int
) -> Float[Tensor, "*points 2"]:
    """Undistorted coordinates; params are k1 to k4, points for which there is no angle become zero."""
    points, lenses = uv.reshape(-1, 2), params.reshape(-1, 4)
    found = undistort_points(points, lenses, fisheye=True, tolerance=float(criteria_eps), steps=criteria_iters)
    return found.view(uv.shape)


def _refuse_normalized_gradient(normalize: bool, backward: bool) -> None:
    if normalize and backward:
        raise ValueError("normalised sums have no gradient here: normalize after the sum, by its last element")
