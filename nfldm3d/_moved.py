"""Old module names, good for one more release: importing one warns and gives the module under its new name."""

import sys
import warnings
from collections.abc import Callable
from functools import wraps
from importlib import import_module
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any, TypeVar

Function = TypeVar("Function", bound=Callable[..., Any])

MOVED = {
    "nfldm3d.bev_painter": "nfldm3d.viewer.bev_painter",
    "nfldm3d.data.vizdoom": "nfldm3d.recording.vizdoom.recorder",
    "nfldm3d.data.vizdoom_game": "nfldm3d.recording.vizdoom.game",
    "nfldm3d.data.vizdoom_poses": "nfldm3d.recording.vizdoom.poses",
    "nfldm3d.data.vizdoom_scenes": "nfldm3d.recording.vizdoom.scene_recorder",
    "nfldm3d.data.vizdoom_shards": "nfldm3d.recording.vizdoom.shard_recorder",
    "nfldm3d.data.vizdoom_views": "nfldm3d.recording.vizdoom.engine_views",
    "nfldm3d.distributions": "nfldm3d.evaluation.distributions",
    "nfldm3d.export.pictures": "nfldm3d.export.textures",
    "nfldm3d.export.sampling": "nfldm3d.export.surface_samples",
    "nfldm3d.field": "nfldm3d.fields",
    "nfldm3d.fitting.loop": "nfldm3d.fitting.photographs",
    "nfldm3d.metrics": "nfldm3d.evaluation.metrics",
    "nfldm3d.models.critic": "nfldm3d.models.nfldm.critic",
    "nfldm3d.models.denoisers": "nfldm3d.models.nfldm.denoisers",
    "nfldm3d.models.latent_autoencoder": "nfldm3d.models.nfldm.latent_autoencoder",
    "nfldm3d.models.lifting": "nfldm3d.models.nfldm.lifting",
    "nfldm3d.models.losses": "nfldm3d.models.nfldm.losses",
    "nfldm3d.models.panorama": "nfldm3d.models.nfldm.panorama",
    "nfldm3d.models.pooling": "nfldm3d.models.nfldm.pooling",
    "nfldm3d.models.pretrained_features": "nfldm3d.evaluation.features",
    "nfldm3d.models.quantizer": "nfldm3d.models.nfldm.quantizer",
    "nfldm3d.models.readers": "nfldm3d.models.nfldm.readers",
    "nfldm3d.models.scene_autoencoder": "nfldm3d.models.nfldm.scene_autoencoder",
    "nfldm3d.models.scene_voxels": "nfldm3d.models.nfldm.scene_voxels",
    "nfldm3d.models.scores": "nfldm3d.evaluation.scene_scores",
    "nfldm3d.models.trajectories": "nfldm3d.models.nfldm.trajectories",
    "nfldm3d.ops.memory": "nfldm3d.ops.allocation",
    "nfldm3d.paths": "nfldm3d.rendering.paths",
    "nfldm3d.pipelines.autoencoder_scores": "nfldm3d.evaluation.autoencoder_report",
    "nfldm3d.pipelines.generator_scores": "nfldm3d.evaluation.generator",
    "nfldm3d.pipelines.memorisation": "nfldm3d.evaluation.memorisation",
    "nfldm3d.training.batches": "nfldm3d.training.sample_stream",
    "nfldm3d.training.checkpoint": "nfldm3d.training.saved_state",
    "nfldm3d.training.export": "nfldm3d.training.trained_weights",
    "nfldm3d.training.loop": "nfldm3d.training.trainer",
    "nfldm3d.training.options": "nfldm3d.training.run_options",
    "nfldm3d.training.signals": "nfldm3d.signals",
    "nfldm3d.video": "nfldm3d.rendering.video",
}


def warn_renamed(old: str, new: str) -> None:
    """Says, to who called the caller, that something has another name now."""
    warnings.warn(f"{old} is now {new}; the old name goes with the next release", DeprecationWarning, 3)


def renamed_argument(old: str, new: str) -> Callable[[Function], Function]:
    """Lets a function take an argument under its old name, too."""

    def wrap(function: Function) -> Function:
        @wraps(function)
        def call(*arguments: Any, **options: Any) -> Any:
            if old in options:
                warn_renamed(f"the argument {old} of {function.__name__}", new)
                options[new] = options.pop(old)
            return function(*arguments, **options)

        return call  # type: ignore[return-value]

    return wrap


class MovedModules(MetaPathFinder, Loader):
    """Answers imports of modules that have moved."""

    def __init__(self) -> None:
        self._specs: dict[str, ModuleSpec | None] = {}

    def find_spec(self, fullname: str, path: object = None, target: ModuleType | None = None) -> ModuleSpec | None:
        return ModuleSpec(fullname, self) if fullname in MOVED else None

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        new = MOVED[spec.name]
        warnings.warn(f"{spec.name} is now {new}; the old name goes with the next release", DeprecationWarning, 2)
        module = import_module(new)
        self._specs[spec.name] = module.__spec__
        return module

    def exec_module(self, module: ModuleType) -> None:
        assert module.__spec__ is not None
        module.__spec__ = self._specs[module.__spec__.name]  # the import system has put the old name's there


def install() -> None:
    """Lets Python find the old names."""
    if not any(isinstance(finder, MovedModules) for finder in sys.meta_path):
        sys.meta_path.append(MovedModules())
