# pyright: basic, reportInvalidTypeForm=false, reportIndexIssue=false, reportAttributeAccessIssue=false, reportOperatorIssue=false, reportArgumentType=false, reportCallIssue=false
# ruff: noqa: UP018 -- bool(True) tells Warp that a variable changes in a loop
"""Warp functions that take a ray through one cell: what its samples absorb, and the slopes of that, going back.

They see the cell's eight densities alone, so that grids of any layout share them; see ``march_kernels`` for the
equations.
"""

import typing

import warp as wp

from nfldm3d.ops.grid_functions import cell_of, corner_shares, vec8
from nfldm3d.ops.ray_functions import Ray, absorbed, position_of


@wp.struct
@typing.no_type_check
class Passage:
    """What a ray has summed up before sample k, and what the cell that it left last has added."""

    k: int
    transmittance: float
    opacity: float
    moment: float  # sum of w * (t - near)
    spread: float
    squares: float
    weights: vec8  # summed over the samples in the cell, for each of its corners
    visible: bool  # whether the cell absorbed anything


@wp.func
@typing.no_type_check
def cross_cell(
    ray: Ray, cell: wp.vec3i, shape: wp.vec3i, densities: vec8, step: float, early_stop: float, before: Passage
) -> Passage:
    """The passage after the samples of a ray that lie in ``cell``, the first of which is ``before.k``."""
    k = int(before.k)
    transmittance = float(before.transmittance)
    opacity = float(before.opacity)
    moment = float(before.moment)
    spread = float(before.spread)
    squares = float(before.squares)
    weights = vec8()
    visible = bool(False)
    inside = bool(True)
    position = position_of(ray, k)
    while inside and transmittance >= early_stop:
        shares = corner_shares(position, cell, shape)
        extinction = wp.dot(shares, densities)
        if extinction > 0.0:
            alpha = absorbed(extinction * step)
            weight = transmittance * alpha
            t = (float(k) + 0.5) * step
            spread += weight * (t * opacity - moment)
            squares += weight * weight
            opacity += weight
            moment += weight * t
            transmittance *= 1.0 - alpha
            weights += weight * shares
            visible = True
        k += 1
        position = position_of(ray, k)
        inside = k < ray.end and cell_of(position, shape) == cell
    after = Passage()
    after.k = k
    after.transmittance = transmittance
    after.opacity = opacity
    after.moment = moment
    after.spread = spread
    after.squares = squares
    after.weights = weights
    after.visible = visible
    return after


@wp.struct
@typing.no_type_check
class Totals:
    """What the forward pass knows of a ray, and the gradients of its sums."""

    opacity: float
    moment: float
    grad_opacity: float
    grad_distance: float
    grad_distortion: float


@wp.struct
@typing.no_type_check
class Return:
    """What a ray's way back needs before sample k, and what the cell that it left last has added."""

    k: int
    transmittance: float
    passed: float  # sum of w
    moment: float  # sum of w * (t - near)
    behind: float  # sum of w * v over what is left
    weights: vec8  # factors of the feature gradient, for each of the cell's corners
    slopes: vec8  # addends of the density gradient
    visible: bool


@wp.func
@typing.no_type_check
def cross_cell_back(
    ray: Ray,
    cell: wp.vec3i,
    shape: wp.vec3i,
    densities: vec8,
    products: vec8,
    step: float,
    early_stop: float,
    totals: Totals,
    before: Return,
) -> Return:
    """As ``cross_cell``, for gradients; ``products`` are those of the corners' features with the ray's gradient."""
    k = int(before.k)
    transmittance = float(before.transmittance)
    passed = float(before.passed)
    moment = float(before.moment)
    behind = float(before.behind)
    weights = vec8()
    slopes = vec8()
    visible = bool(False)
    inside = bool(True)
    position = position_of(ray, k)
    while inside and transmittance >= early_stop:
        shares = corner_shares(position, cell, shape)
        extinction = wp.dot(shares, densities)
        if extinction > 0.0:
            alpha = absorbed(extinction * step)
            weight = transmittance * alpha
            t = (float(k) + 0.5) * step
            spread = 2.0 * (t * (2.0 * passed + weight - totals.opacity) - (2.0 * moment + weight * t - totals.moment))
            value = (
                wp.dot(shares, products)
                + totals.grad_opacity
                + totals.grad_distance * (ray.near + t)
                + totals.grad_distortion * (spread + 2.0 / 3.0 * step * weight)
            )
            passed += weight
            moment += weight * t
            transmittance *= 1.0 - alpha
            behind -= weight * value
            weights += weight * shares
            slopes += step * (transmittance * value - behind) * shares
            visible = True
        k += 1
        position = position_of(ray, k)
        inside = k < ray.end and cell_of(position, shape) == cell
    after = Return()
    after.k = k
    after.transmittance = transmittance
    after.passed = passed
    after.moment = moment
    after.behind = behind
    after.weights = weights
    after.slopes = slopes
    after.visible = visible
    return after
