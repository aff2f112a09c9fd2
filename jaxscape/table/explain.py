"""The whole chain: table, penalties, landscape, disconnectivity, conserved weights, ranked and validated columns."""

import concurrent.futures
import functools
import time
from pathlib import Path
from typing import Any, NamedTuple

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


class Explanation(NamedTuple):
    """What `explain` found out.

    `supported`: the penalties of several sizes and their evidence, None where the penalty was given; `problem`: what
    was explored; its `landscape`, in the coordinates of the problem's objective; `stopped_by`: what ended the
    exploration, see `explore.stopped_by`; `found_lowest`: how many walkers came to the lowest minimum; `members`: the
    networks that predict together, those of the landscape first, whose ids are `models (m,)`, the lowest first;
    `importance`: what each column adds to the others, on rows that the networks have not seen, and `marginal`: what
    they make of it, on held-out rows;
    `q_values (columns,)`: significance of the first, adjusted for false discoveries; `by_chance (columns,)`: how much
    importance is not significant yet; `awake (columns,)`: used by some
    of the networks; `strengths (columns,)`: the magnitudes of the weights from each; `ranking (columns,)`: higher for a
    column that matters more; its `stability`; the merge `tree`; the `level` of the cut and the ids of the minima of the
    chosen `group`, the lowest first: the superbasin of the lowest
    minimum, or, where too few are connected to it (not `joined`), all `models`; `weights (g, P)`: of these minima,
    aligned; `conserved`: of this one group; `levels`: the same for all superbasins; `test` and `matched`: of the lowest
    minimum, against random sets and such as are matched in magnitude, None where fewer than two weights are conserved;
    `bins (P,)`: of magnitude, what matched sets are drawn from, -1 for all but input weights; `shares (columns,)`: of
    the magnitude of the conserved input weights; `train_score`, `test_score`: AUC, or R² in a regression, of all
    networks together; `test_scores (m,)`: of each, that of the lowest minimum first; `baselines`: how other models
    predict, beside the networks together; `seconds`.
    """

    dataset: Dataset
    config: ExplainConfig
    supported: Mixture | None
    problem: Problem
    landscape: Landscape
    stopped_by: str
    found_lowest: int
    members: Members
    models: Int[np.ndarray, " m"]
    importance: Importance
    marginal: Importance
    q_values: Float[np.ndarray, " columns"]
    by_chance: Float[np.ndarray, " columns"]
    awake: Bool[np.ndarray, " columns"]
    strengths: Float[np.ndarray, " columns"]
    ranking: Float[np.ndarray, " columns"]
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
    baselines: Baselines
    seconds: float


def in_order(explanation: Explanation) -> Int[np.ndarray, " columns"]:
    """Return the columns by importance; of those that move together the one that the networks use most comes first."""
    return np.lexsort((-explanation.strengths, -explanation.ranking))


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
    made, landscape, supported = explored.problem, explored.landscape, explored.supported
    key = jax.random.key(config.seed)
    rng = np.random.default_rng(config.seed)
    progress(0.92, "measuring the importance of the columns")
    members, models = members_of(made, landscape, dataset, config, supported)
    kind, y_test = dataset.kind, dataset.y_test
    predictions = predict.each(members, kind, dataset.x_test)
    together = np.einsum("m,m...->...", members.weights, predictions)
    together_train = predict.together(members, kind, dataset.x_train)
    if kind.is_quantity:
        dataset = calibrated(dataset, together_train)
    # Other models are fitted while programs compile and run.
    pool = concurrent.futures.ThreadPoolExecutor()
    compared = pool.submit(for_thread(baselines.fit), dataset, config.seed, together)
    conserved_later = pool.submit(for_thread(_conserved_weights), explored, models, dataset, config)
    copies = attribution.near_copies(dataset.x_train, dataset.column)
    importance, marginal = (
        column_importance(
            jax.random.fold_in(key, 1),
            members,
            dataset,
            aim=config.aim,
            seed=config.seed,
            groups=copies,
            conditional=conditional,
        )
        for conditional in (True, False)
    )
    # Of columns that move together one may be switched off: what they tell is in use all the same.
    awake = np.isin(importance.groups, importance.groups[used_columns(members, dataset)])
    added = np.zeros(len(dataset.features)) if supported is None else supported.added
    q_values = attribution.significance(importance)
    # Of columns that may all be nothing, which come first is chance: those that matter are followed.
    num_sure = len(np.unique(importance.groups[q_values <= SIGNIFICANT]))
    top = min(num_sure, _MOST_FOLLOWED) or _MOST_FOLLOWED
    progress(0.95, "testing the conserved weights")
    of_landscape = conserved_later.result()
    progress(0.97, "fitting other models to compare with")
    pool.shutdown()
    return Explanation(
        dataset=dataset,
        config=config,
        supported=supported,
        problem=made,
        landscape=landscape,
        stopped_by=explored.stopped_by,
        found_lowest=explored.found_lowest,
        members=members,
        models=models,
        importance=importance,
        marginal=marginal,
        q_values=q_values,
        by_chance=attribution.by_chance(importance, false_discoveries=SIGNIFICANT),
        awake=awake,
        strengths=input_strengths(members, dataset),
        ranking=ranking(importance, awake, added),
        stability=attribution.stability(rng, importance, top=top),
        **of_landscape,
        train_score=kind.score(dataset.y_train, together_train, dataset.weights_train).value,
        test_score=kind.score(y_test, together, dataset.weights_test).value,
        test_scores=np.array([kind.score(y_test, each, dataset.weights_test).value for each in predictions]),
        baselines=compared.result(),
        seconds=time.monotonic() - began,
    )


def _conserved_weights(
    explored: Explored, models: Int[np.ndarray, " m"], dataset: Dataset, config: ExplainConfig
) -> dict[str, Any]:
    """Choose the group of the lowest minimum, find its conserved weights and test them: fields of an `Explanation`."""
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
    return dict(
        tree=tree,
        level=level,
        group=group,
        joined=joined,
        weights=aligned * made.scale,
        conserved=found,
        levels=levels,
        test=test,
        matched=matched,
        bins=bins,
        shares=shares / max(shares.sum(), np.finfo(float).tiny),
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
