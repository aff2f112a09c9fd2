"""What was found, in words: each verdict beside whether it is a good one."""

import numpy as np

from jaxscape.analysis import validation
from jaxscape.evidence import Outcome
from jaxscape.table.baselines import Baseline
from jaxscape.table.explain import SIGNIFICANT as SIGNIFICANT
from jaxscape.table.explain import Explanation, in_order
from jaxscape.table.splits import Splits
from jaxscape.table.tails import formula

_STABLE = 0.9  # of the resamplings: in fewer the first columns are not sure
_FEWEST_SETS = 40  # below, no p-value can be 0.05 with some certainty
_MOST_NAMED = 6
_DOUBTS = {
    Outcome.MOVING: " The evidence was still rising when the search for penalties ended.",
    Outcome.INTERPOLATES: " It goes through every training row: the noise of the target cannot be told from none.",
}


def groups(explanation: Explanation) -> list[tuple[list[int], str]]:
    """List the columns by importance, those that move together once: which they are, and a name."""
    found: dict[int, list[int]] = {}
    for i in in_order(explanation):
        found.setdefault(int(explanation.ranking.importance.groups[i]), []).append(int(i))
    names = explanation.dataset.features
    return [
        (members, names[members[0]] + (f" (+ {len(members) - 1} alike)" if len(members) > 1 else ""))
        for members in found.values()
    ]


def together_sentence(explanation: Explanation) -> str | None:
    """Name the columns that move together; None if there are none."""
    names = explanation.dataset.features
    sets = [_and([names[i] for i in members]) for members, _ in groups(explanation) if len(members) > 1]
    if not sets:
        return None
    more = f"; and {len(sets) - _MOST_NAMED} more sets" if len(sets) > _MOST_NAMED else ""
    return f"Columns that tell nearly the same move together: {'; '.join(sets[:_MOST_NAMED])}{more}."


def names_of_the_sure(explanation: Explanation) -> list[str]:
    """Name the columns that matter with confidence, the most important first, those that move together once."""
    return [name for members, name in groups(explanation) if explanation.ranking.q_values[members[0]] <= SIGNIFICANT]


def learnt_as(explanation: Explanation) -> str:
    """Name what the networks learn: the target or, where its tails are heavy, what it is bent to."""
    dataset = explanation.dataset
    tails = None if dataset.encoding is None else dataset.encoding.tails
    return dataset.target if tails is None else formula(tails, dataset.target)


def baselines_verdict(explanation: Explanation) -> tuple[bool, str]:
    """Say in words how the networks predict beside other models; the first value: do they keep up with each of them?"""
    bent = learnt_as(explanation) != explanation.dataset.target
    words = ("clearly worse than", "not clearly better or worse than", "clearly better than")
    found: dict[str, list[str]] = {word: [] for word in words}
    for name, each in baselines_of(explanation):
        found[words[0 if each.high < 0 else 2 if each.low > 0 else 1]].append(f"{name} ({each.test:.3f})")
    what = ", ".join(f"{word} {_and(names)}" for word, names in found.items() if names)
    text = (
        f"On {len(explanation.dataset.y_test)} held-out rows the networks ({explanation.dataset.kind.score_name} "
        f"{explanation.performance.test:.3f}) predict {learnt_as(explanation) + ' ' if bent else ''}{what}."
    )
    keeps_up = not found[words[0]]
    return keeps_up, text if keeps_up else f"{text} What drives them may not be what drives the data."


def baselines_of(explanation: Explanation) -> list[tuple[str, Baseline]]:
    """Name the models to compare with."""
    found = explanation.performance.baselines
    return [
        (explanation.dataset.kind.linear, found.linear),
        ("boosted trees", found.boosting),
        ("a random forest", found.forest),
    ]


def _and(names: list[str]) -> str:
    return " and ".join([", ".join(names[:-1])] * (len(names) > 1) + names[-1:])


def splits_sentence(explanation: Explanation, splits: Splits) -> str:
    """Say in words whether other rows would have given the same answer."""
    number, low, high = len(splits.scores), splits.scores.min(), splits.scores.max()
    times = splits.called.sum(axis=0)
    order = np.argsort(-times, kind="stable")
    always = [splits.features[i] for i in order if times[i] == number]
    sometimes = [f"{splits.features[i]} ({times[i]})" for i in order if 0 < times[i] < number]
    first = np.bincount(splits.first, minlength=len(splits.features))
    score = explanation.dataset.kind.score_name
    text = f"In {number} splits of the rows the networks score {score} {low:.3f} to {high:.3f}"
    text += f", and {splits.features[first.argmax()]} comes first in {first.max()}. "
    for what, names in (("every one", always), ("some", sometimes)):
        if names:
            more = f" and {len(names) - _MOST_NAMED} more" if len(names) > _MOST_NAMED else ""
            text += f"Above zero with confidence in {what}: {', '.join(names[:_MOST_NAMED])}{more}. "
    return text.strip() if times.any() else text + "No column is above zero with confidence in any."


def verdict(explanation: Explanation) -> tuple[bool, str]:
    """Say in words how sure the ranking is; the first value: does any column matter with confidence, to networks that
    keep up with other models?"""
    sure, text = _certainty(explanation)
    behind = [name for name, each in baselines_of(explanation) if each.high < 0]
    if not behind:
        return sure, text
    return False, (
        f"The networks predict clearly worse than {_and(behind)}: what drives them may not be what drives the data. "
        f"{text}"
    )


def _certainty(explanation: Explanation) -> tuple[bool, str]:
    stable, importance = explanation.ranking.stability, explanation.ranking.importance
    groups = importance.groups
    total = len(np.unique(groups))
    sure = len(np.unique(groups[explanation.ranking.q_values <= SIGNIFICANT]))
    several = "first column is the same" if stable.top == 1 else f"first {stable.top} are the same ones"
    together = ", columns that move together counted as one" if total < len(groups) else ""
    same = (
        f"The {several} in {stable.same_top} of {stable.num_resamplings} resamplings of the networks and the rows"
        f"{together}."
        if stable.top <= int(groups.max())
        else ""
    )
    if sure:
        kind = "columns" if total == len(groups) else "columns (and sets of columns that move together)"
        what = f"{sure} of {total} {kind} tell what the others do not" if total > 1 else "The column matters"
        stays = stable.same_top >= _STABLE * stable.num_resamplings or not same
        doubt = "" if stays else "Which columns come first is not sure."
        return stays, f"{what}, with at most 5 % false discoveries expected. {same} {doubt}".strip()
    return False, (
        f"No column matters with confidence: what the networks lose on {importance.increases.shape[1]} "
        f"rows that they have not seen without it could be chance. Do not rely on this ranking. {same}"
    ).strip()


def conserved_verdict(explanation: Explanation) -> tuple[bool, str]:
    """Say in words what the permutation tests of the conserved weights found; the first value: are they special?"""
    found, name = explanation.conserved, explanation.dataset.kind.score_name
    test, matched = found.test, found.matched
    if test is None or matched is None:
        explored = explanation.explored
        if len(explored.landscape.minima.energies) == 1 and explored.supported is None:
            why = "Only one minimum was found (up to copies), so there is no group whose weights could differ"
        else:
            why = f"Of the input weights only {int(found.found.mask.sum())} is conserved, too few to shuffle"
        return False, f"{why}: nothing was tested."
    mask, bins = found.found.mask[0], found.bins
    strata = np.minimum(bins, 0)
    conserved, random = float(test.conserved.mean()), float(test.random.mean())
    what = (
        f"Shuffling the conserved weights takes the held-out {name} from {float(test.baseline):.3f} to "
        f"{conserved:.3f}; shuffling as many random input weights, to {random:.3f} ± {float(test.random.std()):.3f} "
        f"(p = {float(test.p_value):.3f}); as many of similar magnitude ({validation.overlap(mask, bins):.0%} of them "
        f"the conserved ones themselves), to {float(matched.random.mean()):.3f} ± {float(matched.random.std()):.3f} "
        f"(p = {float(matched.p_value):.3f})."
    )
    if validation.num_sets(mask, strata) < _FEWEST_SETS:
        return False, f"{what} There are too few other sets of so many weights to tell whether these are special."
    if float(test.p_value) > SIGNIFICANT:
        return False, f"{what} The conserved weights could not be told apart from random ones."
    if validation.num_sets(mask, bins) < _FEWEST_SETS:
        return True, (
            f"{what} The model relies on the conserved weights more than on random ones; there are too few other sets "
            "as large to tell whether that is more than their magnitude."
        )
    if float(matched.p_value) > SIGNIFICANT:
        return True, (
            f"{what} The model relies on the conserved weights more than on random ones, but they could not be told "
            "apart from others as large: it may be their magnitude that counts, not that they are conserved."
        )
    return True, f"{what} The model relies on the conserved weights more than on others, also than on others as large."


def support_sentence(explanation: Explanation) -> str | None:
    """Say in words what the data support; None where the penalty was given."""
    if explanation.supported is None:
        return None
    best = explanation.supported.best
    units = " and ".join(map(str, best.hidden))
    minima = len(explanation.landscape.minima.energies)
    text = (
        f"The data support {units} hidden unit{'s' * (best.hidden != (1,))} and {int(best.awake.sum())} of "
        f"{len(best.awake)} columns (the smallest network of best evidence; others use others)."
    )
    if minima == 1:
        text += " At these penalties the search found a single minimum, up to copies."
    else:
        text += f" At these penalties the search found {minima} minima."
    return text + _DOUBTS.get(Outcome(int(best.found.status[0])), "")
