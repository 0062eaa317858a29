"""Novel views by diffusion: one picture of an object in, views from all around out, and a field fitted to them."""

from typing import TYPE_CHECKING

from nfldm3d._lazy import lazily

if TYPE_CHECKING:
    from nfldm3d.pipelines.views.object_fitting import fit_object
    from nfldm3d.pipelines.views.object_pictures import ObjectPicture, read_object, read_object_camera
    from nfldm3d.pipelines.views.paths import make_view_path
    from nfldm3d.pipelines.views.synthesis import ViewSynthesizer

__getattr__ = lazily(
    __name__,
    {
        "ObjectPicture": "object_pictures",
        "ViewSynthesizer": "synthesis",
        "fit_object": "object_fitting",
        "make_view_path": "paths",
        "read_object": "object_pictures",
        "read_object_camera": "object_pictures",
    },
)

__all__ = ["ObjectPicture", "ViewSynthesizer", "fit_object", "make_view_path", "read_object", "read_object_camera"]
