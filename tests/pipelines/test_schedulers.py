"""Every scheduler of diffusers samples data of a known distribution, or is refused by name."""

import diffusers
import pytest
import torch
from torch import Tensor

from nfldm3d.pipelines.sampling import Kept, Sampler
from nfldm3d.pipelines.schedulers import FITTING, require_fit
from nfldm3d.training.denoiser_stage import make_schedule

STEPS = 40
SPREAD = 0.6
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of diffusers' solvers, from numpy
TRAINED = make_schedule()
FIT = (
    *FITTING,
    *("DDIMParallelScheduler", "DDPMParallelScheduler", "DEISMultistepScheduler", "DPMSolverSinglestepScheduler"),
    *("EulerAncestralDiscreteScheduler", "EulerDiscreteScheduler", "KDPM2AncestralDiscreteScheduler"),
    *("KDPM2DiscreteScheduler", "LMSDiscreteScheduler", "PNDMScheduler", "SASolverScheduler", "TCDScheduler"),
)


def schedulers() -> list[str]:
    """Of the installed diffusers, with those that only stand in for a missing package."""
    return sorted(name for name in dir(diffusers) if name.endswith("Scheduler") and name != "KarrasVeScheduler")


def predict(noisy: Tensor, times: Tensor) -> Tensor:
    """The best v for independent numbers of standard deviation ``SPREAD``."""
    place = times.double().clamp(0, 999)
    lower = place.long().clamp(max=998)
    shares = TRAINED.alphas_cumprod.double()
    share = torch.lerp(shares[lower], shares[lower + 1], place - lower)[:, None, None, None]
    velocity = (share * (1 - share)).sqrt() * (1 - SPREAD**2) / (share * SPREAD**2 + 1 - share)
    return (velocity * noisy).to(noisy)


def sample(scheduler: object, kept: Kept | None = None) -> Tensor:
    draws = [torch.Generator().manual_seed(number) for number in range(2)]
    sampler = Sampler(scheduler, STEPS, progress=False)
    return sampler.sample("x", predict, (4, 24, 20), draws, torch.device("cpu"), kept)


@pytest.mark.parametrize("name", schedulers())
def test_a_scheduler_samples_the_data_or_is_refused(name: str) -> None:
    cls = getattr(diffusers, name)
    try:
        scheduler = cls.from_config(TRAINED.config)
    except (TypeError, ImportError, AttributeError):  # it is made of other things, or of a package that is missing
        assert name not in FIT
        return
    if name not in FIT:
        with pytest.raises(ValueError, match=rf"{name}.*use DDIMScheduler"):
            require_fit(scheduler, STEPS, TRAINED)
        return
    require_fit(scheduler, STEPS, TRAINED)
    samples = sample(scheduler)
    assert 0.85 * SPREAD < float(samples.std()) < 1.1 * SPREAD and abs(float(samples.mean())) < 0.05


@pytest.mark.parametrize("name", FIT)
def test_what_is_kept_does_not_disturb_the_rest(name: str) -> None:
    values = SPREAD * torch.randn(2, 4, 24, 20, generator=torch.Generator().manual_seed(9))
    share = torch.zeros_like(values)
    share[..., :12, :] = 1.0
    made = sample(getattr(diffusers, name).from_config(TRAINED.config), Kept(values, share))
    assert torch.equal(made[..., :12, :], values[..., :12, :])
    assert 0.85 * SPREAD < float(made[..., 12:, :].std()) < 1.1 * SPREAD


@pytest.mark.parametrize("name", FITTING)
@pytest.mark.parametrize("steps", [1, 2, 5, 10])
def test_few_steps_are_the_users_choice(name: str, steps: int) -> None:
    require_fit(getattr(diffusers, name).from_config(TRAINED.config), steps, TRAINED)


def test_the_number_of_steps_counts() -> None:
    heun = diffusers.HeunDiscreteScheduler.from_config(TRAINED.config)
    with pytest.raises(ValueError, match="HeunDiscreteScheduler would give noise: in 50 steps"):
        require_fit(heun, 6, TRAINED)
    require_fit(heun, 100, TRAINED)
    with pytest.raises(ValueError, match="KDPM2AncestralDiscreteScheduler would give noise: in 20 steps"):
        require_fit(diffusers.KDPM2AncestralDiscreteScheduler.from_config(TRAINED.config), 20, TRAINED)


def test_the_noise_of_the_training_counts() -> None:
    with pytest.raises(ValueError, match="predict v, but DDIMScheduler is made for epsilon"):
        require_fit(diffusers.DDIMScheduler(), STEPS, TRAINED)
    with pytest.raises(ValueError, match="DDIMScheduler would give noise"):
        require_fit(diffusers.DDIMScheduler(prediction_type="v_prediction"), STEPS, TRAINED)
    with pytest.raises(ValueError, match="DDIMScheduler would give noise"):  # it clips at 1
        require_fit(diffusers.DDIMScheduler.from_config(TRAINED.config, clip_sample=True), STEPS, TRAINED)
