"""Imports what write_exports.py has written into Blender and compares: check_exports.py FOLDER [--pictures].

Runs in an environment with bpy (no display needed). Colours are compared in linear light, as Blender keeps them.
"""

import json
import sys
from pathlib import Path

import bpy
import numpy as np
from bpy_extras.object_utils import world_to_camera_view
from mathutils import Vector
from mathutils.kdtree import KDTree

BYTE = 1.01 / 255


def main(folder: Path, pictures: bool) -> int:
    """Runs all checks, prints a line for each; the number of failures."""
    expected = json.loads((folder / "expected.json").read_text())
    vertices, colors = np.array(expected["vertices"]), np.array(expected["colors"])
    box = np.array([vertices.min(0), vertices.max(0)])
    results: list[tuple[str, str, float, float]] = []
    for name in ("mesh.glb", "mesh.obj", "mesh.ply", "mesh.usdc"):
        load(folder / name)
        mesh = only("MESH")
        found, found_colors = world_vertices(mesh), vertex_colors(mesh)
        match = nearest(found, vertices)
        results += [
            (name, "vertices", abs(len(found) - len(vertices)), 0),
            (name, "faces", abs(len(mesh.data.polygons) - expected["faces"]), 0),
            (name, "box", deviation(bounds(found), box), 1e-4),
            (name, "position of vertices", deviation(found, vertices[match]), 1e-4),
            (name, "colour of vertices", deviation(found_colors, colors[match]), BYTE),
        ]
        if name == "mesh.usdc":
            bpy.context.scene.render.resolution_x, bpy.context.scene.render.resolution_y = 320, 200
            u, v, depth = world_to_camera_view(
                bpy.context.scene, only("CAMERA"), mesh.matrix_world @ first(mesh, vertices)
            )
            want = expected["first_vertex_in_view"]
            results.append((name, "camera", deviation([u, 1 - v, depth], want), 2e-4))
        if pictures:
            render(folder / f"{name}.png", box)
    for name in ("textured.glb", "textured.obj", "textured.usdz"):
        load(folder / name)
        mesh = only("MESH")
        images = [image for image in bpy.data.images if image.size[0] > 0]
        results += [
            (name, "faces", abs(len(mesh.data.polygons) - expected["textured_faces"]), 0),
            (name, "box", deviation(bounds(world_vertices(mesh)), expected["textured_box"]), 1e-4),
            (name, "texture", deviation([len(mesh.data.uv_layers), len(images)], [1, 1]), 0),
            (name, "colour of texture", texture_error(mesh, images[0]), 0.05),
        ]
        if pictures:
            render(folder / f"{name}.png", box)
    load(folder / "points.ply")
    points = only("MESH")
    results += [
        ("points.ply", "points", abs(len(points.data.vertices) - len(vertices)), 0),
        ("points.ply", "box", deviation(bounds(world_vertices(points)), box), 1e-4),
    ]
    load(folder / "volume.vdb")
    volume = only("VOLUME")
    volume.data.grids.load()
    names = {grid.name for grid in volume.data.grids}
    corners = np.array([volume.matrix_world @ Vector(corner) for corner in volume.bound_box])
    results += [
        ("volume.vdb", "grids", float(names != {"density", "color"}), 0),
        ("volume.vdb", "box", deviation(bounds(corners), expected["volume_box"]), 1e-4),
    ]
    for name, what, error, limit in results:
        print(f"{'ok  ' if error <= limit else 'FAIL'} {name:14} {what:22} off by {error:.2g} (limit {limit:.2g})")
    return sum(not error <= limit for *_, error, limit in results)


def load(path: Path) -> None:
    """An empty Blender with one file in it."""
    bpy.ops.wm.read_factory_settings(use_empty=True)
    name = str(path.resolve())
    match path.suffix:
        case ".glb":
            bpy.ops.import_scene.gltf(filepath=name)
        case ".obj":
            bpy.ops.wm.obj_import(filepath=name)
        case ".ply":
            bpy.ops.wm.ply_import(filepath=name)
        case ".vdb":
            bpy.ops.object.volume_import(filepath=name)
        case _:
            bpy.ops.wm.usd_import(filepath=name)
    bpy.context.view_layer.update()


def only(kind: str):
    """The one object of its kind."""
    (found,) = (item for item in bpy.context.scene.objects if item.type == kind)
    return found


def world_vertices(mesh) -> np.ndarray:
    """Vertex positions (n 3) in Blender's world."""
    return np.array([mesh.matrix_world @ vertex.co for vertex in mesh.data.vertices])


def first(mesh, vertices: np.ndarray):
    """The mesh's own coordinates of the vertex that was the first when written."""
    found = world_vertices(mesh)
    return mesh.data.vertices[int(np.linalg.norm(found - vertices[0], axis=1).argmin())].co


def vertex_colors(mesh) -> np.ndarray:
    """sRGB colours (n 3) of the first colour attribute, which must be one for each vertex."""
    attribute = mesh.data.color_attributes[0]
    linear = np.array([value.color[:3] for value in attribute.data])
    if attribute.domain == "CORNER":
        by_vertex = np.zeros((len(mesh.data.vertices), 3))
        by_vertex[[loop.vertex_index for loop in mesh.data.loops]] = linear
        linear = by_vertex
    return np.where(linear <= 0.0031308, linear * 12.92, 1.055 * np.maximum(linear, 0) ** (1 / 2.4) - 0.055)


def nearest(found: np.ndarray, vertices: np.ndarray) -> list[int]:
    """The number of the vertex at each place: importers may renumber them."""
    tree = KDTree(len(vertices))
    for number, vertex in enumerate(vertices):
        tree.insert(vertex, number)
    tree.balance()
    return [tree.find(point)[1] for point in found]


def texture_error(mesh, image) -> float:
    """Largest difference of the texture at the corners of faces from the colour that belongs to the place."""
    width, height = image.size
    pixels = np.array(image.pixels[:]).reshape(height, width, -1)[..., :3]  # row 0 is the lowest
    lower, size = np.array((-1.0, 2.0, 0.5)), np.array((2.5, 3.0, 2.0))
    places = world_vertices(mesh)[[loop.vertex_index for loop in mesh.data.loops]]
    uv = np.array([value.uv[:] for value in mesh.data.uv_layers[0].data])
    column = np.clip((uv[:, 0] * width).astype(int), 0, width - 1)
    row = np.clip((uv[:, 1] * height).astype(int), 0, height - 1)
    return deviation(pixels[row, column], (places - lower) / size)


def bounds(points: np.ndarray) -> np.ndarray:
    """Lower and upper corner."""
    return np.array([points.min(0), points.max(0)])


def deviation(found, expected) -> float:
    """The largest absolute difference; infinite if the shapes differ."""
    found, expected = np.asarray(found, dtype=float), np.asarray(expected, dtype=float)
    return float(np.abs(found - expected).max()) if found.shape == expected.shape else float("inf")


def render(path: Path, box: np.ndarray) -> None:
    """A small Cycles picture of what was imported, without any light but its own."""
    scene = bpy.context.scene
    scene.render.engine = "CYCLES"
    scene.cycles.samples, scene.cycles.device = 16, "CPU"
    scene.view_settings.view_transform = "Standard"
    scene.render.resolution_x, scene.render.resolution_y = 480, 320
    camera = bpy.data.objects.new("eye", bpy.data.cameras.new("eye"))
    scene.collection.objects.link(camera)
    center = Vector(box.mean(0))
    camera.location = center + Vector((3.0, -3.0, 2.0))
    camera.rotation_euler = (center - camera.location).to_track_quat("-Z", "Y").to_euler()
    scene.camera = camera
    scene.render.filepath = str(path.resolve())
    bpy.ops.render.render(write_still=True)


if __name__ == "__main__":
    failures = main(Path(sys.argv[1]), "--pictures" in sys.argv)
    print("all good" if not failures else f"{failures} checks failed")
    sys.exit(1 if failures else 0)
