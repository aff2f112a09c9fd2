"""The settings of an exploration, of all the searches in it and of the certificates."""

from dataclasses import dataclass, field

from jaxscape.search.basin_hopping import HoppingConfig
from jaxscape.search.eigenvector_following import FollowingConfig, PushOffConfig
from jaxscape.search.elastic_band import BandConfig


@dataclass(frozen=True)
class ExploreConfig:
    """Settings of an exploration.

    `num_minima`: so many are enough, once they are joined and the lowest is sure, and hops add none above the quarter
    as many lowest; `coverage`: the landscape counts as explored once another search finds something new with a chance
    below `1 - coverage` (95 % confidence) and nothing unseen is estimated;
    `hopping_steps`: gradients per walker and round; `num_searches`: transition-state searches per round; `num_lanes`:
    searches in work at once, few for the cache of a CPU, hundreds for a GPU, the same result with any; then the
    settings of the searches.
    """

    num_minima: int = 1000
    coverage: float = 0.995
    hopping_steps: int = 1000
    num_searches: int = 32
    num_lanes: int = 4
    hopping: HoppingConfig = field(default_factory=HoppingConfig)
    band: BandConfig = field(default_factory=BandConfig)
    following: FollowingConfig = field(default_factory=FollowingConfig)
    push_off: PushOffConfig = field(default_factory=PushOffConfig)
