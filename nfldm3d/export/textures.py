"""Texture pictures for the formats that carry them."""

import io

from jaxtyping import Float
from torch import Tensor

from nfldm3d.pictures import to_bytes


def encode_png(texture: Float[Tensor, "3 height width"]) -> bytes:
    """A picture in sRGB [0, 1] as the content of a PNG file."""
    from PIL import Image

    stream = io.BytesIO()
    Image.fromarray(to_bytes(texture).numpy()).save(stream, format="PNG")
    return stream.getvalue()
