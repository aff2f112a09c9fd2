"""Networks of several sizes, each at the penalties its data support, and how much each counts together.

Which penalties, which columns and how many units: all of it is read from the training rows alone, by the evidence.
"""

import concurrent.futures
import functools
import itertools
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import jax
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from jaxscape import evidence, leave_one_out, losses
from jaxscape import models as network
from jaxscape.analysis.attribution import near_copies
from jaxscape.cores import for_thread, num_cores, on_device, one_blas_thread
from jaxscape.evidence import Evidence, EvidenceConfig
from jaxscape.objective import Objective, flattened, from_rows
from jaxscape.programs import program
from jaxscape.table.datasets import DataError, Dataset, drawn
from jaxscape.table.targets import Target

SIZES = ((1,), (2,), (3,), (5,), (8,))
_TEMPERATURE = 2.0  # of the weights of networks, in nats
_SAME = 0.05  # nats
_AS_GOOD = 0.5  # nats: by so little the data do not prefer a larger network
_MAX_NETWORKS, _LEAST = 40, 0.005  # of the weight of all
_FLOOR = 0.01  # of the weight of all, that each has before rows are left out
_STACKING = 6  # steps; few rows cannot tell networks apart much further
_LONGEST = 3.0  # step, in the logarithm of the weights: one network may be far off in one row
_NO_NOISE = 1e-12  # of the variance of the target
_MAX_LEFT_OUT = 1e11  # operations
_MOST, _FEWEST = 24, 8  # restarts of each size
_FLOPS = 1.5e11  # for all restarts, while there are more than the fewest
_MAX_FLOPS = 1.5e12  # for all restarts: beyond, rows are drawn and sizes left out
_MIN_ROWS = 500
_ROOM, _WIDE_ROWS = 200, 2000  # inputs that are searched, and rows at least, where there is no room for all of them
_BLOCK = 500  # inputs that are paired with all others at once
_SHARED = 3  # units, up to which networks share a program: larger ones would cost more than compiling
_FROZEN = 1e12  # penalty
_ASLEEP = 300.0  # penalty that a column sleeps under at first
_AWAKE_AT_FIRST = (2, 4, 6, 8)
_ONE_COLUMN = EvidenceConfig(num_first=15, num_updates=0)


class Size(NamedTuple):
    """Networks with this many `hidden` units, at penalties of their own.

    `found`: the restarts, the best evidence first; `awake (columns,)`: of the best, the columns that it uses;
    `log_evidence`: of the best, in nats, without its copies (`evidence.log_copies`), which favour the widest; `groups
    (P,)`: of its weights: the column of each input weight, then the other layers.
    """

    hidden: tuple[int, ...]
    found: Evidence
    awake: Bool[np.ndarray, " columns"]
    log_evidence: float
    groups: Int[np.ndarray, " P"]


class Mixture(NamedTuple):
    """Networks that predict together: of `sizes`, the distinct ends of restarts, `networks (m, 2)` (place of the size,
    place of the restart), and how much each counts, `weights (m,)`: first the smallest of those whose evidence is the
    best, give or take half a nat, then the others, those of more evidence first; `added (columns,)`: the evidence that
    a network of each column alone adds to the first network; `num_rows`: so many training rows were learnt from; `cut`:
    what the budget did not allow, in words."""

    sizes: tuple[Size, ...]
    networks: Int[np.ndarray, "m 2"]
    weights: Float[np.ndarray, " m"]
    added: Float[np.ndarray, " columns"]
    num_rows: int
    cut: tuple[str, ...]

    @property
    def best(self) -> Size:
        """The smallest size of best evidence, give or take half a nat."""
        return self.sizes[self.networks[0, 0]]


def objective_of(
    dataset: Dataset,
    hidden: Sequence[int],
    activation: str,
    x: Array,
    y: Array,
    weights: Float[np.ndarray, " N"] | None = None,
) -> Objective:
    """Return the negative log-likelihood of a network on these rows, in nats, without a penalty."""
    params = example(architecture(dataset, hidden, x.shape[1]))
    errors = dataset.kind.likelihood()
    return from_rows(network.mlp(activation), errors, params, x, y, weights=weights, precision=0.0)


def example(sizes: tuple[int, ...]) -> network.Params:
    """Return parameters of this shape: to draw them costs a second of compiling."""
    zeros: Any = np.zeros
    return tuple(network.Layer(zeros(pair), zeros(pair[1])) for pair in itertools.pairwise(sizes))


def architecture(dataset: Dataset, hidden: Sequence[int], num_inputs: int) -> tuple[int, ...]:
    """Return the sizes of all layers."""
    return (num_inputs, *hidden, num_outputs(dataset))


def num_outputs(dataset: Dataset) -> int:
    """Return how many outputs a network has: one for each of several classes, else one."""
    return dataset.kind.num_outputs(len(dataset.classes))


def weight_groups(sizes: Sequence[int], column: Int[np.ndarray, " inputs"]) -> Int[np.ndarray, " P"]:
    """Return the group of each weight: the column of an input weight; then every bias and every other layer is one."""
    groups, last = [np.repeat(column, sizes[1])], int(column.max())
    for i in range(1, len(sizes)):
        if i > 1:
            last += 1
            groups.append(np.full(sizes[i - 1] * sizes[i], last))
        last += 1
        groups.append(np.full(sizes[i], last))
    return np.concatenate(groups)


def fit(
    dataset: Dataset,
    hidden: Sequence[tuple[int, ...]] = SIZES,
    activation: str = "tanh",
    seed: int = 0,
    progress: Callable[[float, str], None] = lambda fraction, text: None,
) -> Mixture:
    """Search the penalties of networks of several sizes, from starts with all columns awake and with few.

    Half of the restarts have all columns awake, the others in turn those that tell most on their own and pairs that
    tell most together: what two of many columns do together is found where no others are in the way.

    Args:
        dataset: from `datasets.prepare`; its held-out rows are not looked at.
        hidden: the units of each hidden layer, of each size.
        activation: of the units.
        seed: of the starts.
        progress: called with the fraction done and what is being done.

    Raises:
        DataError: if the loss of every network is not finite.
    """
    pool = concurrent.futures.ThreadPoolExecutor(num_cores())
    try:
        with one_blas_thread():
            return _fit(dataset, hidden, activation, seed, progress, pool)
    finally:
        pool.shutdown(wait=False, cancel_futures=True)  # Who interrupts does not wait for the other sizes.


class Scale(NamedTuple):
    """How well networks of one size learn a quantity on one scale: the best `log_evidence`, in nats, minus infinity
    where none can be fitted; the training rows that it is of, `rows (n,)`; the log-likelihood of each, `likely (n,)`,
    and what each counts, `weights (n,)`."""

    log_evidence: float
    rows: Int[np.ndarray, " n"]
    likely: Float[np.ndarray, " n"]
    weights: Float[np.ndarray, " n"]


def scale_of(dataset: Dataset, hidden: Sequence[tuple[int, ...]], activation: str, seed: int) -> Scale:
    """Fit networks of the size in the middle.

    Args:
        dataset: of a quantity, from `datasets.prepare`.
        hidden: the sizes that are to be searched afterwards: budget and compiled programs are those of all.
        activation: of the units.
        seed: of the starts.
    """
    plan = _plan(dataset, hidden)
    tried = plan.hidden[len(plan.hidden) // 2]
    pool = concurrent.futures.ThreadPoolExecutor(num_cores())
    try:
        with one_blas_thread():
            (best,), *_ = _searched(dataset, plan, [tried], activation, np.random.default_rng(seed), pool)
    finally:
        pool.shutdown(wait=False, cancel_futures=True)  # as in `fit`
    left = dataset.y_train[plan.rows] - outputs_of(dataset, best, activation, dataset.x_train[plan.rows])[:, 0]
    noise = best.found.noises[0]
    likely = 0.5 * np.log(noise / (2 * np.pi)) - 0.5 * noise * left**2
    return Scale(best.log_evidence, plan.rows, likely, plan.weights)


def _fit(
    dataset: Dataset,
    hidden: Sequence[tuple[int, ...]],
    activation: str,
    seed: int,
    progress: Callable[[float, str], None],
    pool: concurrent.futures.Executor,
) -> Mixture:
    rng = np.random.default_rng(seed)
    plan = _plan(dataset, hidden)
    fitted, inputs, cut = _searched(dataset, plan, plan.hidden, activation, rng, pool, progress)
    networks, weights = _weigh(fitted)
    progress(1.0, "weighing the networks by rows left out")
    networks, weights = _predicting(dataset, fitted, networks, weights, activation, plan, inputs, pool)
    best = fitted[networks[0, 0]]
    outputs = outputs_of(dataset, best, activation, dataset.x_train[plan.rows])
    added = added_evidence(dataset, activation, plan, outputs, rng)
    return Mixture(tuple(fitted), networks, weights, added, len(plan.rows), cut)


def _searched(
    dataset: Dataset,
    plan: "_Plan",
    tried: Sequence[tuple[int, ...]],
    activation: str,
    rng: np.random.Generator,
    pool: concurrent.futures.Executor,
    progress: Callable[[float, str], None] = lambda fraction, text: None,
) -> tuple[list[Size], Bool[np.ndarray, " inputs"], tuple[str, ...]]:
    """Search the penalties of some of the sizes of a plan; return them, the inputs that were searched, what was cut."""
    x, y = on_device(dataset.x_train[plan.rows]), on_device(dataset.y_train[plan.rows])
    # Columns that are the same but for scale share a penalty: between them the data cannot choose.
    same = near_copies(dataset.x_train, dataset.column, correlation=1 - 1e-9)
    _, first = np.unique(same, return_index=True)

    def prepare(units: tuple[int, ...]) -> None:
        """Compile for so many units, where it is known that all inputs are searched."""
        objective = objective_of(dataset, units, activation, x, y, plan.weights)
        layers = weight_groups(architecture(dataset, units, x.shape[1]), same[dataset.column])
        evidence.compile_ahead(objective, plan.restarts, int(layers.max()) + 1)
        if units == max(plan.hidden):
            leave_one_out.compile_ahead(objective)

    programs = dict.fromkeys(_program(units, plan.hidden) for units in reversed(tried))
    early = len(dataset.column) <= plan.room
    ready = {units: pool.submit(for_thread(prepare), units) for units in programs} if early else {}
    progress(0.0, "asking each column alone")
    constant = dataset.kind.constant(dataset.y_train[plan.rows], plan.weights)
    alone = added_evidence(dataset, activation, plan, np.tile(constant, (len(plan.rows), 1)), rng)
    pairs = interacting_pairs(dataset, plan.rows)
    kept = _kept(dataset, alone, pairs, plan.room)
    inputs = kept[dataset.column]
    cut = list(plan.cut)
    if not kept.all():
        cut.append(f"of {len(kept):,} columns the {kept.sum():,} that tell most alone or in pairs were searched")
    x = x[:, inputs] if not kept.all() else x
    jobs = []
    for units in tried:
        sizes = architecture(dataset, units, len(inputs))
        groups = weight_groups(sizes, dataset.column)
        chosen = _few_awake(alone, pairs, plan.restarts, kept)
        starts, alphas = _starts(rng, sizes, dataset.column, chosen, groups)
        jobs.append((units, groups, starts, alphas))

    def run(job: tuple[tuple[int, ...], np.ndarray, np.ndarray, np.ndarray]) -> Size:
        units, groups, starts, alphas = job
        wide = _program(units, plan.hidden)
        if wide in ready:
            ready[wide].result()
        objective = objective_of(dataset, wide, activation, x, y, plan.weights)
        # This many units and the inputs that are searched; more units; all inputs; both.
        small, wider = (architecture(dataset, each, x.shape[1]) for each in (units, wide))
        fuller, largest = (architecture(dataset, each, len(inputs)) for each in (units, wide))
        at, in_full = places(small, wider, np.arange(x.shape[1])), places(small, fuller, np.flatnonzero(inputs))
        # What is left out has groups without a weight, which are off.
        joint = weight_groups(largest, same[dataset.column])[places(wider, largest, np.flatnonzero(inputs))]
        asleep = np.array([alphas[:, : len(same)][:, same == k].min(axis=1) for k in range(len(first))]).T
        joined = np.concatenate([asleep, alphas[:, len(same) :]], axis=1)
        begun = np.zeros((len(starts), objective.dim))
        begun[:, at] = starts[:, in_full]
        found = jax.tree.map(np.asarray, evidence.fit(objective, joint, on_device(begun), on_device(joined)))
        apart = np.append(same, np.arange(len(first), joined.shape[1]))
        positions = np.zeros(starts.shape)
        positions[:, in_full] = found.positions[:, at]
        found = found._replace(
            alphas=found.alphas[:, apart], determined=found.determined[:, apart], positions=positions
        )
        return _best_first(dataset, units, groups, found)

    # Threads, since both compiling and running leave Python alone; the largest first, since it takes longest. BLAS has
    # its own, which wait for each other: with all cores busy its Cholesky factor of 257 weights took 110 ms, not 0.3.
    running = [pool.submit(for_thread(run), job) for job in reversed(jobs)]
    for i, _ in enumerate(concurrent.futures.as_completed(running)):
        progress((i + 1) / len(jobs), f"searching penalties ({i + 1} of {len(jobs)} sizes)")
    return [job.result() for job in reversed(running)], inputs, tuple(cut)


class _Plan(NamedTuple):
    hidden: list[tuple[int, ...]]
    restarts: int
    rows: Int[np.ndarray, " n"]
    weights: Float[np.ndarray, " n"]
    room: int  # inputs
    cut: tuple[str, ...]


def _best_first(dataset: Dataset, units: tuple[int, ...], groups: np.ndarray, found: Evidence) -> Size:
    order = np.argsort(-found.log_evidence, kind="stable")
    found = jax.tree.map(lambda leaf: leaf[order], found)
    awake = evidence.awake(found)[0, : len(dataset.features)]
    # The landscape needs a weight to explore.
    awake[np.asarray(found.determined[0, : len(awake)]).argmax()] = True
    return Size(units, found, awake, float(found.log_evidence[0]), groups)


def _weigh(sizes: list[Size]) -> tuple[Int[np.ndarray, "m 2"], Float[np.ndarray, " m"]]:
    """Choose networks by their evidence: the one to explore, then the others.

    Ends of restarts at the same evidence are one network, found again.
    """
    places, values = [], []
    for i, size in enumerate(sizes):
        known: list[float] = []
        for j, value in enumerate(size.found.log_evidence):
            if np.isfinite(value) and all(abs(value - other) > _SAME for other in known):
                known.append(float(value))
                places.append((i, j))
        values += known
    if not values:
        raise DataError("no network could be fitted: look for extreme values in the table")
    total = np.array(values)
    order = np.argsort(-total, kind="stable")[:_MAX_NETWORKS]
    # Sizes go up, and of each the best restart comes first.
    as_good = order[total[order] >= total.max() - _AS_GOOD]
    first = min(as_good.tolist(), key=lambda k: places[k])
    order = np.array([first, *order[order != first]])
    weights = np.exp((total[order] - total.max()) / _TEMPERATURE)
    counting = weights >= _LEAST * weights.sum()
    return np.array(places)[order[counting]], weights[counting]


def _predicting(
    dataset: Dataset,
    sizes: list[Size],
    networks: Int[np.ndarray, "m 2"],
    weights: Float[np.ndarray, " m"],
    activation: str,
    plan: _Plan,
    inputs: Bool[np.ndarray, " inputs"],
    pool: concurrent.futures.Executor,
) -> tuple[Int[np.ndarray, "q 2"], Float[np.ndarray, " q"]]:
    """Move weights to what predicts training rows that it has not seen; leave out the networks that do not count."""
    widest, inside = max(sizes[i].hidden for i in networks[:, 0]), np.flatnonzero(inputs)
    small, full = (architecture(dataset, widest, number) for number in (len(inside), len(inputs)))
    kept = places(small, full, inside)
    most = int(_MAX_LEFT_OUT // (len(plan.rows) * num_outputs(dataset) * len(kept) ** 2))
    networks, weights = networks[: max(most, _FEWEST)], weights[: max(most, _FEWEST)]
    x, y = dataset.x_train[plan.rows][:, inputs], dataset.y_train[plan.rows]
    objective = objective_of(dataset, widest, activation, on_device(x), on_device(y), plan.weights)

    def left_out(network: list[int]) -> Float[np.ndarray, "n K"]:
        size, restart = sizes[network[0]], network[1]
        position = network_of(dataset, size, restart, widest)[kept]
        alphas = penalties_of(dataset, size, restart, widest)[kept]
        own = evidence.at(objective, alphas, size.found.noises[restart])
        return np.asarray(leave_one_out.outputs(own, on_device(position)))

    weights = weights / weights.sum()
    if dataset.independent:
        outputs = np.array(list(pool.map(for_thread(left_out), networks.tolist())))
        weights = stacked(dataset.kind, outputs, y, plan.weights, weights)
    counting = weights >= _LEAST
    counting[0] = True  # it is explored
    return networks[counting], weights[counting] / weights[counting].sum()


def stacked(
    target: Target,
    outputs: Float[np.ndarray, "m n K"],
    y: Float[np.ndarray, " n"],
    counts: Float[np.ndarray, " n"],
    weights: Float[np.ndarray, " m"],
) -> Float[np.ndarray, " m"]:
    """Weigh networks by what they predict together for rows that they have not seen.

    The evidence takes its own noise for true, so that it overrates a network that fits a few rows far off; and of
    networks that each know a part of the truth it takes one. From it some steps of the exponentiated gradient are taken
    down the loss of the mixture, few, since few rows do not tell networks apart well (stacking: Yao, Vehtari, Simpson &
    Gelman, Bayesian Anal. 13, 917, 2018).

    Args:
        target: of the outputs.
        outputs: of each network for rows that it has not seen.
        y: the targets of the rows.
        counts: how much each row counts, of any sum.
        weights: by the evidence, of any sum; none counts for less than a hundredth to begin with.

    Returns:
        The weights, 1 in all.
    """
    weights, counts = np.maximum(weights / weights.sum(), _FLOOR), counts / counts.sum()
    weights /= weights.sum()
    if target.is_quantity:
        values = outputs[..., 0]
    else:
        likely = target.log_likelihoods(outputs, y)
        values = np.exp(likely - likely.max(axis=0))  # What is the same for all does not matter.
    for _ in range(_STACKING):
        together = weights @ values
        if target.is_quantity:
            left = y - together
            gain = values @ (counts * left) / max(counts @ left**2, _NO_NOISE)
        else:
            gain = values @ (counts / together)
        gain *= _LONGEST / max(np.ptp(gain), _LONGEST)
        weights = weights * np.exp(gain - gain.max())
        weights /= weights.sum()
    return weights


def network_of(dataset: Dataset, size: Size, restart: int, widest: tuple[int, ...]) -> Float[np.ndarray, " Q"]:
    """Return the end of a restart with as many units as the widest; the weights of columns it does not use are zero."""
    position, used = np.array(size.found.positions[restart]), _used(dataset, size, restart)
    position[: used.size * size.hidden[0]].reshape(used.size, -1)[~used] = 0
    return padded(position, size.hidden, widest, np.ones(used.size, bool), num_outputs(dataset))


def _plan(dataset: Dataset, hidden: Sequence[tuple[int, ...]]) -> _Plan:
    """Fit the search into its budget: fewer restarts, then fewer rows, then fewer sizes; of very many inputs some."""
    num_rows, room = dataset.x_train.shape
    fewest = _MIN_ROWS
    if _FEWEST * _cost(architecture(dataset, hidden[0], room), min(num_rows, _WIDE_ROWS)) > _MAX_FLOPS:
        room, fewest = min(room, _ROOM), _WIDE_ROWS
    chosen = list(hidden)

    def cost(rows: int) -> float:
        return sum(_cost(architecture(dataset, size, room), rows) for size in chosen)

    cut = []
    restarts = int(np.clip(_FLOPS // cost(num_rows) // 4 * 4, _FEWEST, _MOST))
    number = int(num_rows * min(1.0, _MAX_FLOPS / (restarts * cost(num_rows))))
    if number < num_rows:
        number = min(max(number, fewest), num_rows)
        while len(chosen) > 1 and restarts * cost(number) > _MAX_FLOPS:
            cut.append(f"networks of {chosen.pop()[0]} units were left out")
        number = min(max(number, int(_MAX_FLOPS / (restarts * cost(1)))), num_rows)
    rows, weights = drawn(dataset, number)
    if number < num_rows:
        cut.append(f"the penalties were chosen from {len(rows):,} of {num_rows:,} training rows")
    if restarts * cost(len(rows)) > 2 * _MAX_FLOPS:
        cut.append("this is as little as is of use, and it may still take long")
    return _Plan(chosen, restarts, rows, weights, room, tuple(cut))


def _kept(
    dataset: Dataset, alone: Float[np.ndarray, " columns"], pairs: Int[np.ndarray, "p 2"], room: int
) -> Bool[np.ndarray, " columns"]:
    """Choose the columns to search: in turn the one that tells most alone and the pair that tells most together, as
    long as there is room for their inputs."""
    kept = np.ones(len(alone), bool)
    if len(dataset.column) <= room:
        return kept
    widths = np.bincount(dataset.column, minlength=len(alone))
    kept[:] = False
    order = np.argsort(-alone, kind="stable")
    told: Any = itertools.zip_longest(order.tolist(), pairs[: len(order)].tolist(), fillvalue=[])
    for column, pair in told:
        for each in (column, *pair):
            if kept.any() and widths[kept].sum() + widths[each] > room and not kept[each]:
                return kept
            kept[each] = True
    return kept


def _cost(sizes: tuple[int, ...], rows: int) -> float:
    """Floating-point operations of one restart."""
    config = EvidenceConfig()
    steps = 2 * config.num_first + config.num_updates * (config.num_steps + 1)
    dim = sum((fan_in + 1) * fan_out for fan_in, fan_out in itertools.pairwise(sizes))
    return float(steps * (2 * rows * dim**2 + dim**3))


def _few_awake(
    alone: Float[np.ndarray, " columns"],
    pairs: Int[np.ndarray, "p 2"],
    number: int,
    kept: Bool[np.ndarray, " columns"],
) -> list[tuple[Int[np.ndarray, "_"], float]]:
    """Choose the columns that are awake at the start of each restart, all among those that are kept, and the penalty
    that the others sleep under.

    Half of them: all; then in turn those that tell most alone, a pair of those that tell most together, and twice one
    of the first two pairs, the others fast asleep: where two draw a ring, five units come to it from half of such
    starts, and from one in six where the others soon awake.
    """
    everything = np.flatnonzero(kept)
    order = np.argsort(-alone, kind="stable")
    order, pairs = order[kept[order]], pairs[kept[pairs].all(axis=1)]
    chosen = [(everything, _ASLEEP)] * (number - number // 2)
    for i in range(number // 2):
        turn, place = divmod(i, 4)
        if place == 0 or not len(pairs):
            chosen.append((order[: _AWAKE_AT_FIRST[turn % len(_AWAKE_AT_FIRST)]], _ASLEEP))
        elif place == 1:
            chosen.append((np.unique(pairs[:3]) if turn == 2 else pairs[turn % len(pairs)], _ASLEEP))
        else:
            second = (2 * turn + place) % 3 == 1  # after every two of the first pair one of the second
            chosen.append((pairs[int(second) % len(pairs)], evidence.ALPHAS[1]))
    return chosen


def _starts(
    rng: np.random.Generator,
    sizes: tuple[int, ...],
    column: Int[np.ndarray, " inputs"],
    awake: Sequence[tuple[Int[np.ndarray, "_"], float]],
    groups: Int[np.ndarray, " P"],
) -> tuple[Float[np.ndarray, "R P"], Float[np.ndarray, "R G"]]:
    starts, alphas = [], np.ones((len(awake), int(groups.max()) + 1))
    for (chosen, penalty), penalties in zip(awake, alphas, strict=True):
        asleep = ~np.isin(np.arange(int(column.max()) + 1), chosen)
        penalties[: len(asleep)][asleep] = penalty
        spread = np.where(asleep, 0.01, 1.0)[column] / np.sqrt(np.isin(column, chosen).sum())
        parts = [(rng.normal(size=sizes[:2]) * spread[:, None]).ravel(), rng.normal(size=sizes[1])]
        for fan_in, fan_out in itertools.pairwise(sizes[1:]):
            parts += [0.5 * rng.normal(size=fan_in * fan_out), rng.normal(size=fan_out)]
        starts.append(np.concatenate(parts))
    return np.array(starts), alphas


# --- What one column tells ------------------------------------------------------------------------------------------


def added_evidence(
    dataset: Dataset,
    activation: str,
    plan: _Plan,
    offset: Float[np.ndarray, "n K"],
    rng: np.random.Generator,
) -> Float[np.ndarray, " columns"]:
    """Return how much evidence a network of one column, three units wide, adds on top of given outputs.

    All penalties are 1: where the data choose them, all columns that add nothing come out alike. Of a regression what
    the outputs leave is brought to unit variance.
    """
    x, y, kind = dataset.x_train[plan.rows], dataset.y_train[plan.rows], dataset.kind
    if kind.is_quantity:
        left = y - offset[:, 0]
        y, offset = left / max(float(left.std()), np.finfo(float).tiny), np.zeros_like(offset)
    num_columns = len(dataset.features)
    width = int(np.bincount(dataset.column).max())
    sizes = architecture(dataset, (3,), width)
    groups = weight_groups(sizes, np.zeros(width, int))
    params = example(sizes)
    starts, alphas = _starts(rng, sizes, np.zeros(width, int), [(np.zeros(1, int), _ASLEEP)] * 2, groups)
    known, target = on_device(offset), on_device(y)
    nothing = on_device(np.zeros((len(y), width)))
    objective = from_rows(
        _on_top(activation), kind.likelihood(), params, (nothing, known), target, weights=plan.weights, precision=0.0
    )
    begun, ones = on_device(starts), on_device(np.ones_like(alphas))
    gains = np.empty(num_columns)
    for i in range(num_columns):
        inputs = x[:, dataset.column == i]
        inputs = on_device(np.pad(inputs, ((0, 0), (0, width - inputs.shape[1]))))
        column = replace(objective, data=objective.data._replace(x=(inputs, known)))
        found = evidence.fit(column, groups, begun, ones, _ONE_COLUMN)
        gains[i] = np.asarray(found.log_evidence).max()
    return gains - plan.weights @ kind.log_likelihoods(offset, y)


def interacting_pairs(dataset: Dataset, rows: Int[np.ndarray, " n"]) -> Int[np.ndarray, "p 2"]:
    """List pairs of columns from the one that tells most together, over what each tells alone, to the one that tells
    least.

    Every input is cut into quarters, and a pair of inputs into sixteen cells: the sum of squares of the target between
    the cells, less that between the quarters of either (a two-way analysis of variance, its interaction). It sees what
    no column shows alone, such as a ring or the product of two signs, at the price of a matrix product.
    """
    x, y = dataset.x_train[rows], dataset.y_train[rows]
    targets = dataset.kind.indicators(y)
    targets = targets - targets.mean(axis=0)
    cuts = np.quantile(x, [0.25, 0.5, 0.75], axis=0)
    cells = (np.sum(x[None] > cuts[:, None], axis=0)[:, :, None] == np.arange(4)).astype(float)
    flat = cells.reshape(len(x), -1)
    num_inputs = x.shape[1]
    together = np.empty((num_inputs, num_inputs))
    for first_input in range(0, num_inputs, _BLOCK):
        block = slice(first_input, min(first_input + _BLOCK, num_inputs))
        some = flat[:, 4 * block.start : 4 * block.stop]
        counts = np.maximum(some.T @ flat, 1)
        square = np.zeros_like(counts)
        for target in targets.T:
            square += (some.T @ (target[:, None] * flat)) ** 2 / counts
        together[block] = square.reshape(-1, 4, num_inputs, 4).sum(axis=(1, 3))
    single = np.diag(together)  # the cells of an input with itself are its quarters
    told = together - single[:, None] - single
    num_columns = len(dataset.features)
    best = np.full((num_columns, num_columns), -np.inf)
    np.maximum.at(best, (dataset.column[:, None], dataset.column), told)
    first, second = np.triu_indices(num_columns, 1)
    order = np.argsort(-best[first, second], kind="stable")
    return np.column_stack([first, second])[order]


@functools.cache
def _on_top(activation: str) -> Callable[[Any, Any], Array]:
    predict = network.mlp(activation)
    return lambda params, data: data[1] + predict(params, data[0])


def outputs_of(dataset: Dataset, size: Size, activation: str, x: Float[np.ndarray, "n inputs"]) -> np.ndarray:
    """Return the outputs of the best network of a size."""
    _, _, unravel = flattened(example(architecture(dataset, size.hidden, x.shape[1])))
    return np.asarray(_predicted(on_device(size.found.positions[0]), on_device(x), network.mlp(activation), unravel))


@program(static_argnames=("predict", "unravel"))
def _predicted(position: Array, x: Array, predict: losses.Predict, unravel: Callable[[Array], Any]) -> Array:
    return predict(unravel(position), x)


def penalties_of(dataset: Dataset, size: Size, restart: int, widest: tuple[int, ...]) -> Float[np.ndarray, " Q"]:
    """Return the penalty of each weight of `network_of`; weights that it does not use cannot move."""
    alphas, used = np.asarray(size.found.alphas[restart])[size.groups], _used(dataset, size, restart)
    alphas[: used.size * size.hidden[0]].reshape(used.size, -1)[~used] = 0
    wide = padded(alphas, size.hidden, widest, np.ones(used.size, bool), num_outputs(dataset))
    return np.where(wide > 0, wide, _FROZEN)


def _used(dataset: Dataset, size: Size, restart: int) -> Bool[np.ndarray, " inputs"]:
    """Say which inputs a restart uses; the best of its size uses one at least."""
    columns = size.awake if restart == 0 else evidence.awake(size.found)[restart, : len(dataset.features)]
    return columns[dataset.column]


def padded(
    position: Float[np.ndarray, " P"],
    hidden: tuple[int, ...],
    widest: tuple[int, ...],
    inputs: Bool[np.ndarray, " inputs"],
    num_outputs: int,
) -> Float[np.ndarray, " Q"]:
    """Return a network as one of more inputs and, of one hidden layer, more units, whose further weights are zero.

    Args:
        position: the network.
        hidden: its units.
        widest: the units wanted.
        inputs: which of the inputs wanted it has.
        num_outputs: its outputs.
    """
    small, large = (int(inputs.sum()), *hidden, num_outputs), (len(inputs), *widest, num_outputs)
    wide = np.zeros(sum((fan_in + 1) * fan_out for fan_in, fan_out in itertools.pairwise(large)))
    wide[places(small, large, np.flatnonzero(inputs))] = position
    return wide


def places(small: tuple[int, ...], large: tuple[int, ...], inputs: Int[np.ndarray, " inputs"]) -> Int[np.ndarray, " P"]:
    """Say where the weights of a network stand in one of more inputs and units.

    Args:
        small: the sizes of its layers.
        large: those of the other.
        inputs: which inputs of the other are its own.
    """
    found, first = [], 0
    for depth, ((fan_in, fan_out), (more_in, more_out)) in enumerate(
        zip(itertools.pairwise(small), itertools.pairwise(large), strict=True)
    ):
        rows = inputs if depth == 0 else np.arange(fan_in)
        found.append((first + rows[:, None] * more_out + np.arange(fan_out)).ravel())
        first += more_in * more_out
        found.append(first + np.arange(fan_out))
        first += more_out
    return np.concatenate(found)


def _program(units: tuple[int, ...], sizes: Sequence[tuple[int, ...]]) -> tuple[int, ...]:
    """Say as how many units a network is searched, so that small sizes share one compiled program.

    Units whose weights are all zero stay so and add nothing to the evidence: their penalties cancel.
    """
    if len(units) > 1 or units[0] > _SHARED:
        return units
    return (max(size[0] for size in sizes if len(size) == 1 and size[0] <= _SHARED),)
