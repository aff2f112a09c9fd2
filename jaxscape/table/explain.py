"""The whole chain: table, penalties, landscape, disconnectivity, conserved weights, ranked and validated columns."""

import concurrent.futures
import functools
import time
from pathlib import Path
from typing import NamedTuple

import jax
import numpy as np
from jaxtyping import Bool, Float, Int

from jaxscape.analysis import attribution, conserved, disconnectivity, validation
from jaxscape.analysis.attribution import Importance, Stability
from jaxscape.analysis.conserved import ConservedWeights, Superbasin
from jaxscape.analysis.disconnectivity import MergeTree
from jaxscape.analysis.validation import PermutationTest
from jaxscape.cores import for_thread, spread
from jaxscape.landscape.database import Landscape
from jaxscape.symmetry import input_weights
from jaxscape.table import baselines, predict
from jaxscape.table.baselines import Baselines
from jaxscape.table.datasets import Dataset
from jaxscape.table.mixture import Mixture
from jaxscape.table.predict import Members, column_importance, input_strengths, used_columns
from jaxscape.table.problem import (
    ExplainConfig,
    Explored,
    Problem,
    Progress,
    check,
    explore_landscape,
    members_of,
    posterior_variances,
    sizes_of,
)
from jaxscape.table.settle import calibrated, settled

SIGNIFICANT = 0.05  # share of false discoveries among the columns that are called
_MIN_GROUP = 10
_MOST_FOLLOWED = 5


class Ranking(NamedTuple):
    """What the columns are worth.

    `importance`: what each adds to the others, on rows that the networks have not seen, and `marginal`: what they make
    of it, on held-out rows; `q_values (columns,)`: significance of the first, adjusted for false discoveries;
    `by_chance (columns,)`: how much importance is not significant yet; `awake (columns,)`: used by some of the
    networks; `strengths (columns,)`: the magnitudes of the weights from each; `values (columns,)`: one number for each,
    higher for one that matters more; their `stability`.
    """

    importance: Importance
    marginal: Importance
    q_values: Float[np.ndarray, " columns"]
    by_chance: Float[np.ndarray, " columns"]
    awake: Bool[np.ndarray, " columns"]
    strengths: Float[np.ndarray, " columns"]
    values: Float[np.ndarray, " columns"]
    stability: Stability


class Group(NamedTuple):
    """Minima that belong together.

    `level`: of the cut; `minima (g,)`: ids, the lowest first: the superbasin of the lowest minimum or, where too few
    are connected to it (not `joined`), all models; `weights (g, P)`: of these minima, aligned.
    """

    level: float
    minima: Int[np.ndarray, " g"]
    joined: bool
    weights: Float[np.ndarray, "g P"]


class Conserved(NamedTuple):
    """Weights that stay the same.

    `found`: of the group; `levels`: the same for all superbasins; `test` and `matched`: of the lowest minimum, against
    random sets and such as are matched in magnitude, None where fewer than two weights are conserved; `bins (P,)`: of
    magnitude, what matched sets are drawn from, -1 for all but input weights; `shares (columns,)`: of the magnitude of
    the conserved input weights.
    """

    found: ConservedWeights
    levels: list[Superbasin]
    test: PermutationTest | None
    matched: PermutationTest | None
    bins: Int[np.ndarray, " P"]
    shares: Float[np.ndarray, " columns"]


class Performance(NamedTuple):
    """How well the networks predict: `train`, `test`: AUC, or R² of a quantity, of all together; `each (m,)`: on the
    held-out rows, of each network, that of the lowest minimum first; `baselines`: how other models do."""

    train: float
    test: float
    each: Float[np.ndarray, " m"]
    baselines: Baselines


class Explanation(NamedTuple):
    """What `explain` found out: `explored`: what was explored, and its landscape, in the coordinates of the problem's
    objective; `members`: the networks that predict together, those of the landscape first, whose ids are `models (m,)`,
    the lowest first; the `ranking` of the columns; the merge `tree`, a `group` of minima and the weights that are
    `conserved` in it; the `performance`; `seconds` that it took."""

    dataset: Dataset
    config: ExplainConfig
    explored: Explored
    members: Members
    models: Int[np.ndarray, " m"]
    ranking: Ranking
    tree: MergeTree
    group: Group
    conserved: Conserved
    performance: Performance
    seconds: float

    @property
    def problem(self) -> Problem:
        """What was explored."""
        return self.explored.problem

    @property
    def landscape(self) -> Landscape:
        """Its minima, transition states and paths."""
        return self.explored.landscape

    @property
    def supported(self) -> Mixture | None:
        """The penalties of several sizes and their evidence, None where the penalty was given."""
        return self.explored.supported


def in_order(explanation: Explanation) -> Int[np.ndarray, " columns"]:
    """Return the columns by importance; of those that move together the one that the networks use most comes first."""
    return np.lexsort((-explanation.ranking.strengths, -explanation.ranking.values))


def explain_dataset(
    dataset: Dataset,
    config: ExplainConfig = ExplainConfig(),  # noqa: B008  (frozen)
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
    if config.penalty == "evidence":
        check(config, dataset)
        progress(0.0, "asking on which scale to learn")
        dataset = settled(dataset, sizes_of(config), config.activation, config.seed)
    explored = explore_landscape(dataset, config, checkpoint=checkpoint, resume=resume, progress=progress)
    key = jax.random.key(config.seed)
    rng = np.random.default_rng(config.seed)
    progress(0.92, "measuring the importance of the columns")
    members, models = members_of(explored.problem, explored.landscape, dataset, config, explored.supported)
    kind, y_test = dataset.kind, dataset.y_test
    predictions = predict.each(members, kind, dataset.x_test)
    together = np.einsum("m,m...->...", members.weights, predictions)
    together_train = predict.together(members, kind, dataset.x_train)
    if kind.is_quantity:
        dataset = calibrated(dataset, together_train)
    # Other models are fitted while programs compile and run, and this thread, which Ctrl-C interrupts, only waits.
    pool = concurrent.futures.ThreadPoolExecutor()
    compared = pool.submit(for_thread(baselines.fit), dataset, config.seed, together)
    conserved_later = pool.submit(for_thread(_conserved_weights), explored, models, dataset, config)
    measure = functools.partial(
        column_importance,
        jax.random.fold_in(key, 1),
        members,
        dataset,
        aim=config.aim,
        seed=config.seed,
        groups=attribution.near_copies(dataset.x_train, dataset.column),
    )
    importance, marginal = (
        pool.submit(for_thread(measure), conditional=conditional).result() for conditional in (True, False)
    )
    ranked = _ranking(explored, members, dataset, importance, marginal, rng)
    progress(0.95, "testing the conserved weights")
    tree, group, conserved_weights = conserved_later.result()
    progress(0.97, "fitting other models to compare with")
    pool.shutdown()
    weights = dataset.weights_test
    performance = Performance(
        kind.score(dataset.y_train, together_train, dataset.weights_train).value,
        kind.score(y_test, together, weights).value,
        np.array([kind.score(y_test, each, weights).value for each in predictions]),
        compared.result(),
    )
    seconds = time.monotonic() - began
    return Explanation(
        dataset, config, explored, members, models, ranked, tree, group, conserved_weights, performance, seconds
    )


def _ranking(
    explored: Explored,
    members: Members,
    dataset: Dataset,
    importance: Importance,
    marginal: Importance,
    rng: np.random.Generator,
) -> Ranking:
    # Of columns that move together one may be switched off: what they tell is in use all the same.
    awake = np.isin(importance.groups, importance.groups[used_columns(members, dataset)])
    added = np.zeros(len(dataset.features)) if explored.supported is None else explored.supported.added
    q_values = attribution.significance(importance)
    # Of columns that may all be nothing, which come first is chance: those that matter are followed.
    num_sure = len(np.unique(importance.groups[q_values <= SIGNIFICANT]))
    return Ranking(
        importance=importance,
        marginal=marginal,
        q_values=q_values,
        by_chance=attribution.by_chance(importance, false_discoveries=SIGNIFICANT),
        awake=awake,
        strengths=input_strengths(members, dataset),
        values=ranking(importance, awake, added),
        stability=attribution.stability(rng, importance, top=min(num_sure, _MOST_FOLLOWED) or _MOST_FOLLOWED),
    )


def _conserved_weights(
    explored: Explored, models: Int[np.ndarray, " m"], dataset: Dataset, config: ExplainConfig
) -> tuple[MergeTree, Group, Conserved]:
    """Choose the group of the lowest minimum, find its conserved weights and test them."""
    made, landscape = explored.problem, explored.landscape
    energies, symmetry = landscape.minima.energies, made.symmetry
    tree = disconnectivity.tree_of(landscape)
    level = disconnectivity.choose_level(tree, energies, min_size=_MIN_GROUP)
    labels = disconnectivity.superbasins(tree, level)
    joint = np.flatnonzero(labels == labels[energies.argmin()])
    # Too few to tell conserved from varied: then all good minima, whatever joins them.
    joined = len(joint) >= min(_MIN_GROUP, len(energies))
    group = joint[np.argsort(energies[joint], kind="stable")] if joined else models
    one_group = np.zeros(len(group), int)
    aligned, _ = conserved.align_groups(symmetry, landscape.minima.positions[group], energies[group], one_group)
    # Only a likelihood says how far a weight may move.
    likely = explored.supported is not None and config.aim.of_rows
    within = functools.partial(posterior_variances, made) if likely else None
    candidates = input_weights(symmetry)
    found = conserved.conserved_weights(
        aligned * made.scale,
        one_group,
        within=None if within is None else within(aligned),
        criterion=config.criterion,
        threshold=config.threshold,
        candidates=candidates,
    )
    levels = conserved.by_level(
        symmetry,
        tree,
        landscape.minima.positions,
        energies,
        scale=made.scale,
        within=within,
        criterion=config.criterion,
        threshold=config.threshold,
        candidates=candidates,
    )
    best, strata = aligned[0] * made.scale, np.where(candidates, 0, -1)
    bins = validation.magnitude_strata(best, strata)
    tests: list[PermutationTest | None] = [None, None]
    if found.mask[0].sum() > 1:  # shuffling one weight changes nothing
        seen = made.seen
        held_out = seen.x_test, seen.y_test, seen.weights_test
        score = predict.scorer(seen, config.activation, made.objective.unravel, *held_out)
        run = functools.partial(
            validation.permutation_test,
            jax.random.fold_in(jax.random.key(config.seed), 2),
            score,
            best,
            found.mask[0],
            strata=strata,
            num_draws=config.num_draws,
            num_shuffles=50,
        )
        tests = spread(lambda control: run(control=control), (strata, bins))
    test, matched = jax.tree.map(np.asarray, tests)
    belongs = np.eye(len(dataset.features))[made.seen.column]
    shares = attribution.feature_scores(found, symmetry)[0] @ belongs
    shares = shares / max(shares.sum(), np.finfo(float).tiny)
    return (
        tree,
        Group(level, group, joined, aligned * made.scale),
        Conserved(found, levels, test, matched, bins, shares),
    )


def ranking(
    importance: Importance, awake: Bool[np.ndarray, " columns"], added: Float[np.ndarray, " columns"]
) -> Float[np.ndarray, " columns"]:
    """Return one number for every column, higher for one that matters more.

    The importance, where the networks use a column; below all of these, since what is not used has none, the evidence
    that a network of each of the others would add.
    """
    values = importance.mean.copy()
    ranks = np.argsort(np.argsort(added[~awake]))
    values[~awake] = min(values[awake].min(initial=0.0), 0.0) - 1 + ranks / max(len(ranks), 1)
    return values
