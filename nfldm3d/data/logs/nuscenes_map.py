"""Streets of nuScenes' map expansion: polygons by the tokens of their corners.

{"node": [{"token", "x", "y"}], "polygon": [{"token", "exterior_node_tokens", "holes": [{"node_tokens"}]}],
 "drivable_area": [{"polygon_tokens"}], "walkway": [{"polygon_token"}], "ped_crossing": ..., "carpark_area": ...}
"""

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from jaxtyping import Float

from nfldm3d.data.json_record import Record
from nfldm3d.data.logs.drive import GroundArea
from nfldm3d.files import DataFormatError, read_json

LAYERS = {"drivable_area": "road", "carpark_area": "parking", "walkway": "sidewalk", "ped_crossing": "crossing"}
"""Layers and their classes, later ones on top."""


@dataclass(frozen=True, eq=False)
class StreetMap:
    """The map of one town, read when it is asked for."""

    source: Path

    def areas(self, lower: tuple[float, float], upper: tuple[float, float]) -> list[GroundArea]:
        """What reaches into a rectangle."""
        return [
            area
            for area, low, high in self._areas
            if (low <= np.array(upper)).all() and (high >= np.array(lower)).all()
        ]

    @cached_property
    def _areas(self) -> list[tuple[GroundArea, Float[np.ndarray, " 2"], Float[np.ndarray, " 2"]]]:
        top = Record.of(self.source, read_json(self.source))
        missing = [name for name in ("node", "polygon", *LAYERS) if name not in top]
        if missing:
            raise DataFormatError(self.source, f"lacks {', '.join(missing)}; unpack the map expansion (v1.3) again")
        nodes = {row.text("token"): (row.number("x"), row.number("y")) for row in _rows(top, "node")}
        polygons = {row.text("token"): row for row in _rows(top, "polygon")}
        found = []
        for layer, map_class in LAYERS.items():
            for row in _rows(top, layer):
                tokens = row.items("polygon_tokens") if "polygon_tokens" in row else [row.text("polygon_token")]
                for token in tokens:
                    if token not in polygons:
                        raise row.problem("polygon_tokens", f"there is no polygon {token!r}; unpack the map again")
                    rings = _rings(polygons[token], nodes)
                    if len(rings[0]):
                        found.append((GroundArea(map_class, rings), rings[0].min(0), rings[0].max(0)))
        return found


def _rows(top: Record, key: str) -> list[Record]:
    return [Record.of(top.source, values, f"{key}[{number}]") for number, values in enumerate(top.items(key))]


def _rings(polygon: Record, nodes: dict[str, tuple[float, float]]) -> tuple[Float[np.ndarray, "_ 2"], ...]:
    holes = [Record.of(polygon.source, hole, f"{polygon.where}.holes") for hole in polygon.values.get("holes") or []]
    lists = [polygon.items("exterior_node_tokens"), *(hole.items("node_tokens") for hole in holes)]
    try:
        return tuple(np.array([nodes[token] for token in tokens], dtype=np.float64).reshape(-1, 2) for tokens in lists)
    except (KeyError, TypeError) as error:
        raise polygon.problem("exterior_node_tokens", f"there is no node {error}; unpack the map again") from error
