"""All that ViewDiff adds to a text-to-image U-Net, in a folder of its own beside the U-Net's.

``ViewLayers.of`` looks at a ``UNet2DConditionModel`` and makes what it lacks, ``attach`` puts that in place: its
attention layers then ask across views, and its inner transformers are followed by projection layers. The U-Net's own
weights keep their names, so that it is saved as it always was; without ``views`` it works as it always did.
"""

import itertools
from collections.abc import Sequence
from typing import Any

from diffusers.configuration_utils import ConfigMixin, register_to_config
from diffusers.models.modeling_utils import ModelMixin
from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
from jaxtyping import Float
from torch import Tensor, nn

from nfldm3d.models.views.multiview.attention import ViewAttention, ViewProcessor
from nfldm3d.models.views.multiview.batches import ViewBatch
from nfldm3d.models.views.multiview.projection import ProjectionLayer

ENDING = ".processor"
"""Of the names that diffusers gives to what computes attention."""


class ViewLayers(ModelMixin, ConfigMixin):
    """Low-rank additions to attention layers, and projection layers."""

    config_name = "config.json"

    @register_to_config
    def __init__(
        self,
        attentions: Sequence[Sequence[Any]] = (),
        projections: Sequence[Sequence[Any]] = (),
        memory: int = 1280,
        rank: int = 64,
        width: int = 16,
        grid: int = 32,
        unbounded: bool = True,
        replace: bool = False,
        shared: bool = True,
        surroundings: bool = False,
    ):
        """As ``of`` finds it.

        Args:
            attentions: name, inner width, width and width of what is asked, of each attention layer, and whether it
                asks the picture itself.
            projections: name and channels of each transformer that is followed by a projection layer.
            memory: width of the embeddings of time steps.
            rank: of the additions.
            width, grid, unbounded, replace: see ``ProjectionLayer``.
            shared: whether attention asks across views; without it, an ablation.
            surroundings: whether pictures show what is around objects, for whoever gives or takes some.
        """
        super().__init__()
        if rank < 1:
            raise ValueError(f"rank must be at least 1, got {rank}")
        self.additions, self.renderers = nn.ModuleDict(), nn.ModuleDict()
        for name, inner, channels, context, across in attentions:
            layer = ViewAttention(inner, channels, context, memory, rank, across=bool(across))
            self.additions[_key(name)] = layer
        for name, channels in projections:
            self.renderers[_key(name)] = ProjectionLayer(
                channels, memory, width=width, grid=grid, unbounded=unbounded, replace=replace
            )

    @classmethod
    def of(
        cls,
        unet: UNet2DConditionModel,
        *,
        levels: int | None = 1,
        rank: int = 64,
        width: int = 16,
        grid: int = 32,
        unbounded: bool = True,
        replace: bool = False,
        shared: bool = True,
        surroundings: bool = False,
    ) -> "ViewLayers":
        """New ones for a U-Net.

        Args:
            levels: blocks with attention, counted outwards from the middle on both ways, whose transformers are
                followed by projection layers, besides that of the middle; None for none at all, an ablation.

        Raises:
            ValueError: the U-Net has no attention where it is asked for.
        """
        attentions = []
        for name in unet.attn_processors:
            layer = unet.get_submodule(name.removesuffix(ENDING))
            across = name.removesuffix(ENDING).endswith("attn1")
            context = layer.query_dim if across else layer.cross_attention_dim
            attentions.append((name.removesuffix(ENDING), layer.inner_dim, layer.query_dim, context, across))
        if not any(across for *_, across in attentions):
            raise ValueError(
                "this U-Net has no transformers, as DeepFloyd's, so that views could not see each other; take another, "
                "such as Stable Diffusion's"
            )
        projections = [] if levels is None else _find_transformers(unet, levels)
        memory = unet.time_embedding.linear_2.out_features
        return cls(attentions, projections, memory, rank, width, grid, unbounded, replace, shared, surroundings)

    def attach(self, unet: UNet2DConditionModel) -> None:
        """Puts the layers into a U-Net, which is changed; once for each U-Net.

        Raises:
            ValueError: they belong to a U-Net with other layers.
        """
        wanted = {_key(name.removesuffix(ENDING)) for name in unet.attn_processors}
        if wanted != set(self.additions):
            odd = sorted(wanted ^ set(self.additions))[0].replace("-", ".")
            raise ValueError(f"these layers are of another U-Net: they differ at {odd}; give those saved with it")
        shared = bool(self.config["shared"])
        processors = {
            name: ViewProcessor(self.additions[_key(name.removesuffix(ENDING))], shared=shared)  # type: ignore[arg-type]
            for name in unet.attn_processors
        }
        unet.set_attn_processor(processors)  # type: ignore[arg-type]
        for key, layer in self.renderers.items():
            transformer = unet.get_submodule(key.replace("-", "."))
            transformer.register_forward_hook(_Projecting(layer), with_kwargs=True)  # type: ignore[arg-type]


class _Projecting:
    """What is done behind a transformer, if it is told of views."""

    def __init__(self, layer: ProjectionLayer):
        self.layer = layer

    def __call__(self, _: nn.Module, given: tuple, options: dict[str, Any], made: Any) -> Any:
        batch: ViewBatch | None = (options.get("cross_attention_kwargs") or {}).get("views")
        if batch is None:
            return made
        whole = not isinstance(made, tuple)
        hidden: Float[Tensor, "all channels height width"] = made.sample if whole else made[0]
        before = given[0] if given else options["hidden_states"]
        changed = (before if self.layer.replace else hidden) + self.layer(hidden, batch)
        return type(made)(sample=changed) if whole else (changed, *made[1:])


def _find_transformers(unet: UNet2DConditionModel, levels: int) -> list[tuple[str, int]]:
    """Names and channels of the transformers of the innermost blocks."""
    if levels < 0:
        raise ValueError(f"levels counts blocks from the middle outwards, 0 for the middle alone, got {levels}")
    ways = {"down_blocks": list(enumerate(unet.down_blocks))[::-1], "up_blocks": list(enumerate(unet.up_blocks))}
    names = []
    for way, blocks in ways.items():
        with_attention = [number for number, block in blocks if len(getattr(block, "attentions", None) or ())]
        if len(with_attention) < levels:
            raise ValueError(
                f"{way} of this U-Net have attention in {len(with_attention)} blocks, not {levels}; give fewer levels"
            )
        names += [f"{way}.{number}" for number in with_attention[:levels]]
    if len(getattr(unet.mid_block, "attentions", None) or ()):
        names.append("mid_block")
    blocks = [(name, unet.get_submodule(name).attentions) for name in names]
    found = itertools.chain.from_iterable(
        ((f"{name}.attentions.{number}", int(each.in_channels)) for number, each in enumerate(attentions))  # type: ignore[arg-type, union-attr]
        for name, attentions in blocks
    )
    chosen = list(found)
    if not chosen:
        raise ValueError("the middle of this U-Net has no attention; give levels of at least 1, or another U-Net")
    return chosen


def _key(name: str) -> str:
    """The name of a layer as one of a dictionary of modules, which takes no dots."""
    return name.replace(".", "-")
