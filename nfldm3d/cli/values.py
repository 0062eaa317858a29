"""Option values that no command takes."""

from nfldm3d._types import LARGEST_SEED


def require_at_least(options: object, **least: int) -> None:
    """Raises a ValueError that names the first option below its least value, or a seed that no generator takes."""
    for name, bound in least.items():
        value = getattr(options, name)
        if value < bound:
            raise ValueError(f"--{name.replace('_', '-')} must be at least {bound}, got {value}")
    if "seed" in least:
        require_at_most(options, seed=LARGEST_SEED)


def require_at_most(options: object, **most: int) -> None:
    """Raises a ValueError that names the first option above its greatest value."""
    for name, bound in most.items():
        value = getattr(options, name)
        if value is not None and value > bound:
            raise ValueError(f"--{name.replace('_', '-')} must be at most {bound}, got {value}")
