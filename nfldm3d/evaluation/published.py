"""Figures that papers printed, to stand beside ours; measured on other data, in Inception's and I3D's features.

Of scenes, from Kim et al., NeuralField-LDM (CVPR 2023), Tables 1 to 4; the rows of GRAF, pi-GAN and GSN on VizDoom and
Replica are there as GAUDI's paper (Bautista et al. 2022) has them. GSN, GAUDI and NF-LDM learn from depth, the others
do not. Of dreams, from Poole et al., DreamFusion (2022), Table 1: CLIP R-Precision in per cent on 153 captions of COCO,
by renders in colour and by bare shapes, for each of CLIP's sizes.
"""

from typing import NamedTuple


class PublishedFigure(NamedTuple):
    """A figure in a published table."""

    method: str
    world: str
    figure: str
    """FID or FVD."""
    value: float


_ROWS = {
    ("VizDoom", "FID"): {"GRAF": 47.50, "pi-GAN": 143.55, "GSN": 37.21, "GAUDI": 33.70, "NF-LDM": 19.54},
    ("Replica", "FID"): {"GRAF": 65.37, "pi-GAN": 166.55, "GSN": 41.75, "GAUDI": 18.75, "NF-LDM": 14.59},
    ("Carla", "FID"): {"EG3D": 76.89, "GSN": 75.45, "NF-LDM": 35.69},
    ("AVD", "FID"): {"EG3D": 194.34, "GSN": 166.07, "NF-LDM": 54.26},
    ("Carla", "FVD"): {"EG3D": 134.94, "GSN": 184.30, "NF-LDM": 91.80},
    ("AVD", "FVD"): {"EG3D": 1232.38, "GSN": 1659.81, "NF-LDM": 242.50},
    ("Carla", "FID of the latents"): {"c": 46.43, "c, f": 43.52, "g, c, f": 35.69},
}
PUBLISHED = tuple(
    PublishedFigure(method, world, figure, value)
    for (world, figure), row in _ROWS.items()
    for method, value in row.items()
)
"""All of them."""
NOTE = "printed in NF-LDM (CVPR 2023), on other data and in other features: compare orders, not numbers"


def published_table() -> dict[str, object]:
    """The figures by world, figure and method, marked as published, as JSON values."""
    table: dict[str, object] = {"note": NOTE}
    for (world, figure), row in _ROWS.items():
        table[f"{figure}, {world}"] = dict(row)
    return table


_RETRIEVAL = {
    "photographs": {"B/32": (77.1, None), "B/16": (79.1, None)},
    "Dream Fields": {"B/32": (68.3, None), "B/16": (74.2, None)},
    "Dream Fields, by DreamFusion's authors": {"B/32": (78.6, 1.3), "L/14": (82.9, 1.4)},
    "CLIP-Mesh": {"B/32": (67.8, None), "B/16": (75.8, None), "L/14": (74.5, None)},
    "DreamFusion": {"B/32": (75.1, 42.5), "B/16": (77.5, 46.6), "L/14": (79.7, 58.5)},
}
RETRIEVAL_NOTE = "printed in DreamFusion (2022), on other prompts and by CLIP: compare orders, not numbers"


def published_retrieval() -> dict[str, object]:
    """CLIP R-Precision by method and size of CLIP, colour and shape, marked as published, as JSON values."""
    rows = {
        method: {size: {"color": color, "shape": shape} for size, (color, shape) in row.items()}
        for method, row in _RETRIEVAL.items()
    }
    return {"note": RETRIEVAL_NOTE, **rows}
