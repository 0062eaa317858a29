# pyright: basic, reportInvalidTypeForm=false, reportIndexIssue=false, reportAttributeAccessIssue=false, reportOperatorIssue=false, reportArgumentType=false, reportCallIssue=false
"""Warp kernels that undo OpenCV's lens distortion by Newton's method, one thread a point."""

import typing

import warp as wp

wp.set_module_options({"enable_backward": False})

QUARTER_TURN = wp.constant(1.5707963)
ROUNDING = wp.constant(1.0e-6)  # of an angle: float32 comes no closer


@wp.kernel(grid_stride=False)
@typing.no_type_check
def undistort_points(
    offset: int,
    points: wp.array2d(dtype=float),
    lenses: wp.array2d(dtype=float),
    tolerance: float,
    steps: int,
    results: wp.array2d(dtype=float),
):
    """Solves for point ``offset`` + tid; a lens is k1 to k6, p1, p2, and the thin prism's s1 to s4."""
    index = offset + wp.tid()
    k1, k2, k3 = lenses[index, 0], lenses[index, 1], lenses[index, 2]
    k4, k5, k6 = lenses[index, 3], lenses[index, 4], lenses[index, 5]
    p1, p2 = lenses[index, 6], lenses[index, 7]
    s1, s2, s3, s4 = lenses[index, 8], lenses[index, 9], lenses[index, 10], lenses[index, 11]
    x = float(points[index, 0])
    y = float(points[index, 1])
    left = int(steps)
    while left > 0:
        left -= 1
        r2 = x * x + y * y
        below = 1.0 + r2 * (k4 + r2 * (k5 + r2 * k6))
        radial = (1.0 + r2 * (k1 + r2 * (k2 + r2 * k3))) / below
        slope = (k1 + r2 * (2.0 * k2 + 3.0 * r2 * k3) - radial * (k4 + r2 * (2.0 * k5 + 3.0 * r2 * k6))) / below
        fx = x * radial + 2.0 * p1 * x * y + p2 * (r2 + 2.0 * x * x) + r2 * (s1 + r2 * s2) - points[index, 0]
        fy = y * radial + 2.0 * p2 * x * y + p1 * (r2 + 2.0 * y * y) + r2 * (s3 + r2 * s4) - points[index, 1]
        across = 2.0 * x * y * slope + 2.0 * p1 * x + 2.0 * p2 * y
        prism_x = 2.0 * (s1 + 2.0 * r2 * s2)
        prism_y = 2.0 * (s3 + 2.0 * r2 * s4)
        xx = radial + 2.0 * x * x * slope + 2.0 * p1 * y + 6.0 * p2 * x + prism_x * x
        xy = across + prism_x * y
        yx = across + prism_y * x
        yy = radial + 2.0 * y * y * slope + 6.0 * p1 * y + 2.0 * p2 * x + prism_y * y
        determinant = xx * yy - xy * yx
        if wp.abs(determinant) < tolerance:
            left = 0
        else:
            dx = (fx * yy - fy * xy) / determinant
            dy = (fy * xx - fx * yx) / determinant
            x -= dx
            y -= dy
            if wp.abs(dx) < tolerance and wp.abs(dy) < tolerance:
                left = 0
    results[index, 0] = x
    results[index, 1] = y


@wp.kernel(grid_stride=False)
@typing.no_type_check
def undistort_fisheye_points(
    offset: int,
    points: wp.array2d(dtype=float),
    lenses: wp.array2d(dtype=float),
    tolerance: float,
    steps: int,
    results: wp.array2d(dtype=float),
):
    """Solves for point ``offset`` + tid of a fisheye image with k1 to k4; zeros where no angle fits."""
    index = offset + wp.tid()
    k1, k2, k3, k4 = lenses[index, 0], lenses[index, 1], lenses[index, 2], lenses[index, 3]
    x = points[index, 0]
    y = points[index, 1]
    # Points beyond a quarter turn are not in front of the camera: there is no plane to put them on.
    radius = wp.min(wp.sqrt(x * x + y * y), QUARTER_TURN)
    angle = float(radius)
    scale = float(1.0)
    if radius > tolerance:
        found = bool(False)
        left = int(steps)
        while left > 0:
            left -= 1
            squared = angle * angle
            excess = angle * (1.0 + squared * (k1 + squared * (k2 + squared * (k3 + squared * k4)))) - radius
            slope = 1.0 + squared * (3.0 * k1 + squared * (5.0 * k2 + squared * (7.0 * k3 + squared * 9.0 * k4)))
            angle -= excess / slope
            if wp.abs(excess) < (tolerance + ROUNDING * angle) * wp.abs(slope):
                found = True
                left = 0
        scale = wp.where(found and angle > 0.0, wp.tan(angle) / radius, 0.0)
    results[index, 0] = x * scale
    results[index, 1] = y * scale
