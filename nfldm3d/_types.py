"""The vocabulary: axis names, units and the few aliases that every other module shares.

Axis names used in shape annotations
    scenes              independent scenes (any number of leading axes, written ``*scenes``)
    views               cameras of one scene
    height, width       pixels
    rays, samples       rays, and positions along one ray
    points              positions in the world
    x, y, z             voxels along the world axes, in this order everywhere
    channels            features of one voxel, pixel or point; always the last axis except in images
    vertices, faces     of a mesh

Units: metres (or the capture's own unit where ``Scene.metric`` is False), radians unless a name says
``degrees``, pixels with the centre of the first pixel at (0.5, 0.5), density in 1/metre, colour as sRGB in [0, 1].
"""

from os import PathLike
from typing import TypeAlias

Vector: TypeAlias = tuple[float | int, float | int, float | int]
"""A point or extent in world axes that is configuration rather than data: hashable, printable, JSON."""

PathName: TypeAlias = str | PathLike[str]
"""A file or folder name, as the user gives it."""

LARGEST_SEED = 2**63 - 1
"""Of torch's generators."""
