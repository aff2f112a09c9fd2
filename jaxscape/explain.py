"""The whole chain: table, network, loss landscape, disconnectivity, conserved weights, ranked and validated columns."""

import functools
import hashlib
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from jaxscape import losses, models
from jaxscape.analysis import attribution, conserved, disconnectivity, validation
from jaxscape.analysis.conserved import ConservedWeights
from jaxscape.analysis.disconnectivity import MergeTree
from jaxscape.analysis.validation import PermutationTest
from jaxscape.datasets import DataError, Dataset
from jaxscape.landscape import database, explore
from jaxscape.landscape.database import Landscape
from jaxscape.landscape.explore import Budget, Exploration, ExploreConfig
from jaxscape.objective import Objective, from_loss, ravel
from jaxscape.symmetry import Symmetry

_NUM_WALKERS = 8
_MIN_GROUP = 10


@dataclass(frozen=True)
class ExplainConfig:
    """Settings of the main job: the network, how far to explore, and what counts as conserved."""

    hidden: int = 5
    activation: str = "tanh"
    l2: float = 1e-3
    minima: int = 50
    rounds: int = 6
    criterion: conserved.Criterion = "relative"
    threshold: float = 0.3
    num_draws: int = 500
    seed: int = 0


class Explanation(NamedTuple):
    """What `explain` found out.

    `landscape`; its merge `tree`; the `level` of the cut and the ids of the minima of the chosen `group`, the lowest
    first; `weights (m, P)`: these minima, aligned; `conserved`: of this one group; `test`: of the lowest minimum, None
    where fewer than two weights are conserved;
    `scores (features,)`: share of each original column; `scores_std (features,)`: over the group; `train_score`,
    `test_score`: AUC, or R² in a regression, of the lowest minimum; `seconds`.
    """

    dataset: Dataset
    config: ExplainConfig
    symmetry: Symmetry
    landscape: Landscape
    tree: MergeTree
    level: float
    group: Int[np.ndarray, " m"]
    weights: Float[np.ndarray, "m P"]
    conserved: ConservedWeights
    test: PermutationTest | None
    scores: Float[np.ndarray, " features"]
    scores_std: Float[np.ndarray, " features"]
    train_score: float
    test_score: float
    seconds: float


Progress = Callable[[float, str], None]


def explain(
    dataset: Dataset,
    config: ExplainConfig = ExplainConfig(),
    *,
    checkpoint: Path | None = None,
    resume: bool = False,
    progress: Progress = lambda fraction, text: None,
) -> Explanation:
    """Explore the loss landscape of a small network on a table and rank the columns that drive it.

    Args:
        dataset: from `datasets.prepare`.
        config: settings.
        checkpoint: a file to keep the landscape in, written after every round of the exploration.
        resume: go on from the checkpoint, if there is one.
        progress: called with the fraction done and what is being done.

    Raises:
        DataError: if a setting is out of range, or the checkpoint was made with other data or settings.
    """
    began = time.monotonic()
    check(config)
    objective, symmetry, starts, key = problem(dataset, config)
    landscape = _explore(objective, symmetry, starts, key, dataset, config, checkpoint, resume, progress)
    progress(0.93, "analysing the landscape")
    energies, states = landscape.minima.energies, landscape.transition_states
    tree = disconnectivity.merge_tree(energies, states.energies, states.minima)
    level = disconnectivity.choose_level(tree, energies, min_size=_MIN_GROUP)
    labels = disconnectivity.superbasins(tree, level)
    members = np.flatnonzero(labels == labels[energies.argmin()])
    group = members[np.argsort(energies[members], kind="stable")]
    one_group = np.zeros(len(group), int)
    weights, _ = conserved.align_groups(symmetry, landscape.minima.positions[group], energies[group], one_group)
    candidates = np.isin(np.arange(symmetry.dim), symmetry.layers[0].incoming)
    found = conserved.conserved_weights(
        weights, one_group, criterion=config.criterion, threshold=config.threshold, candidates=candidates
    )
    # A group of one conserves all of its weights, so that its scores are plain magnitudes.
    chosen = found.mask[0] if len(group) > 1 else candidates
    scores, scores_std = _column_scores(dataset, weights, chosen, symmetry)
    best = jnp.asarray(weights[0])
    score_train, score_test = (
        _scorer(objective, dataset, config, *rows)
        for rows in ((dataset.x_train, dataset.y_train), (dataset.x_test, dataset.y_test))
    )
    progress(0.96, "testing the conserved weights")
    test = None
    if found.mask[0].sum() > 1:  # shuffling one weight changes nothing
        test = validation.permutation_test(
            jax.random.fold_in(key, 2),
            score_test,
            best,
            jnp.asarray(chosen),
            strata=jnp.where(jnp.asarray(candidates), 0, -1),
            num_draws=config.num_draws,
        )
    return Explanation(
        dataset=dataset,
        config=config,
        symmetry=symmetry,
        landscape=landscape,
        tree=tree,
        level=level,
        group=group,
        weights=weights,
        conserved=found,
        test=jax.tree.map(np.asarray, test),
        scores=scores,
        scores_std=scores_std,
        train_score=float(score_train(best)),
        test_score=float(score_test(best)),
        seconds=time.monotonic() - began,
    )


def problem(dataset: Dataset, config: ExplainConfig) -> tuple[Objective, Symmetry, Float[Array, "B P"], Array]:
    """Return the objective of the network on the training rows, its symmetry, the walkers' starts, and the key."""
    sizes = (dataset.x_train.shape[1], config.hidden, 1)
    key, start_key = jax.random.split(jax.random.key(config.seed))
    draw = jax.jit(jax.vmap(lambda key: models.init(key, sizes)))
    drawn = draw(jax.random.split(start_key, _NUM_WALKERS))
    starts, params = jax.vmap(ravel)(drawn), jax.tree.map(lambda leaf: leaf[0], drawn)
    data = losses.Supervised(jnp.asarray(dataset.x_train), jnp.asarray(dataset.y_train), jnp.asarray(config.l2))
    loss = losses.sigmoid_cross_entropy if dataset.task == "binary" else losses.squared_error
    objective = from_loss(loss(models.mlp(config.activation)), params, data)
    return objective, models.symmetry(sizes, config.activation), starts, key


def check(config: ExplainConfig) -> None:
    """Raise a `DataError` that names the first setting that is out of range."""
    if not 0 <= config.seed < 2**32:
        raise DataError(f"seed must be between 0 and {2**32 - 1}, got {config.seed}")
    for name in ("hidden", "minima", "rounds"):
        if getattr(config, name) < 1:
            raise DataError(f"{name} must be at least 1, got {getattr(config, name)}")
    if not 0 < config.threshold <= 1:
        raise DataError(f"threshold is a fraction of the weights, above 0 and at most 1, got {config.threshold}")
    if not (np.isfinite(config.l2) and config.l2 > 0):
        raise DataError(
            f"l2 must be positive, got {config.l2}: without it the minima are not isolated and the search cannot end"
        )


def _scorer(
    objective: Objective, dataset: Dataset, config: ExplainConfig, x: np.ndarray, y: np.ndarray
) -> Callable[[Array], Array]:
    predict = models.mlp(config.activation)
    measure = validation.auc if dataset.task == "binary" else validation.r2
    inputs, targets = jnp.asarray(x), jnp.asarray(y)
    return lambda weights: measure(targets, predict(objective.unravel(weights), inputs)[:, 0])


def _column_scores(
    dataset: Dataset, weights: Float[np.ndarray, "m P"], mask: Bool[np.ndarray, " P"], symmetry: Symmetry
) -> tuple[Float[np.ndarray, " features"], Float[np.ndarray, " features"]]:
    """Add up the scores of the inputs of each original column, as shares of the whole; then their spread."""
    belongs = np.eye(len(dataset.features))[dataset.column]

    def shares(points: Float[np.ndarray, "n P"]) -> Float[np.ndarray, "n features"]:
        scores = attribution.input_scores(points, mask, symmetry) @ belongs
        return scores / np.maximum(scores.sum(axis=1, keepdims=True), np.finfo(float).tiny)

    return shares(weights.mean(axis=0, keepdims=True))[0], shares(weights).std(axis=0)


def _explore(
    objective: Objective,
    symmetry: Symmetry,
    starts: Float[Array, "B P"],
    key: Array,
    dataset: Dataset,
    config: ExplainConfig,
    checkpoint: Path | None,
    resume: bool,
    progress: Progress,
) -> Landscape:
    num_lanes = 4 if jax.default_backend() == "cpu" else 64
    settings = ExploreConfig(num_minima=config.minima, hopping_steps=500, num_searches=20, num_lanes=num_lanes)
    exploration = explore.start(objective, symmetry, starts, jax.random.fold_in(key, 1), settings)
    meta = {"settings": _settings(config), "data": _digest(dataset)}
    exploration = exploration._replace(landscape=database.empty(symmetry, meta))
    if resume and checkpoint is not None and checkpoint.exists():
        exploration = _resume(exploration, checkpoint, meta)
    if checkpoint is not None:
        checkpoint.parent.mkdir(parents=True, exist_ok=True)
    while not explore.finished(exploration, settings, Budget(config.rounds)):
        tell = functools.partial(_tell, progress, config, exploration)
        exploration = explore.advance(objective, exploration, jax.random.fold_in(key, 1), settings, on_phase=tell)
        if checkpoint is not None and len(exploration.landscape.minima.energies):
            database.save(checkpoint, exploration.landscape, extra=explore.checkpoint(exploration))
    if len(exploration.landscape.minima.energies) == 0:
        raise DataError(
            f"no minimum was found in {config.rounds} rounds: the loss is hard to minimise; try more --rounds or "
            "another --l2"
        )
    return exploration.landscape


def _tell(progress: Progress, config: ExplainConfig, exploration: Exploration, phase: str) -> None:
    """Turn a phase of a round into a fraction done and a sentence."""
    landscape, done = exploration.landscape, exploration.round - 1
    minima, states = explore.coverage_of(landscape)
    part = (done + explore.PHASES.index(phase) / len(explore.PHASES)) / config.rounds
    compiling = ", compiling" if done == 0 else ""
    found = f"{minima.found} minima, {states.found} transition states, coverage {states.coverage:.0%}"
    progress(0.9 * part, f"{phase}{compiling} ({found})")


def _resume(fresh: Exploration, checkpoint: Path, meta: dict[str, Any]) -> Exploration:
    try:
        landscape = database.load(checkpoint)
        before = landscape.meta.get("settings", {})
        different = [name for name, value in meta["settings"].items() if before.get(name) != value]
        if different:
            raise DataError(
                f"{checkpoint} was made with another {', '.join(different)}: use the same, or run without --resume"
            )
        if landscape.meta.get("data") != meta["data"]:
            raise DataError(f"{checkpoint} was made from other data: run without --resume to start again")
        return explore.restore(fresh, landscape, database.load_extra(checkpoint))
    except DataError:
        raise
    except ValueError as error:
        raise DataError(f"cannot resume: {error}") from error


def _settings(config: ExplainConfig) -> dict[str, Any]:
    """The settings that shape the exploration: a change of the others does not forbid to resume."""
    names = ("hidden", "activation", "l2", "minima", "seed")
    return {name: value for name, value in asdict(config).items() if name in names}


def _digest(dataset: Dataset) -> str:
    arrays = (dataset.x_train, dataset.y_train)
    return hashlib.sha256(b"".join(np.ascontiguousarray(array).tobytes() for array in arrays)).hexdigest()
