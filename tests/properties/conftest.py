"""The hypothesis profile of this folder: no deadline on a shared machine, and the same examples in every run of the CI."""

from hypothesis import HealthCheck, Phase, settings

settings.register_profile(
    "gradflow",
    deadline=None,
    derandomize=True,
    database=None,
    max_examples=40,
    phases=[Phase.explicit, Phase.generate, Phase.shrink],
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)
settings.load_profile("gradflow")
