"""Run one peer package (pele or topsearch) on a small neural-network loss
landscape for a fixed wall-clock budget and save what it stored.

    <venv>/bin/python benchmarks/peer_search.py {pele,topsearch} --units 4 \
        --l2 1e-3 --seconds 120 --seed 0 --strategy both --out file.npz

Only the peer's own algorithms search; this file supplies the loss, the
settings, the clock and the saving.  Every call of energy, gradient or
energy+gradient counts as one evaluation.  See SETTINGS for all numbers;
`--set KEY=VALUE` overrides one.  The stand-in needs no package and does not
search: it stores random points, to try this program and its readers.
"""

import os

for _v in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ[_v] = "1"
os.environ.setdefault("MPLBACKEND", "Agg")

import argparse
import ast
import contextlib
import logging
import random
import shutil
import signal
import sys
import tempfile
import time
import traceback
import warnings
from collections import Counter
from importlib.metadata import version

import numpy as np
from smoke import arguments

SETTINGS = {
    "pele": dict(
        tol=5e-9,  # rms gradient, quenches and transition states
        bh_fraction=0.25,  # share of the wall clock for basin-hopping
        bh_step=4.0,  # uniform displacement per coordinate
        bh_temperature=1e4,  # accept (nearly) all, as for networks in learnscapes
        bh_maxstep=1.0,  # largest L-BFGS step in basin-hopping quenches
        start_scale=2.0,  # normal start of basin-hopping
        quench_maxstep=0.2,  # largest L-BFGS step after a push-off
        quench_rise=1e-12,  # energy rise allowed in a quench (default 1e-4 is
        quench_steps=5000,  # larger than many barriers here)
        energy_accuracy=1e-8,  # Database.accuracy
        distance=1e-3,  # Database.compareMinima
        displacement=2.0,  # single-ended: uniform displacement per coordinate
        ts_nsteps=300,
        invert_gradient=True,  # dimer-like translation: 60 of 60 searches succeed
        negatives_before_check=0,  # once negative, the curvature must stay so: else
        nsteps_tangent1=10,  # searches climb the l2 bowl for ever
        nsteps_tangent2=100,
        max_uphill_step=0.5,
        max_uphill_step_initial=0.2,
        tangent_maxstep=0.2,
        eig_tol=1e-4,
        eig_nsteps=500,  # fewer fail pele's own index screen
        eig_memory=10,
        eig_dx=1e-6,
        eig_first_order=True,
        eig_cpp=True,
        hessian_diagonalization=False,
        pushoff=0.05,
        double_share=0.25,  # share of the time after basin-hopping, 'both'
        connect_strategy="gmin",
        connect_niter=3,
        neb_k=1.0,
        neb_image_density=1.5,
        neb_max_images=30,
        neb_iter_density=30.0,
        neb_tol=1e-3,
        neb_maxstep=0.1,
        nrefine_max=10,
    ),
    "topsearch": dict(
        bound=20.0,  # box |theta_i| <= bound; 2 % of its width also caps each
        # coordinate's move in topsearch's descents
        start=4.0,  # uniform start of basin-hopping within +-start
        bh_fraction=0.25,
        bh_step=12.0,  # StandardPerturbation: uniform in +-bh_step/2
        bh_temperature=100.0,  # as in its examples: accept (nearly) all
        bh_conv=9e-9,  # max |gradient|
        bh_maxiter=1000,  # lbfgs.minimise's n_steps during basin-hopping; its
        # default 200 makes it drop a sixth of the quenches
        energy_accuracy=1e-8,
        distance=1e-3,
        displacement=1.0,  # single-ended: uniform displacement per coordinate
        ts_conv=1e-8,  # max |gradient|
        ts_steps=100,
        sd_conv=9e-9,
        eig_conv=1e-3,  # tighter ones close its 'fewer than 5 iterations' gate
        # to the subspace minimisation
        min_uphill_step=1e-11,  # its default 1e-7 alone keeps gradients above 1e-8
        max_uphill_step=0.3,
        positive_eigenvalue_step=0.1,
        pushoff=0.5,
        neb_k=0.1,
        neb_image_density=2.0,
        neb_max_images=30,
        neb_conv=1e-2,
        double_share=0.75,
        method="ClosestEnumeration",
        cycles=4,
    ),
    "stand-in": dict(points=3),
}


class TimeUp(BaseException):
    """The wall-clock budget is spent (not an Exception: nothing swallows it)."""


class Clock:
    """Budget with two guards: the loss raises TimeUp when called after the
    limit, and an alarm raises it in code that does not call the loss.
    Neither raises while `hold` is on (inside compiled code, or while a found
    point is being stored)."""

    def __init__(self, seconds):
        self.seconds = seconds
        self.hold = 0
        self.raised = -np.inf
        self.start = time.perf_counter()
        self.cpu_start = time.process_time()
        self.limit = np.inf
        self.finds = []  # seconds and evaluations at each saddle found
        signal.signal(signal.SIGALRM, self._alarm)

    def elapsed(self):
        return time.perf_counter() - self.start

    def set_limit(self, limit):
        self.limit = limit
        if np.isfinite(limit):
            signal.setitimer(signal.ITIMER_REAL, max(limit - self.elapsed(), 1e-3) + 0.25, 0.25)
        else:
            signal.setitimer(signal.ITIMER_REAL, 0)

    def _alarm(self, *_):
        # not twice in quick succession, so that nothing escapes while the first
        # one is being handled
        if not self.hold and self.elapsed() >= max(self.limit, self.raised + 2.0):
            self.raised = self.elapsed()
            raise TimeUp

    def check(self):
        if not self.hold and self.elapsed() >= self.limit:
            raise TimeUp

    @contextlib.contextmanager
    def held(self):
        self.hold += 1
        try:
            yield
        finally:
            self.hold -= 1


class Loss:
    """Mean sigmoid cross-entropy of a tanh network with one hidden layer on
    points of a checkerboard, plus l2 * sum of squares of all parameters.
    theta = W1 (2, H) row-major, b1 (H), W2 (H, 1), b2 (1)."""

    def __init__(self, units, l2, clock=None, points=60):
        x = np.random.default_rng(0).uniform(-1, 1, (points, 2))
        self.y = (x.prod(axis=1) < 0).astype(float)
        self.x = np.column_stack([x, np.ones(len(x))])
        self.xt = np.ascontiguousarray(self.x.T)
        self.h, self.l2, self.n = units, l2, len(x)
        self.ones = np.ones(self.n)
        self.mean = self.ones / self.n
        self.ym = self.y / self.n
        self.offset = (0.5 - self.y) / self.n
        self.a, self.t, self.s = np.empty((self.n, units)), np.empty(self.n), np.empty(self.n)
        self.dim = 4 * units + 1
        self.clock = clock
        self.evaluations = 0

    def energy_gradient(self, theta):
        if self.clock is not None:
            self.clock.check()
        self.evaluations += 1
        h, a, t, s = self.h, self.a, self.t, self.s
        w2 = theta[3 * h : 4 * h]
        np.dot(self.x, theta[: 3 * h].reshape(3, h), out=a)
        np.tanh(a, a)
        np.dot(a, w2, out=t)
        t += theta[4 * h]
        e = self.mean.dot(np.logaddexp(0.0, t)) - self.ym.dot(t) + self.l2 * theta.dot(theta)
        np.multiply(t, 0.5, s)
        np.tanh(s, s)  # sigmoid(t) = (1 + tanh(t / 2)) / 2
        s *= 0.5 / self.n
        s += self.offset
        g = (2 * self.l2) * theta
        g[3 * h : 4 * h] += s.dot(a)
        g[4 * h] += self.ones.dot(s)
        a *= a
        np.subtract(1.0, a, a)
        a *= s[:, None]
        g[: 3 * h] += (self.xt.dot(a) * w2).ravel()
        return float(e), g

    def energy(self, theta):
        return self.energy_gradient(theta)[0]

    def gradient(self, theta):
        return self.energy_gradient(theta)[1]


def check_gradient(loss, rng):
    worst = 0.0
    for scale in (0.3, 1.0, 3.0):
        x = rng.normal(0, scale, loss.dim)
        e, g = loss.energy_gradient(x)
        h, l2 = loss.h, loss.l2
        w1, b1 = x[: 2 * h].reshape(2, h), x[2 * h : 3 * h]
        w2, b2 = x[3 * h : 4 * h].reshape(h, 1), x[4 * h]
        t = (np.tanh(loss.x[:, :2] @ w1 + b1) @ w2 + b2).ravel()
        p = 1 / (1 + np.exp(-t))
        direct = -np.mean(loss.y * np.log(p) + (1 - loss.y) * np.log(1 - p)) + l2 * np.sum(x**2)
        assert abs(direct - e) < 1e-10, (direct, e)
        fd = np.array([(loss.energy(x + d) - loss.energy(x - d)) / 2e-5 for d in 1e-5 * np.eye(loss.dim)])
        worst = max(worst, np.abs(fd - g).max())
    assert worst < 1e-8, worst
    loss.evaluations = 0
    return worst


def describe(loss, xs):
    """rms gradient, number of negative and smallest absolute eigenvalue
    (central differences) of each point; outside the count."""
    rms, index, soft = [], [], []
    h = 1e-5
    for x in xs:
        rms.append(np.sqrt(np.mean(loss.gradient(x) ** 2)))
        hess = np.array([loss.gradient(x + d) - loss.gradient(x - d) for d in h * np.eye(loss.dim)]) / (2 * h)
        w = np.linalg.eigvalsh(0.5 * (hess + hess.T))
        index.append(int((w < 0).sum()))
        soft.append(np.abs(w).min())
    return np.array(rms), np.array(index, int), np.array(soft)


def log_error(errors):
    kind = traceback.format_exc().strip().splitlines()[-1]
    errors[kind] += 1
    if errors[kind] == 1:
        traceback.print_exc(file=sys.stderr)


class Alternate:
    """Choose between single- and double-ended searches so that their shares
    of the elapsed time follow the wanted ones."""

    def __init__(self, strategy, double_share):
        self.want = {
            "single": {"single": 1.0},
            "double": {"double": 1.0},
            "both": {"single": 1 - double_share, "double": double_share},
        }[strategy]
        self.spent = dict.fromkeys(self.want, 0.0)

    def next(self):
        return min(self.want, key=lambda k: self.spent[k] / self.want[k])


# --------------------------------------------------------------------- pele


def run_pele(loss, clock, args, p, errors, stats):
    logging.disable(logging.CRITICAL)
    from pele.landscape import ConnectManager
    import pele.landscape.local_connect as local_connect
    from pele.optimize import lbfgs_cpp
    from pele.potentials import BasePotential
    from pele.systems import BaseSystem
    from pele.takestep import RandomDisplacement

    class Potential(BasePotential):
        def getEnergy(self, x):
            return loss.energy(x)

        def getEnergyGradient(self, x):
            return loss.energy_gradient(x)

        def getGradient(self, x):
            return loss.gradient(x)

        def getEnergyGradientHessian(self, x):
            e, g = loss.energy_gradient(x)
            return e, g, self.NumericalHessian(x, eps=1e-5)

        def getHessian(self, x):
            return self.NumericalHessian(x, eps=1e-5)

    pot = Potential()

    def quencher(maxstep):
        def quench(x):
            with clock.held():  # no exception through compiled code
                return lbfgs_cpp(
                    x, pot, tol=p["tol"], maxstep=maxstep, M=10, maxErise=p["quench_rise"], nsteps=p["quench_steps"]
                )

        return quench

    class Network(BaseSystem):
        def __init__(self):
            super().__init__()
            self.params.database.accuracy = p["energy_accuracy"]

        def get_potential(self):
            return pot

        def get_minimizer(self, **kw):
            return quencher(p["bh_maxstep"])

        def get_random_configuration(self):
            return np.random.normal(0, p["start_scale"], loss.dim)

        def get_compare_exact(self):
            return lambda a, b: np.linalg.norm(a - b) < p["distance"]

        def get_mindist(self):
            return lambda a, b: (np.linalg.norm(a - b), a, b)

        def get_orthogonalize_to_zero_eigenvectors(self):
            return None

        def get_takestep(self, **kw):
            return RandomDisplacement(stepsize=p["bh_step"])

    system = Network()
    db = system.create_database()
    db.session.expire_on_commit = False  # else every attribute is read again
    minima, tries = [], []  # copies that need no SQL

    def added(m):  # a name: Signal keeps weak references
        minima.append(np.array(m.coords))
        tries.append(0)

    db.on_minimum_added.connect(added)
    # a TimeUp inside these would leave the database locked
    for name in ("addMinimum", "addTransitionState"):

        def held(*a, _f=getattr(db, name), **k):
            with clock.held():
                try:
                    return _f(*a, **k)
                finally:
                    if db.lock.locked():
                        db.lock.release()

        setattr(db, name, held)

    lcp = system.params.double_ended_connect.local_connect_params
    eig = dict(
        tol=p["eig_tol"], nsteps=p["eig_nsteps"], dx=p["eig_dx"], first_order=p["eig_first_order"], M=p["eig_memory"]
    )
    if p["eig_cpp"]:
        eig["cpp_lbfgs"] = True
    lcp.tsSearchParams.update(
        tol=p["tol"],
        nsteps=p["ts_nsteps"],
        orthogZeroEigs=None,
        verbosity=0,
        iprint=-1,
        invert_gradient=p["invert_gradient"],
        negatives_before_check=p["negatives_before_check"],
        nsteps_tangent1=p["nsteps_tangent1"],
        nsteps_tangent2=p["nsteps_tangent2"],
        max_uphill_step=p["max_uphill_step"],
        max_uphill_step_initial=p["max_uphill_step_initial"],
        hessian_diagonalization=p["hessian_diagonalization"],
        index_seed=args.seed,
        lowestEigenvectorQuenchParams=eig,
        tangentSpaceQuenchParams=dict(maxstep=p["tangent_maxstep"]),
    )
    lcp.pushoff_params.update(stepmin=p["pushoff"], quench=quencher(p["quench_maxstep"]))
    lcp.nrefine_max = p["nrefine_max"]
    lcp.NEBparams.update(
        k=p["neb_k"],
        image_density=p["neb_image_density"],
        max_images=p["neb_max_images"],
        iter_density=p["neb_iter_density"],
        adjustk_freq=10,
        reinterpolate=20,
        adaptive_nimages=True,
        adaptive_niter=True,
        NEBquenchParams=dict(tol=p["neb_tol"], maxErise=100.0, maxstep=p["neb_maxstep"]),
    )

    found = []  # every successful refinement, also those that pele drops
    refine = local_connect._refineTS

    def recording_refine(*a, **k):
        ok, ts, m1, m2 = refine(*a, **k)
        if ok and not (m1.success and m2.success):
            stats["quench after push-off not converged"] += 1
            return False, ts, None, None
        if ok:
            found.append((np.array(ts.coords), float(ts.energy), float(ts.eigenval), m1, m2, ts))
            clock.finds.append((clock.elapsed(), loss.evaluations))
        return ok, ts, m1, m2

    local_connect._refineTS = recording_refine

    def store(entry):
        x, e, lam, m1, m2, ts = entry
        if e < m1.energy or e < m2.energy:  # DoubleEndedConnect's own check
            stats["below its minima"] += 1
            return
        with clock.held():
            a = db.addMinimum(m1.energy, m1.coords)
            b = db.addMinimum(m2.energy, m2.coords)
            if a == b:
                stats["both sides one minimum"] += 1
            db.addTransitionState(e, x, a, b, eigenval=lam)

    def single():
        stats["single searches"] += 1
        low = min(tries)
        i = random.choice([k for k, t in enumerate(tries) if t == low])
        tries[i] += 1
        x = minima[i].copy()
        step.takeStep(x)
        n = len(found)
        recording_refine(pot, x, tsSearchParams=lcp.tsSearchParams, pushoff_params=lcp.pushoff_params)
        for entry in found[n:]:
            stats["single successes"] += 1
            store(entry)

    step = RandomDisplacement(stepsize=p["displacement"])
    manager = None

    def double():
        nonlocal manager
        if len(minima) < 2:
            return
        if manager is None:
            manager = ConnectManager(db, strategy=p["connect_strategy"], list_len=50, verbosity=0)
        try:
            m1, m2 = manager.get_connect_job()
        except ConnectManager.NoMoreConnectionsError:
            manager = None
            return single()
        stats["double-ended connects"] += 1
        n = len(found)
        try:
            connect = system.get_double_ended_connect(m1, m2, db, verbosity=0, niter=p["connect_niter"])
            connect.connect()
            stats["double-ended connected"] += bool(connect.success())
        finally:
            stats["double-ended successes"] += len(found) - n
            for entry in found[n:]:  # again, in case it stopped half-way
                store(entry)

    try:
        bh = None
        clock.set_limit(p["bh_fraction"] * args.seconds)
        try:
            while True:
                try:
                    if bh is None:
                        bh = system.get_basinhopping(
                            database=db,
                            outstream=None,
                            insert_rejected=True,
                            temperature=p["bh_temperature"],
                            confCheck=[lambda energy, coords, driver: driver.rms <= p["tol"]],
                        )
                    clock.check()
                    bh.run(1)
                    stats["basin-hopping steps"] += 1
                except Exception:
                    log_error(errors)
                    bh = None
        except TimeUp:
            clock.set_limit(np.inf)
        stats["minima after basin-hopping"] = len(minima)
        clock.set_limit(args.seconds)
        pick = Alternate(args.strategy, p["double_share"])
        with contextlib.suppress(TimeUp):
            while True:
                clock.check()
                kind, t0 = pick.next(), clock.elapsed()
                try:
                    single() if kind == "single" else double()
                except Exception:
                    log_error(errors)
                    with contextlib.suppress(Exception):
                        db.session.rollback()
                pick.spent[kind] += clock.elapsed() - t0
        for k, v in pick.spent.items():
            stats[f"{k} seconds"] = round(v, 2)
    finally:
        clock.set_limit(np.inf)

    def result():
        with contextlib.suppress(Exception):
            db.session.rollback()
        ids, mx, me = {}, [], []
        for m in db.minima(order_energy=False):
            ids[m.id()] = len(mx)
            mx.append(np.array(m.coords))
            me.append(m.energy)
        tx, te, tm = [], [], []
        for t in db.transition_states():
            tx.append(np.array(t.coords))
            te.append(t.energy)
            tm.append((ids[t._minimum1_id], ids[t._minimum2_id]))
        return mx, me, tx, te, tm, [f[0] for f in found]

    return result


# ---------------------------------------------------------------- topsearch


def run_topsearch(loss, clock, args, p, errors, stats):
    from topsearch.analysis.minima_properties import get_invalid_minima
    from topsearch.data.coordinates import StandardCoordinates
    from topsearch.data.kinetic_transition_network import KineticTransitionNetwork
    from topsearch.global_optimisation.basin_hopping import BasinHopping
    from topsearch.global_optimisation.perturbations import StandardPerturbation
    from topsearch.minimisation import lbfgs
    from topsearch.potentials.potential import Potential
    from topsearch.sampling.exploration import NetworkSampling
    from topsearch.similarity.similarity import StandardSimilarity
    from topsearch.transition_states.hybrid_eigenvector_following import HybridEigenvectorFollowing
    from topsearch.transition_states.nudged_elastic_band import NudgedElasticBand

    def iteration_cap(n):  # a default of theirs that no caller passes
        d = list(lbfgs.minimise.__defaults__)
        d[2] = n  # (conv_crit, history_size, n_steps, args)
        lbfgs.minimise.__defaults__ = tuple(d)

    own_cap = lbfgs.minimise.__defaults__[2]
    assert own_cap == 200

    class Network(Potential):
        def __init__(self):
            self.atomistic = False

        def function(self, x):
            return loss.energy(x)

        def gradient(self, x):
            return loss.gradient(x)

        def function_gradient(self, x):
            return loss.energy_gradient(x)

    pot = Network()
    coords = StandardCoordinates(ndim=loss.dim, bounds=[(-p["bound"], p["bound"])] * loss.dim)
    same = StandardSimilarity(distance_criterion=p["distance"], energy_criterion=p["energy_accuracy"])
    ktn = KineticTransitionNetwork()
    optimiser = BasinHopping(
        ktn=ktn, potential=pot, similarity=same, step_taking=StandardPerturbation(max_displacement=p["bh_step"])
    )
    hef = HybridEigenvectorFollowing(
        potential=pot,
        ts_conv_crit=p["ts_conv"],
        ts_steps=p["ts_steps"],
        pushoff=p["pushoff"],
        steepest_descent_conv_crit=p["sd_conv"],
        min_uphill_step_size=p["min_uphill_step"],
        max_uphill_step_size=p["max_uphill_step"],
        positive_eigenvalue_step=p["positive_eigenvalue_step"],
        eigenvalue_conv_crit=p["eig_conv"],
    )
    neb = NudgedElasticBand(
        potential=pot,
        force_constant=p["neb_k"],
        image_density=p["neb_image_density"],
        max_images=p["neb_max_images"],
        neb_conv_crit=p["neb_conv"],
    )
    explorer = NetworkSampling(
        ktn=ktn,
        coords=coords,
        global_optimiser=optimiser,
        single_ended_search=hef,
        double_ended_search=neb,
        similarity=same,
    )

    found, pending = [], []
    hef_run = hef.run

    def recording_run(c):
        out = hef_run(c)
        stats["eigenvector-following searches"] += 1
        if out[0] is None:
            stats[f"failed: {hef.failure}"] += 1
        else:
            out = (np.array(out[0]),) + out[1:]
            stats["eigenvector-following successes"] += 1
            found.append(out[0])
            clock.finds.append((clock.elapsed(), loss.evaluations))
            pending.append(out)
        return out

    hef.run = recording_run

    def store():
        """similarity.test_new_ts for what a search that stopped half-way found
        (points already in the network are recognised and left out)."""
        with clock.held():
            while pending:
                j = pending.pop()
                coords.position = j[0]
                same.test_new_ts(ktn, coords, *j[1:6])

    tries = []

    def single():
        stats["single searches"] += 1
        tries.extend([0] * (ktn.n_minima - len(tries)))
        low = min(tries)
        i = random.choice([k for k, t in enumerate(tries) if t == low])
        tries[i] += 1
        coords.position = ktn.get_minimum_coords(i).copy()
        StandardPerturbation(max_displacement=2 * p["displacement"]).perturb(coords)
        hef.run(coords)
        store()

    queue, rounds = [], 0

    def double():
        nonlocal queue, rounds
        if not queue:
            method = p["method"] if rounds % 2 == 0 else "ConnectUnconnected"
            queue = explorer.select_minima(coords, method, p["cycles"] * (1 + rounds // 2))
            random.shuffle(queue)
            # pairs that its own check_pair would skip at once
            queue = [q for q in queue if not ktn.G.has_edge(*q)]
            rounds += 1
            stats["pairs selected"] += len(queue)
            if not queue:
                return single()
        pair = queue.pop()
        stats["double-ended connects"] += 1
        explorer.run_connection_attempts([pair])
        pending.clear()

    try:
        iteration_cap(p["bh_maxiter"])
        clock.set_limit(p["bh_fraction"] * args.seconds)
        start = True
        try:
            while True:
                try:
                    clock.check()
                    if start:
                        coords.position = np.random.uniform(-p["start"], p["start"], loss.dim)
                    start = False
                    # the Markov chain goes on from coords.position
                    optimiser.run(coords=coords, n_steps=25, conv_crit=p["bh_conv"], temperature=p["bh_temperature"])
                    stats["basin-hopping steps"] += 25
                except Exception:
                    log_error(errors)
                    start = True
        except TimeUp:
            clock.set_limit(np.inf)
        iteration_cap(own_cap)
        with clock.held():  # as its get_minima(test_valid=True) ends
            try:
                bad = get_invalid_minima(ktn, pot, coords)
                ktn.remove_minima(np.array(bad, int))
                stats["minima dropped by its own test"] = len(bad)
            except Exception:
                log_error(errors)
        stats["minima after basin-hopping"] = ktn.n_minima
        clock.set_limit(args.seconds)
        pick = Alternate(args.strategy, p["double_share"])
        with contextlib.suppress(TimeUp):
            while True:
                clock.check()
                kind, t0 = pick.next(), clock.elapsed()
                try:
                    single() if kind == "single" else double()
                except Exception:
                    log_error(errors)
                    with contextlib.suppress(Exception):
                        store()
                pick.spent[kind] += clock.elapsed() - t0
        for k, v in pick.spent.items():
            stats[f"{k} seconds"] = round(v, 2)
        with contextlib.suppress(Exception):
            store()
    finally:
        clock.set_limit(np.inf)

    def result():
        mx = [ktn.get_minimum_coords(i) for i in range(ktn.n_minima)]
        me = [ktn.get_minimum_energy(i) for i in range(ktn.n_minima)]
        edges = list(ktn.G.edges())
        stats["n_ts (the package's own counter)"] = ktn.n_ts
        return (mx, me, [ktn.get_ts_coords(*e) for e in edges], [ktn.get_ts_energy(*e) for e in edges], edges, found)

    return result


# ----------------------------------------------------------------- stand-in


def run_stand_in(loss, clock, args, p, errors, stats):
    points = list(np.random.normal(size=(p["points"], loss.dim)))
    energies = [loss.energy(x) for x in points]
    with contextlib.suppress(TimeUp):
        clock.set_limit(args.seconds)
        while True:
            clock.check()
            stats["turns"] += 1
    clock.set_limit(np.inf)
    clock.finds.append((clock.elapsed(), loss.evaluations))
    return lambda: (points, energies, points[:1], energies[:1], [(0, 1)], points[:1])


RUNNERS = {"pele": run_pele, "topsearch": run_topsearch, "stand-in": run_stand_in}
MODULES = {"pele": "pele.landscape", "topsearch": "topsearch.sampling.exploration"}


def main():
    ap = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    ap.add_argument("package", choices=sorted(SETTINGS))
    ap.add_argument("--units", type=int, default=4)
    ap.add_argument("--l2", type=float, default=1e-3)
    ap.add_argument("--points", type=int, default=60)
    ap.add_argument("--seconds", type=float, default=120)
    ap.add_argument("--seed", type=int, default=0)
    ap.add_argument("--strategy", choices=("single", "double", "both"), default="both")
    ap.add_argument("--out", required=True)
    ap.add_argument("--set", action="append", default=[], metavar="KEY=VALUE")
    args = arguments(ap, "stand-in --seconds 0.1 --set points=4 --out {folder}/found.npz")
    if args.smoke:
        print("<!-- pele and topsearch are left out -->")
    p = dict(SETTINGS[args.package])
    for item in args.set:
        key, _, value = item.partition("=")
        if key not in p:
            ap.error(f"no setting {key!r}; there are {', '.join(p)}")
        p[key] = type(p[key])(ast.literal_eval(value)) if not isinstance(p[key], str) else value
    out = os.path.abspath(args.out)
    warnings.filterwarnings("ignore")

    worst = check_gradient(Loss(args.units, args.l2, points=args.points), np.random.default_rng(1))
    np.random.seed(args.seed)
    random.seed(args.seed)
    # imported before the clock starts; both keep their log files to a scratch folder
    if args.package in MODULES:
        __import__(MODULES[args.package])
    release = version(args.package) if args.package in MODULES else "0"
    scratch = tempfile.mkdtemp(prefix="run_peer_")
    os.chdir(scratch)
    clock = Clock(args.seconds)
    loss = Loss(args.units, args.l2, clock, args.points)
    errors, stats = Counter(), Counter()
    with open(os.devnull, "w") as null, contextlib.redirect_stdout(null):
        result = RUNNERS[args.package](loss, clock, args, p, errors, stats)
    seconds, cpu = clock.elapsed(), time.process_time() - clock.cpu_start
    evaluations = loss.evaluations
    mx, me, tx, te, tm, found = result()

    def block(rows, width):
        return np.array(rows, float).reshape(-1, width)

    mx, tx, fx = (block(v, loss.dim) for v in (mx, tx, found))
    m_rms, m_index, m_soft = describe(loss, mx)
    t_rms, t_index, t_soft = describe(loss, tx)
    np.savez_compressed(
        out,
        minima_positions=mx,
        minima_energies=np.array(me, float),
        ts_positions=tx,
        ts_energies=np.array(te, float),
        ts_minima=np.array(tm, int).reshape(-1, 2),
        evaluations=evaluations,
        seconds=seconds,
        package=args.package,
        version=release,
        # quality of each point, all saddle searches that succeeded (repeats
        # too), and the run's own account
        minima_rms=m_rms,
        minima_index=m_index,
        ts_rms=t_rms,
        ts_index=t_index,
        found_ts_positions=fx,
        found_ts_when=np.array(clock.finds, float).reshape(-1, 2)[: len(fx)],
        cpu_seconds=cpu,
        units=args.units,
        l2=args.l2,
        seed=args.seed,
        strategy=args.strategy,
        settings=repr(p),
        stats=repr(dict(stats)),
        errors=repr(dict(errors)),
    )
    shutil.rmtree(scratch, ignore_errors=True)
    print(
        f"{args.package} {release} units {args.units} l2 {args.l2:g} seed "
        f"{args.seed} {args.strategy}: {len(mx)} minima, {len(tx)} transition states, "
        f"{evaluations} evaluations, {seconds:.1f} s (cpu {cpu:.1f} s)"
    )
    if len(mx):
        print(
            f"  minima: rms gradient max {m_rms.max():.1e}, index 0 for {(m_index == 0).sum()}, "
            f"softest |eigenvalue| {m_soft.min():.1e}, lowest loss {min(me):.8f}, "
            f"largest |parameter| {np.abs(mx).max():.2f}"
        )
    if len(tx):
        print(
            f"  transition states: rms gradient max {t_rms.max():.1e}, "
            f"index 1 for {(t_index == 1).sum()}, softest |eigenvalue| {t_soft.min():.1e}"
        )
    print(f"  gradient check {worst:.1e}; {dict(stats)}")
    if errors:
        print(f"  errors: {dict(errors)}")


if __name__ == "__main__":
    main()
