"""From a table to a landscape: the objective, at penalties that are given or that the data support, explored."""

import functools
import hashlib
import itertools
import json
import math
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray
from scipy.special import softmax

from jaxscape import evidence, losses
from jaxscape import models as network
from jaxscape.cores import on_device, spread
from jaxscape.landscape import certify, database, explore
from jaxscape.landscape.config import ExploreConfig
from jaxscape.landscape.database import Landscape
from jaxscape.landscape.doubts import empty_because
from jaxscape.landscape.exploration import Exploration, checkpoint_of, restore, with_landscape
from jaxscape.landscape.stopping import Budget, coverage_of, found_lowest_by, stopped_by
from jaxscape.objective import Objective, flattened, from_loss, from_rows, hessian, ravel
from jaxscape.programs import program
from jaxscape.search.basin_hopping import HoppingConfig
from jaxscape.search.eigenvector_following import FollowingConfig
from jaxscape.search.gauss_newton import GaussNewtonConfig
from jaxscape.symmetry import Symmetry
from jaxscape.table import mixture
from jaxscape.table.aims import AIMS, Aim, Loss
from jaxscape.table.datasets import DataError, Dataset, drawn
from jaxscape.table.mixture import Mixture
from jaxscape.table.predict import Members, Penalties, limits_of

_NUM_WALKERS = 8
_MAX_MODELS = 100
_LARGEST_SCALE = 4.0  # of a weight: a weak penalty says that the data decide, not that long steps are wanted
# Where the noise of a regression is small L-BFGS takes thousands of gradients (boston: 0 of 32 starts in 5,000,
# Gauss-Newton 32 of 32 in some 80 steps).
_MAX_DENSE, _DENSE_STEPS = 100, 80  # weights; steps of a round
_PENALTIES = 0.3  # of the progress bar
# Rows times weights of what is explored: up to so many all rows are searched, of more rows about so many numbers are
# drawn, at which a gradient takes a millisecond or two and an exploration of 100,000 some minutes.
_MOST_NUMBERS, _DRAWN_NUMBERS, _FEWEST_DRAWN = 1 << 20, 1 << 18, 2000
_MOST_LEFT_OUT = 1000  # weights of networks that are asked what they would be without a row
_COVERAGE = 0.95  # of an exploration that is complete: the next search finds something new with a chance of at most 5 %
_FLOPS, _MOST_GRADIENTS = 3.5e12, 1.4e7  # for an exploration
# Temperatures of the first walker and the last, and steps of saddle searches, longer across than atoms bear. On eight
# tables of judge.py (20 columns, L2 1e-3) walkers at 0.02 end higher, and steps of 0.2 take twice the gradients.
_TEMPERATURES, _FOLLOWING = (5e-3, 1e-4), FollowingConfig(max_uphill=0.05, max_step=0.8)


@dataclass(frozen=True)
class ExplainConfig:
    """Settings of the main job: the networks, how far to explore, and what counts as conserved.

    `penalty`: "evidence", so that the data choose one for each column, or a number: the L2 strength of every weight.
    `hidden`: units of each hidden layer; by default of one layer, as many as the data support, or 5 with a fixed
    penalty. `loss`: the "likelihood" (cross-entropy, or squared error in a regression), the same "balanced" so that all
    classes count the same, or, for two classes, a smooth "auc". The exploration ends when it is complete, or
    `num_minima` are joined and the lowest is sure; or after so many `rounds`; or, instead, after `max_seconds`, of
    which it is not known beforehand which round they end in; or when a budget of gradients is spent, of minutes or, of
    large tables, up to half an hour. With several `workers` so many processes explore first, each with half of the
    budget, and the exploration goes on from all that they found with the other half: on machines of many cores.
    """

    hidden: tuple[int, ...] | None = None
    activation: str = "tanh"
    loss: Loss = "likelihood"
    penalty: float | Literal["evidence"] = "evidence"
    num_minima: int = 50
    rounds: int = 20
    max_seconds: float = math.inf
    workers: int = 1
    criterion: Literal["relative", "absolute", "magnitude"] = "relative"
    threshold: float = 0.3
    num_draws: int = 500
    seed: int = 0

    @property
    def aim(self) -> Aim:
        """What is minimised, besides the penalties."""
        return AIMS[self.loss]


def sizes_of(config: ExplainConfig) -> tuple[tuple[int, ...], ...]:
    """Return the sizes of networks among which the data choose."""
    return mixture.SIZES if config.hidden is None else (config.hidden,)


PAPER = ExplainConfig(hidden=(5,), penalty=1e-3)  # as in the paper on conserved weights


class Problem(NamedTuple):
    """What is explored: an `objective` and its `symmetry`; the walkers' `starts`, of which the first `num_known` are
    near minima; the `key` for what follows; `scale (P,)`: weights over coordinates; `seen`: the dataset without the
    columns that the networks do not use, and of many training rows those drawn to be searched; `inputs`: which of all
    inputs these are; the `hidden` units.

    What is found on drawn rows is the landscape of these rows. A penalty is the precision of a weight before any row is
    seen, the same for any number of rows: with n rows the energy is the mean error plus sum(alpha / n * weight**2) / 2,
    n the number of rows searched, so that n times the energy is the posterior that these rows allow."""

    objective: Objective
    symmetry: Symmetry
    starts: Float[Array, "B P"]
    num_known: int
    key: PRNGKeyArray
    scale: Float[np.ndarray, " P"]
    seen: Dataset
    inputs: Bool[np.ndarray, " inputs"]
    hidden: tuple[int, ...]


Progress = Callable[[float, str], None]


def problem(dataset: Dataset, config: ExplainConfig, supported: Mixture | None = None) -> Problem:
    """Make the problem to explore.

    Args:
        dataset: from `datasets.prepare`.
        config: settings.
        supported: the penalties that the data support, from `mixture.fit`; None where the penalty is given.
    """
    if supported is None:
        return _with_penalty(dataset, config)
    return _with_evidence(dataset, config, supported)


def _with_penalty(dataset: Dataset, config: ExplainConfig) -> Problem:
    hidden = config.hidden or PAPER.hidden or ()
    sizes = mixture.architecture(dataset, hidden, dataset.x_train.shape[1])
    key, starts = _starts(config.seed, sizes)
    seen, weights = _searched(dataset, config, sizes)
    loss = config.aim.loss(dataset.kind)
    data = losses.Supervised(
        on_device(seen.x_train),
        on_device(seen.y_train),
        on_device(config.penalty, float),
        None if weights is None else on_device(weights),
    )
    objective = from_loss(loss(network.mlp(config.activation)), mixture.example(sizes), data)
    everything = np.ones(dataset.x_train.shape[1], bool)
    symmetry = network.symmetry(sizes, config.activation)
    return Problem(objective, symmetry, starts, 0, key, np.ones(objective.dim), seen, everything, hidden)


def _with_evidence(dataset: Dataset, config: ExplainConfig, supported: Mixture) -> Problem:
    size = supported.best
    inputs = size.awake[dataset.column]
    sizes = mixture.architecture(dataset, size.hidden, int(inputs.sum()))
    seen, weights = _searched(without(dataset, inputs), config, sizes)
    kept = np.ones(len(size.groups), bool)
    kept[: inputs.size * size.hidden[0]] = np.repeat(inputs, size.hidden[0])
    alphas, noise = size.found.alphas[0][size.groups[kept]], size.found.noises[0]
    scale = np.minimum(np.exp2(np.round(-0.5 * np.log2(alphas))), _LARGEST_SCALE)
    key, drawn = _starts(config.seed, sizes)
    starts = np.asarray(drawn) / scale
    known = size.found.positions[:_NUM_WALKERS, kept] / scale
    starts[: len(known)] = known
    predict = network.mlp(config.activation)
    x, y = on_device(seen.x_train), on_device(seen.y_train)
    if not config.aim.of_rows:
        counts = None if weights is None else on_device(weights)
        data = (losses.Supervised(x, y, 0.0, counts), on_device(alphas / len(y)))
        objective = from_loss(_penalised_auc(predict), mixture.example(sizes), data)
    else:
        objective = from_rows(
            predict, dataset.kind.likelihood(), mixture.example(sizes), x, y, weights=weights, precision=0.0
        )
        objective = evidence.at(objective, alphas, noise)
    objective = replace(objective, scale=on_device(scale))
    symmetry = network.symmetry(sizes, config.activation)
    return Problem(objective, symmetry, on_device(starts), len(known), key, scale, seen, inputs, size.hidden)


@functools.cache
def _penalised_auc(predict: losses.Predict) -> losses.Loss:
    """Return `loss(params, (data, precision))`: one minus a smooth AUC, plus a penalty for each weight."""
    surrogate = losses.auc_surrogate(predict)

    def loss(params: Any, data: tuple[losses.Supervised, Array]) -> Float[Array, ""]:
        rows, precision = data
        return surrogate(params, rows) + 0.5 * jnp.sum(precision * ravel(params) ** 2)

    return loss


def without(dataset: Dataset, inputs: Bool[np.ndarray, " inputs"]) -> Dataset:
    """Return the dataset with only some of its inputs; its columns keep their numbers."""
    return dataset._replace(
        x_train=dataset.x_train[:, inputs],
        x_test=dataset.x_test[:, inputs],
        column=dataset.column[inputs],
        inputs=tuple(name for name, kept in zip(dataset.inputs, inputs, strict=True) if kept),
    )


def members_of(
    found: Problem, landscape: Landscape, dataset: Dataset, config: ExplainConfig, supported: Mixture | None
) -> tuple[Members, Int[np.ndarray, " m"]]:
    """Choose the networks that predict together: the minima of the landscape, and those at other penalties.

    At a given penalty the minima, at most the 100 lowest, all count the same. At penalties from the evidence they take
    the place of the network whose penalties they have, each by its own evidence. The other networks minimise the
    likelihood, and are left out where something else is minimised.

    Returns:
        The networks, those of the landscape first, and the ids of these, the lowest first.
    """
    lowest = np.argsort(landscape.minima.energies, kind="stable")[:_MAX_MODELS]
    weights = landscape.minima.positions[lowest] * found.scale
    if supported is None:
        share = np.full(len(lowest), 1 / len(lowest))
        return Members(weights, share, found.objective.unravel, config.activation, None, limits_of(dataset)), lowest
    others = supported.networks[1:] if config.aim.is_likelihood else supported.networks[:0]
    widest = max([found.hidden, *(supported.sizes[i].hidden for i in others[:, 0])])
    num_outputs = mixture.num_outputs(dataset)
    wide = [mixture.padded(each, found.hidden, widest, found.inputs, num_outputs) for each in weights]
    wide += [mixture.network_of(dataset, supported.sizes[i], j, widest) for i, j in others.tolist()]
    energies, curvatures = landscape.minima.energies[lowest], landscape.minima.log_determinants[lowest]
    # A smooth AUC is no likelihood, and curvatures of very many weights are not known: then all count the same.
    likely = config.aim.of_rows and np.all(np.isfinite(curvatures))
    within = softmax(-len(found.seen.y_train) * energies - curvatures / 2 if likely else 0 * energies)
    shares = np.concatenate([supported.weights[0] * within, supported.weights[1 : 1 + len(others)]])
    _, _, unravel = flattened(mixture.example(mixture.architecture(dataset, widest, len(found.inputs))))
    number = min(supported.num_rows, len(found.seen.y_train))
    penalties = None
    if config.aim.is_likelihood and number == len(dataset.y_train) and len(wide[0]) <= _MOST_LEFT_OUT:
        restarts = supported.networks[:1].tolist() * len(lowest) + others.tolist()
        alphas = [mixture.penalties_of(dataset, supported.sizes[i], j, widest) for i, j in restarts]
        noises = [supported.sizes[i].found.noises[j] for i, j in restarts]
        penalties = Penalties(np.array(alphas), np.array(noises))
    shares /= shares.sum()
    return Members(np.array(wide), shares, unravel, config.activation, penalties, limits_of(dataset)), lowest


def posterior_variances(found: Problem, positions: Float[np.ndarray, "m P"]) -> Float[np.ndarray, "m P"]:
    """Return how far each weight may move within the well of each minimum: the diagonal of (rows * Hessian)^-1."""
    number = len(found.seen.y_train)
    inverses = spread(lambda x: np.asarray(_inverse_diagonal(found.objective, on_device(x))), list(positions))
    return np.asarray(found.scale**2 * np.array(inverses) / number)


@program
def _inverse_diagonal(objective: Objective, x: Array) -> Array:
    return jnp.diag(jnp.linalg.inv(hessian(objective, x)))


def _searched(
    dataset: Dataset, config: ExplainConfig, sizes: tuple[int, ...]
) -> tuple[Dataset, Float[np.ndarray, " N"] | None]:
    """Return the dataset with the training rows that are searched for such networks, all or some drawn, and what each
    counts, None where all count the same."""
    dim = sum((fan_in + 1) * fan_out for fan_in, fan_out in itertools.pairwise(sizes))
    number = max(_DRAWN_NUMBERS // dim, _FEWEST_DRAWN)
    if len(dataset.y_train) * dim <= _MOST_NUMBERS or number >= len(dataset.y_train):
        return dataset, config.aim.row_weights(dataset.y_train, dataset.weights_train)
    rows, weights = drawn(dataset, number)
    seen = dataset._replace(x_train=dataset.x_train[rows], y_train=dataset.y_train[rows])
    return seen, config.aim.row_weights(seen.y_train, weights)


@program(static_argnames=("sizes",))
def _starts(seed: Int[Array, ""] | int, sizes: tuple[int, ...]) -> tuple[PRNGKeyArray, Float[Array, "B P"]]:
    """Draw the walkers' starts, and a key for what follows: all in one program."""
    key, start_key = jax.random.split(jax.random.key(seed))
    keys = jax.random.split(start_key, _NUM_WALKERS)
    return key, jax.vmap(lambda key: ravel(network.init(key, sizes)))(keys)


def check(config: ExplainConfig, dataset: Dataset | None = None) -> None:
    """Raise a `DataError` that names the first setting that is out of range, or does not fit the data."""
    if not 0 <= config.seed < 2**32:
        raise DataError(f"seed must be between 0 and {2**32 - 1}, got {config.seed}")
    for name in ("num_minima", "rounds", "num_draws", "max_seconds", "workers"):
        if not getattr(config, name) >= 1:
            raise DataError(f"{name} must be at least 1, got {getattr(config, name)}")
    if config.hidden is not None and (not config.hidden or min(config.hidden) < 1):
        raise DataError(f"hidden must be at least 1 in each layer, got {' '.join(map(str, config.hidden)) or 'none'}")
    if config.loss not in AIMS:
        raise DataError(f"loss must be one of {', '.join(AIMS)}, got {config.loss!r}")
    for name, choices in (("criterion", ("relative", "absolute", "magnitude")), ("activation", network.ACTIVATIONS)):
        if getattr(config, name) not in choices:
            raise DataError(f"{name} must be one of {', '.join(choices)}, got {getattr(config, name)!r}")
    if not 0 < config.threshold <= 1:
        raise DataError(f"threshold is a fraction of the weights, above 0 and at most 1, got {config.threshold}")
    if isinstance(config.penalty, str) and config.penalty != "evidence":
        raise DataError(f"penalty must be a number or evidence, got {config.penalty!r}")
    if not isinstance(config.penalty, str) and not (np.isfinite(config.penalty) and config.penalty > 0):
        raise DataError(
            f"penalty must be positive, got {config.penalty}: without one the minima are not isolated and the search "
            "cannot end; evidence lets the data choose"
        )
    if dataset is not None and (misfit := config.aim.misfit(dataset.kind, len(dataset.y_train))) is not None:
        raise DataError(misfit)


class Explored(NamedTuple):
    """A `problem`, its `landscape` in the coordinates of its objective, what ended the exploration, `stopped_by` (see
    `stopping.stopped_by`), how many walkers `found_lowest` on their own, and the penalties that the data support,
    `supported`, None where the penalty was given."""

    problem: Problem
    landscape: Landscape
    stopped_by: str
    found_lowest: int
    supported: Mixture | None


def explore_landscape(
    dataset: Dataset,
    config: ExplainConfig = ExplainConfig(),
    *,
    checkpoint: Path | None = None,
    resume: bool = False,
    progress: Progress = lambda fraction, text: None,
) -> Explored:
    """Do the first and longest part of `explain`: choose penalties, explore the loss of a network on the training rows.

    Takes and raises what `explain` does.
    """
    began = time.monotonic()
    check(config, dataset)
    supported = None
    if config.penalty == "evidence":
        supported = mixture.fit(
            dataset,
            sizes_of(config),
            config.activation,
            config.seed,
            lambda part, text: progress(_PENALTIES * part, text),
        )
    made = problem(dataset, config, supported)
    objective, key = made.objective, made.key
    settings = _explore_settings(made, config, supported)
    rounds = config.rounds if math.isinf(config.max_seconds) else sys.maxsize  # who gives a time wants it used
    budget = Budget(rounds, _gradients(made), config.max_seconds)
    progress(_PENALTIES if supported is not None else 0.0, "compiling")
    exploration = explore.start(objective, made.symmetry, made.starts, jax.random.fold_in(key, 1), settings)
    explore.compile_ahead(objective, exploration, settings)
    if supported is not None and objective.outputs is not None:
        known = np.asarray(made.starts[: made.num_known])  # minima that the search for penalties ended at, nearly
        landscape = certify.certified(objective, made.symmetry, known, known[:0], settings)
        exploration = with_landscape(exploration, landscape)
    origin = {"settings": np.asarray(json.dumps(_settings(config))), "data": np.asarray(_digest(dataset))}
    origin |= {"scale": made.scale, "inputs": made.inputs}
    if supported is not None:
        best = supported.best.found
        origin["penalties"] = np.append(best.alphas[0], best.noises[0])
    resumed = resume and checkpoint is not None and checkpoint.exists()
    if resumed and checkpoint is not None:
        exploration = _resume(exploration, checkpoint, origin)
    if checkpoint is not None:
        checkpoint.parent.mkdir(parents=True, exist_ok=True)
    if config.workers > 1:
        left = config.max_seconds - (time.monotonic() - began)
        half = Budget(max(budget.rounds // 2, 1), budget.evaluations / 2, left / 2)
        if not resumed:
            exploration = _by_workers(exploration, made, (dataset, config, supported), settings, half, progress)
        budget = budget._replace(evaluations=config.workers * half.evaluations + half.evaluations)

    def keep(exploration: Exploration) -> None:
        if checkpoint is not None and len(exploration.landscape.minima.energies):
            weights = scaled(exploration.landscape, made.scale)
            database.save(checkpoint, weights, extra=checkpoint_of(exploration) | origin)

    while (ended := stopped_by(exploration, settings, budget, seconds=time.monotonic() - began)) is None:
        tell = functools.partial(_tell, progress, config, budget, exploration, began)
        exploration = explore.advance(objective, exploration, jax.random.fold_in(key, 1), settings, on_phase=tell)
        keep(exploration)
    if len(exploration.landscape.minima.energies) == 0:
        raise DataError(
            f"no minimum was found in {exploration.round - 1} rounds: {empty_because(exploration.landscape)}"
        )
    bounded = explore.bound_barriers(objective, exploration, settings)
    if bounded is not exploration:
        keep(bounded)
    return Explored(made, bounded.landscape, ended, found_lowest_by(bounded), supported)


def _by_workers(
    exploration: Exploration,
    made: Problem,
    origin: tuple[Dataset, ExplainConfig, Mixture | None],
    settings: ExploreConfig,
    budget: Budget,
    progress: Progress,
) -> Exploration:
    from jaxscape.table.workers import explored_by_workers

    _, config, supported = origin
    first = _PENALTIES if supported is not None else 0.0

    def tell(number: int) -> None:
        text = f"exploring in {config.workers} processes, {number} of them done"
        progress(first + (0.9 - first) * number / (2 * config.workers), text)

    tell(0)
    make = functools.partial(problem, *origin)
    try:
        landscape = explored_by_workers(make, made, settings, budget, config.workers, config.seed, tell)
    except RuntimeError as error:
        raise DataError(f"exploring in {config.workers} processes failed: {error}") from error
    return with_landscape(exploration, database.merge(exploration.landscape, landscape))


def _explore_settings(made: Problem, config: ExplainConfig, supported: Mixture | None) -> ExploreConfig:
    num_lanes = 4 if jax.default_backend() == "cpu" else 64
    hopping = HoppingConfig(temperature=on_device(np.geomspace(*_TEMPERATURES, len(made.starts))))
    settings = ExploreConfig(
        num_minima=config.num_minima,
        coverage=_COVERAGE,
        hopping_steps=500,
        num_searches=20,
        num_lanes=num_lanes,
        hopping=hopping,
        following=_FOLLOWING,
    )
    if supported is not None and made.seen.kind.is_quantity and made.objective.dim <= _MAX_DENSE:
        descent = replace(hopping, descent=GaussNewtonConfig())
        settings = replace(settings, hopping=descent, hopping_steps=_DENSE_STEPS)
    return settings


def _gradients(made: Problem) -> float:
    """Return how many gradients an exploration may take: of minutes or, where layers are narrow and rows many, more."""
    return min(_FLOPS / (6 * made.seen.x_train.shape[0] * made.objective.dim), _MOST_GRADIENTS)


def scaled(landscape: Landscape, scale: Float[np.ndarray, " P"]) -> Landscape:
    """Multiply all positions: from the coordinates of the search to weights, or with 1 / scale back.

    Scales are powers of two, so that nothing is rounded. Hessians stay those of the search.
    """
    minima, states, paths = landscape.minima, landscape.transition_states, landscape.paths
    return landscape._replace(
        minima=minima._replace(positions=minima.positions * scale),
        transition_states=states._replace(positions=states.positions * scale),
        paths=paths._replace(images=paths.images * scale),
    )


def _tell(
    progress: Progress, config: ExplainConfig, budget: Budget, exploration: Exploration, began: float, phase: str
) -> None:
    """Turn a phase of a round into a fraction done and a sentence."""
    landscape = exploration.landscape
    minima, states = coverage_of(landscape)
    spent = landscape.ledger.evaluations / budget.evaluations
    part = min(max(spent, (time.monotonic() - began) / config.max_seconds), 1.0)
    pieces = len(np.unique(database.components(landscape)))
    found = f"{minima.found} minima in {pieces} part{'s' * (pieces != 1)}, {states.found} transition states"
    first = _PENALTIES if config.penalty == "evidence" else 0.0
    progress(first + (0.9 - first) * part, f"{phase} ({found}, coverage {states.coverage:.0%})")


def _resume(fresh: Exploration, checkpoint: Path, origin: dict[str, np.ndarray]) -> Exploration:
    try:
        landscape, saved = database.load(checkpoint), database.load_extra(checkpoint)
        if not origin.keys() <= saved.keys():
            raise DataError(f"{checkpoint} does not say what it was made from: do not resume")
        before, now = (json.loads(str(each["settings"])) for each in (saved, origin))
        different = [name for name, value in now.items() if before.get(name) != value]
        if different:
            raise DataError(
                f"{checkpoint} was made with another {', '.join(different)}: take the same, or do not resume"
            )
        if saved["data"] != origin["data"]:
            raise DataError(f"{checkpoint} was made from other data: do not resume")
        if any(not np.array_equal(saved[name], origin[name]) for name in origin.keys() - {"settings", "data"}):
            raise DataError(f"{checkpoint} was made at other penalties, by another version or machine: do not resume")
        return restore(fresh, scaled(landscape, 1 / origin["scale"]), saved)
    except DataError:
        raise
    except ValueError as error:
        raise DataError(f"cannot resume: {error}") from error


def _settings(config: ExplainConfig) -> dict[str, Any]:
    """The settings that shape the exploration: a change of the others does not forbid to resume."""
    names = ("hidden", "activation", "loss", "penalty", "seed")
    return json.loads(json.dumps({name: asdict(config)[name] for name in names}))


def _digest(dataset: Dataset) -> str:
    digest = hashlib.sha256()
    weights = [] if dataset.weights_train is None else [dataset.weights_train]
    for array in (dataset.x_train, dataset.y_train, *weights):
        digest.update(np.ascontiguousarray(array).data)
    return digest.hexdigest()
