"""The whole chain: table, network, loss landscape, disconnectivity, conserved weights, ranked and validated columns."""

import functools
import hashlib
import json
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple, get_args

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, PRNGKeyArray
from scipy.special import softmax

from jaxscape import losses
from jaxscape import models as network
from jaxscape.analysis import attribution, conserved, disconnectivity, validation
from jaxscape.analysis.attribution import Importance, Stability
from jaxscape.analysis.conserved import ConservedWeights, Superbasin
from jaxscape.analysis.disconnectivity import MergeTree
from jaxscape.analysis.validation import PermutationTest
from jaxscape.datasets import DataError, Dataset
from jaxscape.landscape import database, explore
from jaxscape.landscape.config import ExploreConfig
from jaxscape.landscape.database import Landscape
from jaxscape.landscape.explore import Budget, Exploration
from jaxscape.objective import Objective, from_loss, ravel
from jaxscape.symmetry import Symmetry, input_weights

Loss = Literal["likelihood", "balanced", "auc"]
_NUM_WALKERS = 8
_MIN_GROUP = 10
_MAX_MODELS = 100
_MAX_ROWS = 2000
_MAX_PAIRS = 200_000  # of rows of either class, up to which comparing them all is faster than sorting
_MAX_RANKED = 1000  # the Hessian of a smooth AUC takes gigabytes beyond
_ERRORS = {"binary": losses.sigmoid_errors, "multiclass": losses.softmax_errors, "regression": losses.squared_errors}


@dataclass(frozen=True)
class ExplainConfig:
    """Settings of the main job: the network, how far to explore, and what counts as conserved.

    `hidden`: units of each hidden layer; `loss`: the "likelihood" (cross-entropy, or squared error in a regression),
    the same "balanced" so that all classes count the same, or, for two classes, a smooth "auc".
    """

    hidden: tuple[int, ...] = (5,)
    activation: str = "tanh"
    loss: Loss = "likelihood"
    l2: float = 1e-3
    minima: int = 50
    rounds: int = 6
    criterion: Literal["relative", "absolute", "magnitude"] = "relative"
    threshold: float = 0.3
    num_draws: int = 500
    seed: int = 0


class Explanation(NamedTuple):
    """What `explain` found out.

    `landscape`; `models (m,)`: ids of the minima that judge the columns, the lowest first; their `importance` on
    held-out rows, by original column; `q_values (columns,)`: its significance, adjusted for false discoveries;
    `stability` of the ranking;
    the merge `tree`; the `level` of the cut and the ids of the minima of the chosen `group`, the lowest first: the
    superbasin of the lowest minimum, or, where too few are connected to it (not `joined`), all `models`; `weights
    (g, P)`: these minima, aligned; `conserved`: of this one group; `levels`: the same for all superbasins; `test` and
    `matched`: of the lowest minimum, against random sets and such as are matched in magnitude, None where fewer
    than two weights are conserved; `bins (P,)`: of magnitude, what matched sets are drawn from, -1 for all but
    input weights; `shares (columns,)`: of the magnitude of the conserved input weights; `train_score`,
    `test_score`: AUC, or R² in a regression, of the lowest minimum; `test_scores (m,)`: of all models; `seconds`.
    """

    dataset: Dataset
    config: ExplainConfig
    symmetry: Symmetry
    landscape: Landscape
    models: Int[np.ndarray, " m"]
    importance: Importance
    q_values: Float[np.ndarray, " columns"]
    stability: Stability
    tree: MergeTree
    level: float
    group: Int[np.ndarray, " g"]
    joined: bool
    weights: Float[np.ndarray, "g P"]
    conserved: ConservedWeights
    levels: list[Superbasin]
    test: PermutationTest | None
    matched: PermutationTest | None
    bins: Int[np.ndarray, " P"]
    shares: Float[np.ndarray, " columns"]
    train_score: float
    test_score: float
    test_scores: Float[np.ndarray, " m"]
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
    objective, symmetry, landscape = explore_landscape(
        dataset, config, checkpoint=checkpoint, resume=resume, progress=progress
    )
    key = jax.random.key(config.seed)
    rng = np.random.default_rng(config.seed)
    progress(0.92, "measuring the importance of the columns")
    energies, states = landscape.minima.energies, landscape.transition_states
    models = np.argsort(energies, kind="stable")[:_MAX_MODELS]
    copies = attribution.near_copies(dataset.x_train, dataset.column)
    measured = column_importance(jax.random.fold_in(key, 1), objective, dataset, config, landscape, models, copies)
    progress(0.94, "analysing the landscape")
    tree = disconnectivity.merge_tree(energies, states.energies, states.minima)
    level = disconnectivity.choose_level(tree, energies, min_size=_MIN_GROUP)
    labels = disconnectivity.superbasins(tree, level)
    members = np.flatnonzero(labels == labels[energies.argmin()])
    # Too few to tell conserved from varied: then all good minima, whatever joins them.
    joined = len(members) >= min(_MIN_GROUP, len(energies))
    group = members[np.argsort(energies[members], kind="stable")] if joined else models
    one_group = np.zeros(len(group), int)
    weights, _ = conserved.align_groups(symmetry, landscape.minima.positions[group], energies[group], one_group)
    candidates = input_weights(symmetry)
    found = conserved.conserved_weights(
        weights, one_group, criterion=config.criterion, threshold=config.threshold, candidates=candidates
    )
    levels = conserved.by_level(
        symmetry,
        tree,
        landscape.minima.positions,
        energies,
        criterion=config.criterion,
        threshold=config.threshold,
        candidates=candidates,
    )
    progress(0.96, "testing the conserved weights")
    best, strata = weights[0], np.where(candidates, 0, -1)
    bins = validation.magnitude_strata(best, strata)
    tests: list[PermutationTest | None] = [None, None]
    if found.mask[0].sum() > 1:  # shuffling one weight changes nothing
        score = scorer(objective, dataset, config, dataset.x_test, dataset.y_test)
        tests = [
            validation.permutation_test(
                jax.random.fold_in(key, 2),
                score,
                best,
                found.mask[0],
                strata=strata,
                control=control,
                num_draws=config.num_draws,
            )
            for control in (strata, bins)
        ]
    test, matched = jax.tree.map(np.asarray, tests)
    belongs = np.eye(len(dataset.features))[dataset.column]
    shares = attribution.feature_scores(found, symmetry)[0] @ belongs
    positions = landscape.minima.positions[models]
    test_scores = scores(objective, dataset, config, positions, dataset.x_test, dataset.y_test)
    return Explanation(
        dataset=dataset,
        config=config,
        symmetry=symmetry,
        landscape=landscape,
        models=models,
        importance=measured,
        q_values=attribution.significance(measured),
        stability=attribution.stability(rng, measured),
        tree=tree,
        level=level,
        group=group,
        joined=joined,
        weights=weights,
        conserved=found,
        levels=levels,
        test=test,
        matched=matched,
        bins=bins,
        shares=shares / max(shares.sum(), np.finfo(float).tiny),
        train_score=float(scores(objective, dataset, config, positions[:1], dataset.x_train, dataset.y_train)[0]),
        test_score=float(test_scores[0]),
        test_scores=test_scores,
        seconds=time.monotonic() - began,
    )


def column_importance(
    key: Array,
    objective: Objective,
    dataset: Dataset,
    config: ExplainConfig,
    landscape: Landscape,
    models: Int[np.ndarray, " m"],
    groups: Int[np.ndarray, " columns"] | None = None,
) -> Importance:
    """Measure the importance of the original columns to some minima, on the held-out rows.

    Of many rows about 2,000 are used, as many of each class as there are, up to an equal part of these, and weighed so
    that classes count as in all rows, or alike if that is what the models minimise.

    Raises:
        DataError: if the loss of some model is not finite.
    """
    strata = np.zeros(len(dataset.y_test), int) if dataset.task == "regression" else dataset.y_test.astype(int)
    counts = np.bincount(strata)
    rng = np.random.default_rng(config.seed)
    most = max(_MAX_ROWS // len(counts), 1)
    rows = np.sort(np.concatenate([rng.permutation(np.flatnonzero(strata == k))[:most] for k in range(len(counts))]))
    likelihood = config.loss == "likelihood"
    # A smooth AUC leaves the level of the logits open, so that only their order can be judged.
    errors = losses.ranking_errors if config.loss == "auc" else _ERRORS[dataset.task]
    found = attribution.importance(
        key,
        _row_loss(errors, network.mlp(config.activation), objective.unravel),
        jnp.asarray(landscape.minima.positions[models]),
        jnp.asarray(dataset.x_test[rows]),
        jnp.asarray(dataset.y_test[rows]),
        dataset.column,
        groups=groups,
        strata=strata[rows],
        shares=counts / counts.sum() if likelihood else np.full(len(counts), 1 / len(counts)),
        spread=2.0 if config.loss == "auc" else 1.0,
    )
    if not np.all(np.isfinite(found.increases)):
        raise DataError("the loss on the held-out rows is not finite: look for extreme values in the table")
    return found


@functools.cache
def _row_loss(errors: Callable[[Array, Array], Array], predict: losses.Predict, unravel: Callable[[Array], Any]) -> Any:
    return lambda weights, x, y: errors(predict(unravel(weights), x), y)


def problem(dataset: Dataset, config: ExplainConfig) -> tuple[Objective, Symmetry, Float[Array, "B P"], Array]:
    """Return the objective of the network on the training rows, its symmetry, the walkers' starts, and the key."""
    sizes = (dataset.x_train.shape[1], *config.hidden, len(dataset.classes) if dataset.task == "multiclass" else 1)
    key, starts = _starts(config.seed, sizes)
    params = jax.eval_shape(functools.partial(network.init, sizes=sizes), key)
    x, y = jnp.asarray(dataset.x_train), jnp.asarray(dataset.y_train)
    weights = jnp.asarray(losses.balanced_weights(dataset.y_train)) if config.loss == "balanced" else None
    data = losses.Supervised(x, y, jnp.asarray(config.l2), weights)
    params = jax.tree.map(lambda leaf: np.zeros(leaf.shape, leaf.dtype), params)
    objective = from_loss(_loss(dataset, config)(network.mlp(config.activation)), params, data)
    return objective, network.symmetry(sizes, config.activation), starts, key


@functools.partial(jax.jit, static_argnames="sizes")
def _starts(seed: Int[Array, ""] | int, sizes: tuple[int, ...]) -> tuple[PRNGKeyArray, Float[Array, "B P"]]:
    """Draw the walkers' starts, and a key for what follows: all in one program."""
    key, start_key = jax.random.split(jax.random.key(seed))
    keys = jax.random.split(start_key, _NUM_WALKERS)
    return key, jax.vmap(lambda key: ravel(network.init(key, sizes)))(keys)


def _loss(dataset: Dataset, config: ExplainConfig) -> Callable[[losses.Predict], losses.Loss]:
    if config.loss == "auc":
        return losses.auc_surrogate
    return {
        "binary": losses.sigmoid_cross_entropy,
        "multiclass": losses.softmax_cross_entropy,
        "regression": losses.squared_error,
    }[dataset.task]


def check(config: ExplainConfig, dataset: Dataset | None = None) -> None:
    """Raise a `DataError` that names the first setting that is out of range, or does not fit the data."""
    if not 0 <= config.seed < 2**32:
        raise DataError(f"seed must be between 0 and {2**32 - 1}, got {config.seed}")
    for name in ("minima", "rounds", "num_draws"):
        if getattr(config, name) < 1:
            raise DataError(f"{name} must be at least 1, got {getattr(config, name)}")
    if not config.hidden or min(config.hidden) < 1:
        raise DataError(f"hidden must be at least 1 in each layer, got {' '.join(map(str, config.hidden)) or 'none'}")
    if config.loss not in get_args(Loss):
        raise DataError(f"loss must be one of {', '.join(get_args(Loss))}, got {config.loss!r}")
    for name, choices in (("criterion", ("relative", "absolute", "magnitude")), ("activation", network.ACTIVATIONS)):
        if getattr(config, name) not in choices:
            raise DataError(f"{name} must be one of {', '.join(choices)}, got {getattr(config, name)!r}")
    if not 0 < config.threshold <= 1:
        raise DataError(f"threshold is a fraction of the weights, above 0 and at most 1, got {config.threshold}")
    if not (np.isfinite(config.l2) and config.l2 > 0):
        raise DataError(
            f"l2 must be positive, got {config.l2}: without it the minima are not isolated and the search cannot end"
        )
    if dataset is not None and config.loss == "balanced" and dataset.task == "regression":
        raise DataError("loss balanced weighs classes, but the target is a quantity")
    if dataset is not None and config.loss == "auc" and dataset.task != "binary":
        raise DataError("loss auc needs a target with two classes")
    if dataset is not None and config.loss == "auc" and len(dataset.y_train) > _MAX_RANKED:
        raise DataError(
            f"loss auc compares all pairs of rows, at most {_MAX_RANKED:,} for training, and here are "
            f"{len(dataset.y_train):,}: take fewer rows, or loss balanced"
        )


def scorer(
    objective: Objective, dataset: Dataset, config: ExplainConfig, x: np.ndarray, y: np.ndarray
) -> Callable[[Float[Array, " P"]], Float[Array, ""]]:
    """Return `score(weights)`: AUC (the mean over classes, each against the rest) or R² on these rows."""
    predict = network.mlp(config.activation)
    inputs, targets = jnp.asarray(x), jnp.asarray(y)
    positive, negative = np.flatnonzero(y == 1), np.flatnonzero(y == 0)
    by_pairs = dataset.task == "binary" and positive.size * negative.size <= _MAX_PAIRS

    def score(weights: Array) -> Array:
        outputs = predict(objective.unravel(weights), inputs)
        if by_pairs:
            return validation.auc_of_pairs(outputs[positive, 0], outputs[negative, 0])
        if dataset.task == "multiclass":
            return validation.macro_auc(targets, jax.nn.softmax(outputs))
        return (validation.auc if dataset.task == "binary" else validation.r2)(targets, outputs[:, 0])

    return score


def scores(
    objective: Objective,
    dataset: Dataset,
    config: ExplainConfig,
    models: Float[np.ndarray, "m P"],
    x: Float[np.ndarray, "N inputs"],
    y: Float[np.ndarray, " N"],
) -> Float[np.ndarray, " m"]:
    """Score models on these rows as `scorer` does, on the host: sorting rows there costs no compilation."""
    from sklearn.metrics import r2_score, roc_auc_score

    outputs = np.asarray(_outputs(models, x, network.mlp(config.activation), objective.unravel))
    if dataset.task == "regression":
        return np.array([r2_score(y, each[:, 0]) for each in outputs])
    if dataset.task == "binary":
        return np.array([roc_auc_score(y, each[:, 0]) for each in outputs])
    return np.array([roc_auc_score(y, softmax(each, axis=1), multi_class="ovr") for each in outputs])


@functools.partial(jax.jit, static_argnames=("predict", "unravel"))
def _outputs(models: Array, x: Array, predict: losses.Predict, unravel: Callable[[Array], Any]) -> Array:
    return jax.lax.map(lambda weights: predict(unravel(weights), x), models)


def explore_landscape(
    dataset: Dataset,
    config: ExplainConfig = ExplainConfig(),
    *,
    checkpoint: Path | None = None,
    resume: bool = False,
    progress: Progress = lambda fraction, text: None,
) -> tuple[Objective, Symmetry, Landscape]:
    """Do the first and longest part of `explain`: explore the loss of a network on the training rows.

    Takes and raises what `explain` does.
    """
    check(config, dataset)
    objective, symmetry, starts, key = problem(dataset, config)
    num_lanes = 4 if jax.default_backend() == "cpu" else 64
    settings = ExploreConfig(num_minima=config.minima, hopping_steps=500, num_searches=20, num_lanes=num_lanes)
    exploration = explore.start(objective, symmetry, starts, jax.random.fold_in(key, 1), settings)
    origin = {"settings": np.asarray(json.dumps(_settings(config))), "data": np.asarray(_digest(dataset))}
    if resume and checkpoint is not None and checkpoint.exists():
        exploration = _resume(exploration, checkpoint, origin)
    if checkpoint is not None:
        checkpoint.parent.mkdir(parents=True, exist_ok=True)
    while not explore.finished(exploration, settings, Budget(config.rounds)):
        tell = functools.partial(_tell, progress, config, exploration)
        exploration = explore.advance(objective, exploration, jax.random.fold_in(key, 1), settings, on_phase=tell)
        if checkpoint is not None and len(exploration.landscape.minima.energies):
            database.save(checkpoint, exploration.landscape, extra=explore.checkpoint(exploration) | origin)
    if len(exploration.landscape.minima.energies) == 0:
        raise DataError(
            f"no minimum was found in {config.rounds} rounds: {explore.empty_because(exploration.landscape)}"
        )
    return objective, symmetry, exploration.landscape


def _tell(progress: Progress, config: ExplainConfig, exploration: Exploration, phase: str) -> None:
    """Turn a phase of a round into a fraction done and a sentence."""
    landscape, done = exploration.landscape, exploration.round - 1
    minima, states = explore.coverage_of(landscape)
    part = (done + explore.PHASES.index(phase) / len(explore.PHASES)) / config.rounds
    compiling = ", compiling" if done == 0 else ""
    found = f"{minima.found} minima, {states.found} transition states, coverage {states.coverage:.0%}"
    progress(0.9 * part, f"{phase}{compiling} ({found})")


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
        return explore.restore(fresh, landscape, saved)
    except DataError:
        raise
    except ValueError as error:
        raise DataError(f"cannot resume: {error}") from error


def _settings(config: ExplainConfig) -> dict[str, Any]:
    """The settings that shape the exploration: a change of the others does not forbid to resume."""
    names = ("hidden", "activation", "loss", "l2", "minima", "seed")
    return {name: value for name, value in asdict(config).items() if name in names} | {"hidden": list(config.hidden)}


def _digest(dataset: Dataset) -> str:
    arrays = (dataset.x_train, dataset.y_train)
    return hashlib.sha256(b"".join(np.ascontiguousarray(array).tobytes() for array in arrays)).hexdigest()
