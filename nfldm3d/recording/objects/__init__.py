"""Objects seen from everywhere: any folder of meshes, furniture, aircraft and cars, drawn without a screen."""

from nfldm3d.recording.objects.object_recorder import ObjectShape
from nfldm3d.recording.objects.recorder import ObjectOptions, record_objects
from nfldm3d.recording.objects.sources import find_objects
from nfldm3d.recording.objects.views import Sphere

__all__ = ["ObjectOptions", "ObjectShape", "Sphere", "find_objects", "record_objects"]
