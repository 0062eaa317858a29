"""What recorders read of other people's packages: meshes, tracks, furniture, aircraft, maps of games, emoji."""

import io
import json
import shutil
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from PIL import Image

from campaign.formats import Format
from nfldm3d.files import DataFormatError


def _make_models(folder: Path) -> None:
    from small_tracks import paint, polygons, write_model

    face = [(0.0, 0.0, 0.0), (2.0, 0.0, 0.0), (2.0, 1.0, 1.0), (0.0, 1.0, 1.0)]
    painted, plain = polygons("one", "skin.png", [face]), polygons("two", None, [face[::-1]])
    write_model(folder / "a.acc", [painted, plain, polygons("three", "old.rgb", [face])])
    paint(folder / "skin.png", (200, 30, 20), hole=True)
    Image.fromarray(np.full((4, 6, 3), 90, np.uint8)).save(folder / "old.rgb", "SGI")


def _read_models(folder: Path) -> None:
    _forget()
    _use_mesh(folder / "a.acc")


def _make_meshes(folder: Path) -> None:
    import trimesh
    from small_furniture import box_mtl, box_obj, picture_bytes

    (folder / "box.obj").write_text(box_obj())
    (folder / "box.mtl").write_text(box_mtl((0.8, 0.1, 0.1), "green.png"))
    (folder / "green.png").write_bytes(picture_bytes((20, 200, 40)))
    box = trimesh.creation.box((1.0, 2.0, 3.0))
    box.export(folder / "box.ply")
    box.export(folder / "box.stl")
    box.export(folder / "box.off")
    uv = np.random.default_rng(0).random((len(box.vertices), 2))
    skin = trimesh.visual.material.PBRMaterial(baseColorTexture=Image.new("RGB", (4, 4), (9, 200, 30)))
    painted = trimesh.Trimesh(box.vertices, box.faces, visual=trimesh.visual.TextureVisuals(uv, material=skin))
    painted.export(folder / "box.glb")
    for name, content in trimesh.Scene(painted).export(file_type="gltf").items():
        (folder / name).write_bytes(content)


def _read_meshes(folder: Path) -> None:
    from nfldm3d.recording.objects.sources import find_objects

    _forget()
    refused = None
    for thing in find_objects(str(folder)):
        try:
            thing.read().signature()
        except DataFormatError as error:
            refused = error
    if refused is not None:
        raise refused


def _use_mesh(path: Path) -> None:
    from nfldm3d.recording.mesh_files import read_mesh
    from nfldm3d.recording.meshes import join_meshes

    mesh = join_meshes([read_mesh(path)])
    assert bool(np.isfinite(mesh.points()).all())
    mesh.signature()


def _forget() -> None:
    """Readers remember files by name, and those of mutants are all called alike."""
    from nfldm3d.recording import furniture, mesh_files

    furniture._open.cache_clear()
    mesh_files._list_textures.cache_clear()
    mesh_files._read_texture.cache_clear()


@contextmanager
def _missing(message: str) -> Iterator[None]:
    """What is gone altogether is told in a ValueError with such a message."""
    try:
        yield
    except DataFormatError:
        raise
    except ValueError as error:
        assert message in str(error), error


def _make_track(folder: Path) -> None:
    from small_tracks import write_car, write_track

    write_track(folder)
    write_car(folder, "p406")


def _read_track(folder: Path) -> None:
    from small_tracks import TRACK

    from nfldm3d.recording.driving.cars import read_car
    from nfldm3d.recording.driving.textures import read_texture
    from nfldm3d.recording.driving.torcs import TorcsData
    from nfldm3d.recording.driving.track import Track

    data = TorcsData(folder)
    model = data.track_model(TRACK)
    track = Track.read(TRACK, model, data.texture_folders(model))
    for surface in track.surfaces:
        if surface.texture is not None:
            read_texture(surface.texture)
    track.ground.find_height(track.line.points[0])
    body = data.car_model("p406")
    read_car("p406", body, data.car_description("p406"), data.texture_folders(body))


def _make_furniture(folder: Path) -> None:
    from small_furniture import CHAIR, picture_bytes, write_library

    write_library(folder / "small.sh3f", [CHAIR], texture="green.png")
    inside = "com/eteks/sweethome3d/io/"
    entry = {"name": "Parquet", "category": "Floor", "image": f"/{inside}floor.jpg", "width": "40", "height": "30"}
    with zipfile.ZipFile(folder / "sweethome3d.jar", "w") as jar:
        lines = [f"{key}#1={value}" for key, value in entry.items()]
        jar.writestr(f"{inside}DefaultTexturesCatalog.properties", "\n".join(lines))
        jar.writestr(f"{inside}floor.jpg", picture_bytes((90, 60, 30)))


def _read_furniture(folder: Path) -> None:
    from nfldm3d.recording.furniture import list_furniture, read_furniture
    from nfldm3d.recording.rooms.finishes import read_finishes

    _forget()
    read_finishes(folder)
    with _missing("does not hold furniture"):  # the zip
        for piece in list_furniture(folder):
            read_furniture(piece).signature()


def _make_aircraft(folder: Path) -> None:
    from small_tracks import paint, polygons, write_model

    root = folder / "usr" / "share" / "games" / "flightgear" / "AI" / "Aircraft" / "738"
    face = [(0.0, 0.0, 0.0), (2.0, 0.0, 0.0), (2.0, 1.0, 1.0), (0.0, 1.0, 1.0)]
    write_model(root / "Models" / "738.ac", [polygons("one", "skin.png", [face])])
    paint(root / "Textures" / "red" / "skin.png", (200, 30, 20))
    (root / "738-main.xml").write_text("<PropertyList><path>Models/738.ac</path><author>me</author></PropertyList>")
    text = '<PropertyList include="738-main.xml"><texture-path>Textures/red</texture-path></PropertyList>'
    (root / "738-red.xml").write_text(text)


def _read_aircraft(folder: Path) -> None:
    from nfldm3d.recording.objects.sources import find_objects

    _forget()
    with _missing("holds no meshes"):
        for thing in find_objects(str(folder)):
            if thing.find_problem() is None:
                thing.read().signature()


def _make_doom(folder: Path) -> None:
    from nfldm3d.recording.vizdoom.doom_map import LINE, NOTHING, SECTOR, SIDE, THING, VERTEX
    from nfldm3d.recording.vizdoom.doom_wad import write_wad

    corners = [(0, 0), (0, 256), (256, 256), (256, 0)]
    lines = [((k, (k + 1) % 4), 1, 0, 0, (k, NOTHING)) for k in range(4)]
    tables = {
        "THINGS": np.array([(128, 128, 90, 1, 7), (60, 60, 0, 2001, 7)], THING),
        "LINEDEFS": np.array(lines, LINE),
        "SIDEDEFS": np.array([((0, 0), b"-", b"-", b"STONE", 0)] * 4, SIDE),
        "VERTEXES": np.array(corners, VERTEX),
        "SECTORS": np.array([(0, 128, b"FLOOR0_1", b"CEIL1_1", 160, 0, 0)], SECTOR),
    }
    write_wad(folder / "a.wad", [("MAP01", b""), *((name, table.tobytes()) for name, table in tables.items())])


def _read_doom(folder: Path) -> None:
    from nfldm3d.recording.vizdoom.doom_map import DoomMap

    found = DoomMap.read(folder / "a.wad", "MAP01")
    found.sector_at(np.array([(128.0, 128.0), (-9.0, 3.0)]))
    found.passable(opened=True)
    str((found.zone, found.is_liquid))


def write_emoji(folder: Path) -> None:
    """The two packages that captioned pictures are made of."""
    (folder / "pictures" / "assets").mkdir(parents=True)
    (folder / "names" / "en").mkdir(parents=True)
    for code in ("1f600", "1f601"):
        buffer = io.BytesIO()
        Image.new("RGBA", (8, 8), (200, 30, 20, 120)).save(buffer, "WEBP")
        (folder / "pictures" / "assets" / f"{code}.webp").write_bytes(buffer.getvalue())
    rows = [{"hexcode": code, "group": 3, "label": f"thing {code}"} for code in ("1F600", "1F601")]
    (folder / "names" / "en" / "data.json").write_text(json.dumps(rows))


def _read_emoji(folder: Path) -> None:
    from nfldm3d.data.captioned_pictures import read_picture_folder
    from nfldm3d.recording.emoji import record_emoji

    shutil.rmtree(folder / "new", ignore_errors=True)
    with _missing("is missing: npm pack"):  # a package
        record_emoji(folder / "new", folder / "pictures", folder / "names", size=8)
        read_picture_folder(folder / "new", "train", size=8)


FORMATS = {
    "AC3D": Format(_make_models, _read_models, linked=True),
    "meshes": Format(_make_meshes, _read_meshes, linked=True, slow=True),
    "track": Format(_make_track, _read_track, ("**/*",), linked=True),
    "furniture": Format(_make_furniture, _read_furniture, linked=True),
    "aircraft": Format(_make_aircraft, _read_aircraft, ("**/*",), linked=True),
    "Doom map": Format(_make_doom, _read_doom, linked=True),
    "emoji": Format(write_emoji, _read_emoji, ("**/*",), linked=True),
}
