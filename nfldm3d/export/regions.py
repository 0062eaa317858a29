"""Connected pieces of meshes and of grids."""

import numpy as np
import torch
from jaxtyping import Bool, Int
from torch import Tensor

from nfldm3d.export.optional import import_optional


def find_pieces(faces: Int[Tensor, "faces 3"], vertices: int) -> tuple[Int[Tensor, " faces"], Int[Tensor, " pieces"]]:
    """The number of the piece that each face belongs to, and how many faces each piece has."""
    import_optional("scipy")
    from scipy.sparse import coo_matrix
    from scipy.sparse.csgraph import connected_components

    a, b, c = faces.cpu().numpy().T
    links = coo_matrix((np.ones(2 * len(a), dtype=bool), (np.r_[a, b], np.r_[b, c])), shape=(vertices, vertices))
    count, label = connected_components(links, directed=False)
    piece = torch.from_numpy(label[a].astype(np.int64)).to(faces.device)
    return piece, torch.bincount(piece, minlength=count)


def number_regions(mask: Bool[Tensor, "x y z"], *, across_corners: bool = False) -> Int[Tensor, "x y z"]:
    """The number of the connected region that each voxel of a mask belongs to, from 1; 0 elsewhere.

    Args:
        across_corners: whether voxels that share but an edge or a corner are connected, too.
    """
    import_optional("scipy")
    from scipy.ndimage import generate_binary_structure, label

    numbers = np.zeros(tuple(mask.shape), dtype=np.int32)
    label(mask.cpu().numpy(), generate_binary_structure(3, 3 if across_corners else 1), output=numbers)
    return torch.from_numpy(numbers).to(mask.device)
