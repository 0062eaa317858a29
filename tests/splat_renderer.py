"""A renderer of 3-D Gaussians for tests, after Kerbl et al. 2023: projected, sorted, composited front to back."""

import torch
from torch import Tensor

from nfldm3d import Camera
from nfldm3d.appearance import spherical_harmonics


def render_splats(columns: dict[str, Tensor], camera: Camera) -> tuple[Tensor, Tensor]:
    """Picture (3 height width) over black and opacity (height width) of what a PLY file says, by property name."""
    stack = lambda *names: torch.stack([columns[name] for name in names], dim=-1)  # noqa: E731
    centers, opacity = stack("x", "y", "z"), columns["opacity"].sigmoid()
    axes = (
        rotation_matrices(stack("rot_0", "rot_1", "rot_2", "rot_3"))
        * stack("scale_0", "scale_1", "scale_2").exp()[:, None]
    )
    to_camera = torch.diag(torch.tensor((1.0, -1.0, -1.0))) @ camera.view_matrix[:3, :3]  # x right, y down, z ahead
    local = (centers - camera.centers) @ to_camera.T
    near = local[:, 2] > 0.2
    x, y, z = local[near].unbind(-1)
    fx, fy = camera.focal.tolist()
    zero = torch.zeros_like(z)
    limit = (0.65 * camera.width / fx, 0.65 * camera.height / fy)  # else what lies aside is smeared over the picture
    across, upwards = (x / z).clamp(-limit[0], limit[0]), (y / z).clamp(-limit[1], limit[1])
    jacobian = torch.stack((fx / z, zero, -fx * across / z, zero, fy / z, -fy * upwards / z), dim=-1)
    spread = jacobian.unflatten(-1, (2, 3)) @ to_camera @ axes[near]
    covariance = spread @ spread.transpose(1, 2) + 0.02 * torch.eye(2)  # pixels are no points
    middle = torch.stack((fx * x / z, fy * y / z), dim=-1) + camera.principal
    directions = torch.nn.functional.normalize(centers[near] - camera.centers, dim=-1)
    colors, order = evaluate(columns, near, directions), z.argsort()
    offset = camera.pixel_centers().reshape(-1, 1, 2) - middle[order]
    power = torch.einsum("psi,sij,psj->ps", offset, covariance[order].inverse(), offset)
    alpha = (opacity[near][order] * torch.exp(-power / 2)).clamp(max=0.99)
    through = (1 - alpha).cumprod(1)
    weight = alpha * torch.cat((torch.ones_like(through[:, :1]), through[:, :-1]), dim=1)
    size = camera.height, camera.width
    return (weight @ colors[order]).T.unflatten(-1, size), weight.sum(1).unflatten(0, size)


def evaluate(columns: dict[str, Tensor], chosen: Tensor, directions: Tensor) -> Tensor:
    rest = [name for name in columns if name.startswith("f_rest_")]
    values = torch.stack([columns[f"f_dc_{number}"][chosen] for number in range(3)], dim=-1)[:, None]
    if rest:
        more = torch.stack([columns[f"f_rest_{number}"][chosen] for number in range(len(rest))], dim=-1)
        values = torch.cat((values, more.unflatten(-1, (3, -1)).transpose(1, 2)), dim=1)
    degree = round(values.shape[1] ** 0.5) - 1
    return (0.5 + (spherical_harmonics(directions, degree)[..., None] * values).sum(1)).clamp(min=0)


def rotation_matrices(quaternions: Tensor) -> Tensor:
    w, x, y, z = torch.nn.functional.normalize(quaternions, dim=-1).unbind(-1)
    rows = (
        (1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)),
        (2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)),
        (2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)),
    )
    return torch.stack([torch.stack(row, dim=-1) for row in rows], dim=1)


def read_columns(data: bytes) -> dict[str, Tensor]:
    """Properties of a binary PLY file of floats."""
    head, body = data.split(b"end_header\n", 1)
    lines = head.decode("ascii").splitlines()
    names = [line.split()[-1] for line in lines if line.startswith("property float")]
    count = int(next(line for line in lines if line.startswith("element vertex")).split()[-1])
    values = torch.frombuffer(bytearray(body), dtype=torch.float32).view(count, len(names))
    return dict(zip(names, values.T, strict=True))
