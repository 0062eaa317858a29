"""Small nuScenes and KITTI-360 folders, true to each detail of the formats but for the size of pictures."""

import json
import math
from pathlib import Path

import numpy as np
from PIL import Image
from small_rigs import turn_z

CAMERAS = {"CAM_FRONT": 0, "CAM_FRONT_LEFT": 55, "CAM_FRONT_RIGHT": -55}
CAMERAS |= {"CAM_BACK": 180, "CAM_BACK_LEFT": 110, "CAM_BACK_RIGHT": -110}
"""Degrees to the left of ahead."""
WIDTH, HEIGHT = 32, 18
LENS = [[25.0, 0.0, 16.3], [0.0, 25.5, 9.2], [0.0, 0.0, 1.0]]
LOOKS_AHEAD = np.array(((0, 0, 1, 0), (-1, 0, 0, 0), (0, -1, 0, 0), (0, 0, 0, 1.0)))
"""A camera with OpenCV's axes on a vehicle."""
ORIGIN = np.array((1302.5, 907.25, 0.0))
HEADING = 40.0
STEP = 3.0
"""Metres from one moment to the next."""
LANDMARKS = np.array(((9.0, 1.5, 0.8), (12.0, -3.0, 2.2), (-6.0, 4.0, 0.1), (2.0, 9.0, 1.2), (1.0, -8.0, 3.0)))
"""Surfaces, in the axes of the vehicle at the first moment."""
START = 1532402927647951
"""Microseconds."""


def quaternion(matrix: np.ndarray) -> list[float]:
    """w, x, y, z of a rotation, from the eigenvector that Bar-Itzhack's matrix has for it."""
    (xx, xy, xz), (yx, yy, yz), (zx, zy, zz) = matrix[:3, :3]
    table = np.array(
        (
            (xx - yy - zz, yx + xy, zx + xz, zy - yz),
            (yx + xy, yy - xx - zz, zy + yz, xz - zx),
            (zx + xz, zy + yz, zz - xx - yy, yx - xy),
            (zy - yz, xz - zx, yx - xy, xx + yy + zz),
        )
    )
    x, y, z, w = np.linalg.eigh(table)[1][:, -1]
    return [w, x, y, z]


def posed(matrix: np.ndarray) -> dict[str, list[float]]:
    return {"translation": matrix[:3, 3].tolist(), "rotation": quaternion(matrix)}


def vehicle(moment: float, heading: float = HEADING) -> np.ndarray:
    """The vehicle in the world; moments may be fractions."""
    ahead = np.array((math.cos(math.radians(heading)), math.sin(math.radians(heading)), 0))
    return turn_z(heading, tuple(ORIGIN + STEP * moment * ahead))


def mount(channel: str) -> np.ndarray:
    if channel == "LIDAR_TOP":
        return turn_z(-90.0, (0.94, 0.0, 1.84))
    return turn_z(CAMERAS[channel], (1.5 - abs(CAMERAS[channel]) / 120, CAMERAS[channel] / 200, 1.5)) @ LOOKS_AHEAD


def landmarks() -> np.ndarray:
    """In the world."""
    return LANDMARKS @ vehicle(0)[:3, :3].T + vehicle(0)[:3, 3]


def delay(channel: str) -> float:
    """Moments by which a camera fires after the lidar's time."""
    return 0.0 if channel == "LIDAR_TOP" else 0.02 * list(CAMERAS).index(channel)


def write_nuscenes(root: Path, moments: tuple[int, ...] = (6, 3), version: str = "v1.0-mini") -> Path:
    """As many scenes as numbers of moments are given; the second stands still."""
    tables: dict[str, list[dict]] = {
        name: []
        for name in (
            *("attribute", "calibrated_sensor", "category", "ego_pose", "instance", "log", "map", "sample"),
            *("sample_annotation", "sample_data", "scene", "sensor", "visibility"),
        )
    }
    for channel in (*CAMERAS, "LIDAR_TOP", "RADAR_FRONT"):
        modality = {"C": "camera", "L": "lidar", "R": "radar"}[channel[0]]
        tables["sensor"].append({"token": f"s-{channel}", "channel": channel, "modality": modality})
        place = turn_z(0, (3.4, 0, 0.5)) if modality == "radar" else mount(channel)
        lens = LENS if modality == "camera" else []
        row = {"token": f"c-{channel}", "sensor_token": f"s-{channel}", **posed(place), "camera_intrinsic": lens}
        tables["calibrated_sensor"].append(row)
    for name in ("vehicle.car", "human.pedestrian.adult", "movable_object.trafficcone"):
        tables["category"].append({"token": f"k-{name}", "name": name, "description": ""})
    for number, count in enumerate(moments):
        _write_scene(root, tables, number, count)
    for name, rows in tables.items():
        (root / version).mkdir(parents=True, exist_ok=True)
        (root / version / f"{name}.json").write_text(json.dumps(rows, indent=0))
    return root


def _write_scene(root: Path, tables: dict[str, list[dict]], number: int, count: int) -> None:
    name, still = f"scene-{61 + 42 * number:04d}", number == 1
    log = {"token": f"l{number}", "logfile": f"n008-2018-08-0{number + 1}", "vehicle": "n008", "date_captured": ""}
    tables["log"].append({**log, "location": "boston-seaport"})
    tokens = [f"{name}-{moment}" for moment in range(count)]
    scene = {"token": name, "name": name, "description": "Night", "log_token": f"l{number}", "nbr_samples": count}
    tables["scene"].append({**scene, "first_sample_token": tokens[0], "last_sample_token": tokens[-1]})
    for moment, token in enumerate(tokens):
        row = {"token": token, "timestamp": START + 500_000 * moment, "scene_token": name}
        row["prev"], row["next"] = tokens[moment - 1] if moment else "", "".join(tokens[moment + 1 : moment + 2])
        tables["sample"].append(row)
        for channel in (*CAMERAS, "LIDAR_TOP", "RADAR_FRONT"):
            _write_data(root, tables, token, channel, 0 if still else moment, START + 500_000 * moment)
        _write_boxes(tables, number, moment, token)


def _write_data(root: Path, tables: dict[str, list[dict]], token: str, channel: str, moment: int, time: int) -> None:
    late = delay(channel) if channel[0] != "R" else 0
    pose = vehicle(moment + late)
    folder, suffix = f"samples/{channel}", {"C": "jpg", "L": "pcd.bin", "R": "pcd"}[channel[0]]
    data = {"sample_token": token, "calibrated_sensor_token": f"c-{channel}", "prev": "", "next": ""}
    sizes = (WIDTH, HEIGHT) if channel[0] == "C" else (0, 0)
    data |= {"width": sizes[0], "height": sizes[1], "fileformat": suffix.split(".")[0]}
    for kind, key in (("d", True), ("w", False)):  # a sweep between key frames, too
        own = f"{kind}-{token}-{channel}"
        file = f"{folder if key else f'sweeps/{channel}'}/{own}.{suffix}"
        stamp = time + round(late * 500_000) + (0 if key else 80_000)
        tables["ego_pose"].append({"token": own, "timestamp": stamp, **posed(pose)})
        row = {"token": own, "ego_pose_token": own, "timestamp": stamp, "is_key_frame": key, "filename": file}
        tables["sample_data"].append({**data, **row})
    path = root / folder / f"d-{token}-{channel}.{suffix}"
    path.parent.mkdir(parents=True, exist_ok=True)
    if channel[0] == "C":
        grey = 20 * list(CAMERAS).index(channel) + 5 * moment
        Image.fromarray(np.full((HEIGHT, WIDTH, 3), grey, np.uint8)).save(path, quality=95)
    elif channel[0] == "L":
        local = np.linalg.inv(pose @ mount(channel)) @ np.column_stack((landmarks(), np.ones(len(LANDMARKS)))).T
        roof = np.array(((0.3, 0.4, -0.9),))  # the vehicle itself
        points = np.concatenate((local[:3].T, roof))
        rings = np.column_stack((np.full(len(points), 17.0), np.arange(len(points))))
        path.write_bytes(np.concatenate((points, rings), axis=1).astype("<f4").tobytes())


def _write_boxes(tables: dict[str, list[dict]], number: int, moment: int, token: str) -> None:
    """A parked car to the left, a car that drives ahead of the vehicle, a person to the right."""
    start, now = vehicle(0), vehicle(moment)
    ahead = now @ turn_z(0, (7.0, 0.0, 0.9))
    things = {
        "parked": ("vehicle.car", start @ turn_z(90, (4.0, 5.0, 0.8)), [1.9, 4.6, 1.6]),
        "driving": ("vehicle.car", ahead, [1.8, 4.0, 1.5]),
        "person": ("human.pedestrian.adult", start @ turn_z(0, (3.0, -4.0, 0.9)), [0.6, 0.5, 1.8]),
    }
    for name, (category, pose, size) in things.items():
        instance = f"i-{number}-{name}"
        if moment == 0:
            tables["instance"].append({"token": instance, "category_token": f"k-{category}", "nbr_annotations": 3})
        row = {"token": f"a-{token}-{name}", "sample_token": token, "instance_token": instance}
        row |= {"attribute_tokens": [], "visibility_token": "4", "prev": "", "next": "", "num_lidar_pts": 5}
        tables["sample_annotation"].append({**row, **posed(pose), "size": size})


def write_streets(root: Path) -> None:
    """A road along the drive with a hole in it, and a pavement beside it."""
    content: dict[str, list | str] = {name: [] for name in ("node", "polygon", "line", "lane", "carpark_area")}
    content |= {"version": "1.3", "ped_crossing": []}

    def polygon(token: str, *rings: list[tuple[float, float]]) -> None:
        names = []
        for ring, corners in enumerate(rings):
            names.append([f"{token}-{ring}-{corner}" for corner in range(len(corners))])
            for name, corner in zip(names[-1], corners, strict=True):
                x, y = (vehicle(0) @ np.array((*corner, 0, 1)))[:2]
                content["node"].append({"token": name, "x": x, "y": y})  # type: ignore[union-attr]
        holes = [{"node_tokens": tokens} for tokens in names[1:]]
        row = {"token": token, "exterior_node_tokens": names[0], "holes": holes}
        content["polygon"].append(row)  # type: ignore[union-attr]

    island = [(3.0, 1.0), (5.0, 1.0), (5.0, 2.0), (3.0, 2.0)]
    polygon("p-road", [(-30.0, -3.0), (60.0, -3.0), (60.0, 3.0), (-30.0, 3.0)], island)
    polygon("p-walk", [(-30.0, -5.0), (60.0, -5.0), (60.0, -3.0), (-30.0, -3.0)])
    content["drivable_area"] = [{"token": "a", "polygon_tokens": ["p-road"]}]
    content["walkway"] = [{"token": "w", "polygon_token": "p-walk", "line_token": ""}]
    path = root / "maps" / "expansion" / "boston-seaport.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content))


DRIVE = "2013_05_28_drive_0003_sync"
FRAMES = (3, 4, 5, 8, 9, 12)
"""Where the vehicle stands there is no pose."""
FRONT = (44, 18)
"""Width and height of rectified pictures."""
FRONT_LENS = (17.25, 21.3, 8.9)
"""Focal length and principal point, from the first pixel's centre."""
WIDE = 140
WIDE_LENS = {"xi": 2.2134047507854890, "k1": 1.6798235660113681e-02, "k2": 1.6548773243373522, "p1": 0.0, "p2": 0.0}
WIDE_LENS |= {"gamma1": 133.63220825849971, "gamma2": 133.57883350012958, "u0": 71.694323510126321, "v0": 70.57649}
AHEAD_RIGHT_DOWN = np.diag((1, -1, -1, 1.0))
"""KITTI-360's vehicle axes in ours."""
BESIDE = turn_z(0, (0, 0, 0)) @ np.array(((0, 0, 1, 0), (1, 0, 0, 0), (0, 1, 0, 0), (0, 0, 0, 1.0)))
"""A camera with OpenCV's axes that looks ahead, in the vehicle's x ahead, y right, z down."""


def kitti_vehicle(frame: int) -> np.ndarray:
    """Far from the origin, driving up a gentle hill."""
    slope = np.array(((math.cos(0.05), 0, -math.sin(0.05), 0), (0, 1, 0, 0), (math.sin(0.05), 0, math.cos(0.05), 0)))
    tilt = np.concatenate((slope, [[0, 0, 0, 1]]))
    return turn_z(70, (850.0 + 0.6 * frame, 3800.0 + 1.6 * frame, 115.0 + 0.08 * frame)) @ tilt @ AHEAD_RIGHT_DOWN


def kitti_mount(name: str) -> np.ndarray:
    """Of a camera before rectification, on the vehicle."""
    yaw = {"image_00": 0.5, "image_01": -0.4, "image_02": -90.0, "image_03": 90.0}[name]  # to the right
    side = {"image_00": -0.3, "image_01": 0.3, "image_02": -0.7, "image_03": 0.7}[name]
    return turn_z(yaw, (1.57, side, -1.2)) @ BESIDE


def rectifying(name: str) -> np.ndarray:
    """``R_rect``: the cameras ahead are turned by these to look ahead exactly."""
    return np.linalg.inv(turn_z(0, (1.57, 0, -1.2)) @ BESIDE)[:3, :3] @ kitti_mount(name)[:3, :3]


VELO = turn_z(0, (0.8, 0.0, -1.75)) @ AHEAD_RIGHT_DOWN
"""The lidar, x ahead, y left, z up, on the vehicle."""


def kitti_world(points: np.ndarray) -> np.ndarray:
    """Points given around the vehicle at frame 5, x ahead, y left, z up, level."""
    x, y, z = kitti_vehicle(5)[:3, 3]
    motion = turn_z(70, (x, y, z))
    return points @ motion[:3, :3].T + motion[:3, 3]


def _line(name: str, matrix: np.ndarray) -> str:
    return f"{name} " + " ".join(f"{value:.12e}" for value in np.asarray(matrix).ravel())


def write_kitti360(root: Path, boxes: bool = True) -> Path:
    """One drive: pictures of all four cameras, sweeps, boxes."""
    calibration = root / "calibration"
    calibration.mkdir(parents=True)
    focal, u, v = FRONT_LENS
    lines = ["calib_time: 2013-05-28 08:46:02", "corner_dist: 9.95e-02"]
    for number, shift in (("00", 0.0), ("01", -0.6 * focal)):
        lines += [
            _line(f"S_{number}:", np.array((48.0, 16.0))),
            _line(f"K_{number}:", np.eye(3)),
            f"D_{number}: 0 0 0 0 0",
        ]
        lines += [
            _line(f"R_rect_{number}:", rectifying(f"image_{number}")),
            _line(f"S_rect_{number}:", np.array(FRONT)),
        ]
        lines += [_line(f"P_rect_{number}:", np.array(((focal, 0, u, shift), (0, focal, v, 0), (0, 0, 1, 0))))]
    (calibration / "perspective.txt").write_text("\n".join(lines) + "\n")
    names = [f"image_{number:02d}" for number in range(4)]
    (calibration / "calib_cam_to_pose.txt").write_text(
        "\n".join(_line(f"{name}:", kitti_mount(name)[:3]) for name in names) + "\n"
    )
    camera_to_lidar = np.linalg.inv(VELO) @ kitti_mount("image_00")
    (calibration / "calib_cam_to_velo.txt").write_text(_line("", camera_to_lidar[:3]).strip() + "\n")
    for name in names[2:]:
        (calibration / f"{name}.yaml").write_text(_wide_yaml(name))
    poses = root / "data_poses" / DRIVE / "poses.txt"
    poses.parent.mkdir(parents=True)
    poses.write_text("\n".join(_line(str(frame), kitti_vehicle(frame)[:3]) for frame in FRAMES) + "\n")
    for name in names:
        _write_kitti_pictures(root / "data_2d_raw" / DRIVE / name, name)
    _write_kitti_sweeps(root / "data_3d_raw" / DRIVE / "velodyne_points" / "data")
    if boxes:
        path = root / "data_3d_bboxes" / "train" / f"{DRIVE}.xml"
        path.parent.mkdir(parents=True)
        path.write_text(kitti_boxes())
    return root


def _wide_yaml(name: str) -> str:
    groups = {"mirror_parameters": ("xi",), "distortion_parameters": ("k1", "k2", "p1", "p2")}
    groups["projection_parameters"] = ("gamma1", "gamma2", "u0", "v0")
    lines = ["%YAML:1.0", "---", "model_type: MEI", f"camera_name: {name}"]
    lines += [f"image_width: {WIDE}", f"image_height: {WIDE}"]
    for group, keys in groups.items():
        lines += [f"{group}:", *(f"   {key}: {WIDE_LENS[key]:.16e}" for key in keys)]
    return "\n".join(lines) + "\n"


def _write_kitti_pictures(folder: Path, name: str) -> None:
    pictures = folder / ("data_rect" if name in ("image_00", "image_01") else "data_rgb")
    pictures.mkdir(parents=True)
    for frame in FRAMES:
        pixels = np.full((FRONT[1], FRONT[0], 3), 10 * frame, np.uint8)
        if pictures.name == "data_rgb":
            pixels = np.zeros((WIDE, WIDE, 3), np.uint8)
            local = np.linalg.inv(kitti_vehicle(frame) @ kitti_mount(name)) @ np.append(kitti_beacon(name), 1)
            u, v = project_wide(local[:3])
            rows, columns = np.mgrid[:WIDE, :WIDE]
            pixels[np.hypot(rows - v, columns - u) < 1.6] = 255
        Image.fromarray(pixels).save(pictures / f"{frame:010d}.png")
    lines = [f"2013-05-28 08:46:{2 + frame // 10:02d}.{frame % 10}04520704" for frame in range(20)]
    (folder / "timestamps.txt").write_text("\n".join(lines) + "\n")


def kitti_beacon(name: str) -> np.ndarray:
    """A light to the left, ahead, for the left fisheye; to the right, behind, for the right one."""
    place = (9.0, 7.0, 1.0) if name == "image_02" else (-4.0, -6.0, 2.0)
    return kitti_world(np.array(place))


def project_wide(point: np.ndarray) -> tuple[float, float]:
    """By the formula of KITTI-360's documentation."""
    x, y, z = point / np.linalg.norm(point)
    x, y = x / (z + WIDE_LENS["xi"]), y / (z + WIDE_LENS["xi"])
    square = x * x + y * y
    grown = 1 + WIDE_LENS["k1"] * square + WIDE_LENS["k2"] * square**2
    return WIDE_LENS["gamma1"] * x * grown + WIDE_LENS["u0"], WIDE_LENS["gamma2"] * y * grown + WIDE_LENS["v0"]


def _write_kitti_sweeps(folder: Path) -> None:
    folder.mkdir(parents=True)
    points = kitti_world(LANDMARKS)
    for frame in FRAMES:
        local = np.linalg.inv(kitti_vehicle(frame) @ VELO) @ np.column_stack((points, np.ones(len(points)))).T
        table = np.concatenate((local[:3].T, [[0.5, -0.3, -0.8]]))
        content = np.column_stack((table, np.full(len(table), 0.3)))
        (folder / f"{frame:010d}.bin").write_bytes(content.astype("<f4").tobytes())


CUBE = np.array([(x, y, z) for x in (-0.5, 0.5) for y in (-0.5, 0.5) for z in (-0.5, 0.5)])
CUBE_FACES = (
    (0, 1, 3),
    (0, 3, 2),
    (4, 6, 7),
    (4, 7, 5),
    (0, 4, 5),
    (0, 5, 1),
    (2, 3, 7),
    (2, 7, 6),
    (0, 2, 6),
    (0, 6, 4),
)


def kitti_boxes() -> str:
    """A parked car, a car that drives, a house, a road of two triangles (with a bottom, as an extruded polygon has)."""

    def matrix(name: str, values: np.ndarray) -> str:
        numbers = " ".join(f"{value:.9g}" for value in np.asarray(values).ravel())
        rows, columns = np.asarray(values).shape
        head = f'<{name} type_id="opencv-matrix"><rows>{rows}</rows><cols>{columns}</cols><dt>f</dt>'
        return f"{head}<data>\n {numbers}\n</data></{name}>"

    def item(number: int, semantic: int, instance: int, frame: int, transform: np.ndarray, corners, faces) -> str:
        fields = {"index": number, "label": "x", "semanticId": semantic, "instanceId": instance, "timestamp": frame}
        fields |= {"dynamic": int(frame >= 0), "start_frame": 0, "end_frame": 20}
        texts = "".join(f"<{key}>{value}</{key}>" for key, value in fields.items())
        matrices = matrix("transform", transform) + matrix("vertices", corners) + matrix("faces", np.array(faces))
        return f"<object{number}>{texts}{matrices}</object{number}>"

    def place(x: float, y: float, z: float, yaw: float, size: tuple[float, float, float]) -> np.ndarray:
        base = turn_z(70, tuple(kitti_vehicle(5)[:3, 3]))
        return base @ turn_z(yaw, (x, y, z)) @ np.diag((*size, 1.0))

    slab = [(x, y, z) for z in (-0.9, -1.1) for x, y in ((-40.0, -3.0), (40.0, -3.0), (40.0, 3.0), (-40.0, 3.0))]
    slab_faces = ((0, 1, 2), (0, 2, 3), (4, 6, 5), (4, 7, 6))
    flat = turn_z(70, tuple(kitti_vehicle(5)[:3, 3]))
    driving = (-1.0, -0.2, 10.0, (4.0, 1.7, 1.4))
    items = [
        item(1, 13, 4, -1, place(4.0, 4.5, -0.2, 90.0, (4.4, 1.8, 1.5)), CUBE, CUBE_FACES),
        *(item(2 + n, 13, 5, frame, place(6.0 + n, *driving), CUBE, CUBE_FACES) for n, frame in enumerate(FRAMES)),
        item(20, 11, 1, -1, place(0.0, -9.0, 3.0, 0.0, (8.0, 4.0, 8.0)), CUBE, CUBE_FACES),
        item(21, 1, 0, -1, flat, np.array(slab), slab_faces),
        item(22, 9, 0, -1, flat, CUBE, CUBE_FACES),
        "<note>of another kind</note>",
    ]  # fmt: skip
    return f'<?xml version="1.0"?>\n<opencv_storage>{"".join(items)}</opencv_storage>\n'
