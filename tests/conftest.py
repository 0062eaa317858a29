"""What every test shares: the GPU, real or pretended, the one seed, and one thread, as tests run side by side."""

from collections.abc import Iterator
from contextlib import nullcontext

import pytest
import torch
from hypothesis import HealthCheck, settings
from pretend_gpu import pretend_gpu

torch.set_num_threads(1)

# How long an example takes tells of the machine and what else it does, not of the code.
settings.register_profile("suite", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("suite")


@pytest.fixture(autouse=True)
def gpu(request: pytest.FixtureRequest) -> Iterator[None]:
    """Tests marked ``cuda`` run on the GPU; on machines without one, on a pretended one."""
    wanted = request.node.get_closest_marker("cuda") is not None
    with pretend_gpu() if wanted and not torch.cuda.is_available() else nullcontext():
        yield


@pytest.fixture
def generator() -> torch.Generator:
    return torch.Generator().manual_seed(0)


@pytest.fixture(autouse=True)
def same_draws() -> None:
    """Networks begin with the same weights whatever ran before."""
    torch.manual_seed(0)
