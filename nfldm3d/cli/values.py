"""Option values that no command takes."""


def require_at_least(options: object, **least: int) -> None:
    """Raises a ValueError that names the first option below its least value."""
    for name, bound in least.items():
        value = getattr(options, name)
        if value < bound:
            raise ValueError(f"--{name.replace('_', '-')} must be at least {bound}, got {value}")
