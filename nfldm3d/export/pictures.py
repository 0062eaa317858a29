"""Texture pictures for the formats that carry them."""

import io

import torch
from jaxtyping import Float
from torch import Tensor


def encode_png(texture: Float[Tensor, "3 height width"]) -> bytes:
    """A picture in sRGB [0, 1] as the content of a PNG file."""
    from PIL import Image

    pixels = (texture.clamp(0, 1) * 255).round().to(torch.uint8).permute(1, 2, 0)  # (height width 3)
    stream = io.BytesIO()
    Image.fromarray(pixels.contiguous().cpu().numpy()).save(stream, format="PNG")
    return stream.getvalue()
