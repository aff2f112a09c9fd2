"""Loss landscapes of neural networks: minima, transition states, disconnectivity, conserved weights.

Left of the `Landscape` all is pure, jitted, batched JAX; right of it, NumPy arrays in and out.
"""

from jaxscape import _interrupts as _interrupts
from jaxscape import clusters as clusters
from jaxscape import evidence as evidence
from jaxscape import leave_one_out as leave_one_out
from jaxscape import losses as losses
from jaxscape import models as models
from jaxscape import objective as objective
from jaxscape import plotting as plotting
from jaxscape import surfaces as surfaces
from jaxscape import symmetry as symmetry
from jaxscape.analysis import attribution as attribution
from jaxscape.analysis import conserved as conserved
from jaxscape.analysis import disconnectivity as disconnectivity
from jaxscape.analysis import effects as effects
from jaxscape.analysis import kinetics as kinetics
from jaxscape.analysis import multiplicity as multiplicity
from jaxscape.analysis import superbasins as superbasins
from jaxscape.analysis import thermodynamics as thermodynamics
from jaxscape.analysis import validation as validation
from jaxscape.compilation import compile_fast as compile_fast
from jaxscape.compilation import use_cache as use_cache
from jaxscape.cores import use_all_cores as use_all_cores
from jaxscape.landscape import certify as certify
from jaxscape.landscape import coverage as coverage
from jaxscape.landscape import database as database
from jaxscape.landscape import exchange as exchange
from jaxscape.landscape import ledger as ledger
from jaxscape.landscape import morse as morse
from jaxscape.landscape.config import ExploreConfig as ExploreConfig
from jaxscape.landscape.database import Landscape as Landscape
from jaxscape.landscape.explore import explore as explore
from jaxscape.landscape.fan_out import explore_on as explore_on
from jaxscape.landscape.stopping import Budget as Budget
from jaxscape.model_result import explain_model as explain_model
from jaxscape.objective import Objective as Objective
from jaxscape.objective import from_loss as from_loss
from jaxscape.objective import from_rows as from_rows
from jaxscape.objective import ravel as ravel
from jaxscape.search import basin_hopping as basin_hopping
from jaxscape.search import eigenpair as eigenpair
from jaxscape.search import eigenvector_following as eigenvector_following
from jaxscape.search import elastic_band as elastic_band
from jaxscape.search import gauss_newton as gauss_newton
from jaxscape.search import lanes as lanes
from jaxscape.search import lbfgs as lbfgs
from jaxscape.search import newton as newton
from jaxscape.search import steepest_descent as steepest_descent
from jaxscape.search.points import StationaryPoint as StationaryPoint
from jaxscape.search.points import Status as Status
from jaxscape.search.quench import quench as quench
from jaxscape.symmetry import Symmetry as Symmetry
from jaxscape.table.result import explain as explain


def __getattr__(name: str) -> object:
    """Import the estimators when they are asked for: they need scikit-learn, which takes a second."""
    if name in ("LandscapeClassifier", "LandscapeRegressor"):
        from jaxscape.table import estimators

        return getattr(estimators, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
