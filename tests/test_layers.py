"""The gates of the package: imports point down, names resolve, the import is light, nothing unpickles."""

import ast
import importlib
import inspect
import subprocess
import sys
from pathlib import Path

import pytest

import nfldm3d
from nfldm3d.image_decoder import ImageDecoder

PACKAGE = Path(__file__).parents[1] / "nfldm3d"

# A module sees only the rows above its own; files of one folder see each other.
LAYERS = (
    ("_types", "_lazy", "_moved", "file_names", "messages", "signals", "temporary_files"),
    ("blocks", "camera_paths", "file_locks", "files", "geometry", "lens", "memory", "ops"),
    ("tensor_files", "written_files"),
    ("evaluation.edge_vgg",),
    ("evaluation.metrics",),
    ("evaluation.distributions", "evaluation.features", "evaluation.retrieval"),
    ("appearance", "camera", "fields", "image_decoder", "jobs", "pictures", "placement"),
    ("camera_problems",),
    ("scene_file",),
    ("data", "scene"),
    ("editing", "rendering"),
    ("export", "fitting", "models", "recording"),
    ("evaluation.scene_scores", "guidance"),
    ("interop", "pipelines", "training"),
    ("evaluation",),
    ("viewer",),
    ("cli",),
)
# Methods that users look for on an object of a lower row; inside their bodies alone, so no import runs in a circle.
DOORS = {"scene": ("rendering.renderer", "export.scene_export", "viewer.inline")}
LEVELS = {name: level for level, row in enumerate(LAYERS) for name in row}


def place(module: str) -> str:
    """The entry of LAYERS that a module belongs to: itself, or the nearest folder that has one."""
    parts = module.split(".")
    folders = (".".join(parts[:count]) for count in range(len(parts), 0, -1))
    return next((folder for folder in folders if folder in LEVELS), parts[0])


FOUNDATIONS = ("torch", "numpy", "safetensors.torch", "jaxtyping")


def module_names() -> list[str]:
    """Dotted names of every file of the package, without the package's own name; the root is ''."""
    paths = (path.relative_to(PACKAGE).with_suffix("") for path in sorted(PACKAGE.rglob("*.py")))
    return [".".join(part for part in path.parts if part != "__init__") for path in paths]


def source(name: str) -> str:
    path = PACKAGE.joinpath(*name.split(".")) if name else PACKAGE
    return (path / "__init__.py" if path.is_dir() else path.with_suffix(".py")).read_text(encoding="utf-8")


def imported(tree: ast.AST) -> list[tuple[int, str]]:
    """Line and dotted name of everything the code imports from the package, inside functions too."""
    found: list[tuple[int, str]] = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found += [(node.lineno, alias.name) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            start = "." * node.level + (node.module or "")
            found += [(node.lineno, f"{start}.{alias.name}") for alias in node.names]
    return [(line, name) for line, name in found if name.startswith(".") or name.split(".")[0] == "nfldm3d"]


def is_door(module: str, target: str, line: int, tree: ast.AST) -> bool:
    """Whether a method of ``module`` opens an upper room that ``DOORS`` names for it, or a type checker looks in."""
    bodies: list[ast.stmt] = [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)]
    bodies += [
        node for node in ast.walk(tree) if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"
    ]
    inside = any(node.lineno < line <= (node.end_lineno or 0) for node in bodies)
    return inside and any(target == door or target.startswith(f"{door}.") for door in DOORS.get(module, ()))


def forbidden_imports(module: str, code: str) -> list[str]:
    """What ``module`` (its name within the package) imports but must not see."""
    own, tree = place(module), ast.parse(code)
    wrong = []
    for line, name in imported(tree):
        if is_door(module, name.removeprefix("nfldm3d").strip("."), line, tree):
            continue
        target = place(name.removeprefix("nfldm3d").strip("."))
        if name.startswith("."):
            wrong.append(f"{module}:{line} imports {name} relatively; write the full name")
        elif target not in LEVELS:
            wrong.append(f"{module}:{line} imports {name}: the root, or a module missing in LAYERS")
        elif target != own and LEVELS[target] >= LEVELS.get(own, 0):
            wrong.append(f"{module}:{line} imports {name}, which does not lie below {own}")
    return wrong


def unsafe_code(code: str) -> list[str]:
    """Whatever could run code out of a file: pickle and its kin, eval, careless loaders."""
    wrong = []
    for node in ast.walk(ast.parse(code)):
        names: list[str] = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            names = [node.module or ""]
        wrong += [
            name
            for name in names
            if name.split(".")[0] in {"pickle", "dill", "joblib", "cloudpickle", "shelve", "marshal"}
        ]
        if isinstance(node, ast.Call):
            call, options = ast.unparse(node.func), {word.arg: ast.unparse(word.value) for word in node.keywords}
            careless_load = call == "torch.load" and options.get("weights_only") != "True"
            if careless_load or options.get("allow_pickle") == "True" or options.get("trust_remote_code") == "True":
                wrong.append(ast.unparse(node))
            if call in {"eval", "exec", "compile", "yaml.load", "torch.jit.load", "os.system"}:
                wrong.append(ast.unparse(node))
    return wrong


def test_every_module_has_a_layer() -> None:
    here = {place(name) for name in module_names()} - {""}
    assert here <= set(LEVELS), f"add {sorted(here - set(LEVELS))} to LAYERS"


def test_imports_point_down() -> None:
    wrong = [line for name in module_names() if name for line in forbidden_imports(name, source(name))]
    assert not wrong, "\n".join(wrong)


def seen_when_run(code: str) -> set[str]:
    """Dotted names of the package's own modules that code imports when it runs, inside functions too."""
    tree = ast.parse(code)
    for node in ast.walk(tree):
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            node.body = [ast.Pass()]
    names = {name.removeprefix("nfldm3d").strip(".") for _, name in imported(tree)}
    return {name if name in MODULES else name.rpartition(".")[0] for name in names}


def find_cycle(graph: dict[str, set[str]]) -> list[str]:
    """Modules that import each other in a circle, if there are any."""
    graph = {name: set(targets) for name, targets in graph.items()}
    while done := [name for name, targets in graph.items() if not targets & graph.keys()]:
        graph = {name: targets for name, targets in graph.items() if name not in done}
    way = [min(graph)] if graph else []
    while way and way[-1] not in way[:-1]:
        way.append(min(graph[way[-1]] & graph.keys()))
    return way[way.index(way[-1]) :] if way else []


MODULES = frozenset(module_names())


def test_no_modules_import_each_other_in_a_circle() -> None:
    graph = {name: seen_when_run(source(name)) - {name, *DOORS.get(name, ())} for name in MODULES if name}
    assert not find_cycle(graph)


def test_planted_circles_are_caught() -> None:
    assert find_cycle({"a": {"b"}, "b": {"c"}, "c": {"d", "b"}, "d": set()}) == ["b", "c", "b"]
    assert not find_cycle({"a": {"b", "c"}, "b": {"c"}, "c": set()})
    code = "if TYPE_CHECKING:\n    from nfldm3d.scene import Scene\ndef f():\n    from nfldm3d.camera import Camera"
    assert seen_when_run(code) == {"camera"}


@pytest.mark.parametrize(
    ("module", "code"),
    [
        ("ops.kernels", "from nfldm3d.camera import Camera"),
        ("ops.kernels", "def f():\n    import nfldm3d.scene"),
        ("camera", "from nfldm3d import field"),
        ("camera", "from nfldm3d.fields import VoxelField"),
        ("camera", "from nfldm3d import Scene"),
        ("camera", "import nfldm3d"),
        ("camera", "from . import lens"),
        ("camera", "from nfldm3d.utils import clamp"),
        ("scene", "from nfldm3d.rendering.renderer import render"),
        ("scene", "def f():\n    from nfldm3d.fitting import fit"),
        ("data.scenes", "def f():\n    from nfldm3d.rendering.renderer import render"),
    ],
)
def test_a_planted_import_is_caught(module: str, code: str) -> None:
    assert forbidden_imports(module, code)


def test_a_door_is_open_inside_a_method_alone() -> None:
    assert not forbidden_imports("scene", "def f():\n    from nfldm3d.rendering.renderer import render")


def test_a_downward_import_is_allowed() -> None:
    code = "import torch\nfrom nfldm3d import geometry\ndef f():\n    from nfldm3d.ops.launch import launch"
    assert not forbidden_imports("camera", code)
    assert not forbidden_imports("ops.bricks", code.replace("from nfldm3d import geometry", ""))


def test_nothing_unpickles_or_evaluates() -> None:
    wrong = [f"{name}: {text}" for name in module_names() for text in unsafe_code(source(name))]
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize(
    "code",
    [
        "import pickle",
        "from joblib import load",
        "torch.load(path)",
        "torch.load(path, weights_only=False)",
        "numpy.load(path, allow_pickle=True)",
        "eval(text)",
    ],
)
def test_planted_unsafe_code_is_caught(code: str) -> None:
    assert unsafe_code(code)


def test_safe_code_is_allowed() -> None:
    assert not unsafe_code("model.eval()\ntorch.load(path, weights_only=True)\nnumpy.load(path, allow_pickle=False)")


def test_every_module_begins_with_a_sentence() -> None:
    silent = [
        name or "nfldm3d"
        for name in module_names()
        if source(name).strip() and not ast.get_docstring(ast.parse(source(name)))
    ]
    assert not silent


def has_docstring(item: object) -> bool:
    """Whether a class or function says something itself: neither inherited nor made up by ``dataclass``."""
    if not (inspect.isclass(item) or inspect.isroutine(item)):
        return True  # a constant's docstring cannot be seen at run time
    text = item.__dict__.get("__doc__") or "" if inspect.isclass(item) else item.__doc__ or ""
    return bool(text) and not text.startswith(f"{item.__name__}(")


def test_every_public_name_resolves_and_is_explained() -> None:
    wrong = []
    for name in module_names():
        if name.endswith("__main__"):
            continue  # it runs when imported
        module = importlib.import_module(f"nfldm3d.{name}".rstrip("."))
        for public in getattr(module, "__all__", ()):
            if not hasattr(module, public) or not has_docstring(getattr(module, public)):
                wrong.append(f"{module.__name__}.{public}")
    assert not wrong


def test_commands_start_without_networks() -> None:
    """``nfldm3d --help`` waits for torch alone; diffusers and transformers would take ten seconds more."""
    heavy = "{'diffusers', 'transformers', 'warp', 'viser', 'torch._dynamo'}"
    code = f"import sys, nfldm3d.cli.commands\nprint(*{heavy} & set(sys.modules))"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert run.returncode == 0 and not run.stdout.split(), run.stderr + run.stdout


def test_scenes_that_a_network_draws_are_read_without_its_compiler(tmp_path: Path) -> None:
    """torch's takes three seconds to import, which whoever looks at a generated scene would wait for."""
    box = nfldm3d.Box((0.0, 0.0, 0.0), (1.0, 1.0, 1.0))
    field = nfldm3d.VoxelField.zeros(box, (2, 2, 2), 4)
    nfldm3d.Scene(field, ImageDecoder(4, widths=(8, 8))).save(tmp_path / "scene.nfld")
    code = (
        f"import sys, nfldm3d\nnfldm3d.Scene.load({str(tmp_path / 'scene.nfld')!r})\n"
        "print(*{'torch._dynamo', 'sympy', 'diffusers', 'warp'} & set(sys.modules))"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert run.returncode == 0 and not run.stdout.split(), run.stderr + run.stdout


def test_import_is_light() -> None:
    """A fresh interpreter loads nothing beyond the four foundations and the standard library."""
    code = (
        f"import sys, {', '.join(FOUNDATIONS)}\n"
        "before = set(sys.modules)\n"
        "import nfldm3d\n"
        "print(*{name.split('.')[0] for name in set(sys.modules) - before} - set(sys.stdlib_module_names))"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    foundations = {name.split(".")[0] for name in FOUNDATIONS}
    assert set(run.stdout.split()) - foundations == {"nfldm3d"}
