"""How a scene is refined: one flat record that the command line shares."""

import math
from dataclasses import dataclass

from nfldm3d._types import LARGEST_SEED

MOST_VIEWS = 10_000
SHARES = ("copied", "frozen", "most_noise", "match_colors")
POSITIVE = ("views", "views_per_step", "steps", "finer", "rate", "restoring_steps")
NOT_NEGATIVE = ("density_rate", "near", "steady", "smoothness", "keep_coarse", "guidance_scale", "seed")


@dataclass(frozen=True)
class RefineOptions:
    """Options of ``refine``; the defaults suit a laptop."""

    views: int = 48
    """Cameras that are looked from: a third where the scene's own are, a third there with other headings, a third on 6
    square metres about the middle."""
    views_per_step: int = 4
    """Of them, in each step."""
    steps: int = 240
    """Optimiser steps."""
    finer: int = 2
    """Voxels of the refined field along each edge of one of the scene's."""
    rate: float = 0.03
    """Step size of colours at the beginning."""
    density_rate: float = 0.05
    """Step size of what a voxel absorbs, as a share of ``rate``."""
    frozen: float = 0.4
    """Share of the steps before densities move."""
    copied: float = 0.25
    """Share of the steps, before distillation, that repeat what the scene shows: its decoder's detail. A restorer needs
    none."""
    near: float = 50.0
    """How much densities are kept to what they were."""
    steady: float = 1e-4
    """How much the sky is kept to what it was. Adam moves what hardly shows, behind the ground, as fast as anything
    else; where another camera sees it, it glares."""
    smoothness: float = 0.02
    """How much neighbouring colours are kept alike."""
    keep_coarse: float = 4.0
    """How much pictures of 16 pixels are kept to what the scene showed, in distillation."""
    match_colors: float = 0.0
    """Of distillation: how far the scene's colours are moved as a whole, before anything else, to those of the pictures
    that it is told of, from 0 to 1. For another time of day 1; to sharpen, 0."""
    most_noise: float = 0.45
    """Of distillation: the latest of the model's time steps that are drawn at first, as a share; more moves shapes and
    whole pictures."""
    guidance_scale: float = 7.5
    """Of distillation: how far pictures are moved away from what they must not be like."""
    plain_guidance: bool = False
    """Distillation away from nothing instead of from the scene's own renders."""
    restoring_steps: int = 1
    """Steps of a restorer; further ones draw detail that differs between cameras."""
    seed: int = 0
    """The same seed gives the same scene on a CPU."""

    def __post_init__(self):
        if self.views > MOST_VIEWS:
            raise ValueError(f"views must be at most {MOST_VIEWS}, got {self.views}")
        for name in POSITIVE:
            if not 0 < getattr(self, name) < math.inf:
                raise ValueError(f"{name} must be a finite number above 0, got {getattr(self, name)}")
        for name in NOT_NEGATIVE:
            if not 0 <= getattr(self, name) < math.inf:
                raise ValueError(f"{name} must be a finite number, not below 0, got {getattr(self, name)}")
        if self.seed > LARGEST_SEED:
            raise ValueError(f"seed must be at most {LARGEST_SEED}, got {self.seed}")
        for name in SHARES:
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name} is a share, from 0 to 1, got {getattr(self, name)}")
