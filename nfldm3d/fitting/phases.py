"""The phases of a fit to photographs: coarse grids first, fine ones last."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Phase:
    """A part of the schedule. While there is fog everywhere, rays are dear and coarse voxels need few of them."""

    start: float
    """Share of the schedule at which it begins."""
    resolution: float
    """Share of the final resolution along each axis."""
    rays: float
    """Share of the rays per step."""
    prune_unseen: bool
    """Whether it begins with a look at which voxels are seen at all."""
    sky: bool
    """Whether the sky is learned. Before, rays that nothing stops see noise, so that walls form, not holes in them."""

    @property
    def footprint(self) -> float:
        """How many more rays meet a voxel than in the last phase: its gradient is so much stronger."""
        return self.resolution**-2

    def scaled(self, resolution: tuple[int, int, int]) -> tuple[int, int, int]:
        """The resolution in this phase of a grid that ends with the given one."""
        x, y, z = (max(1, round(count * self.resolution)) for count in resolution)
        return (x, y, z)


PHASES = (
    Phase(0.0, 1 / 8, 1 / 4, prune_unseen=False, sky=False),
    Phase(0.02, 1 / 4, 1 / 4, prune_unseen=False, sky=False),
    Phase(0.15, 1 / 2, 1 / 2, prune_unseen=True, sky=True),
    Phase(0.35, 1.0, 1.0, prune_unseen=False, sky=True),
)
COARSE_SCHEDULE = 2000
"""Where time is the limit, coarse phases take no more steps than in a schedule of so many: theirs are quick, so that
shares of the time would be thousands of them, and few steps of fine voxels would be left."""


def find_phase(share: float, steps: int, *, timed: bool) -> int:
    """The number of the phase that is due after a share of the schedule, which are so many steps."""
    done = max(share, steps / COARSE_SCHEDULE) if timed else share
    return max(number for number, phase in enumerate(PHASES) if done >= phase.start)
