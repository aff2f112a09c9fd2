"""Brute-force oracle: all stationary points of small functions, in NumPy alone.

    python benchmarks/oracle.py PROBLEM --starts N --out oracle.json

PROBLEM: camel, schwefel, ackley, mueller_brown, xorH, checkerH_L2 (checker3_1e-2): networks of
H tanh units and one logit; flat order W1 (2, H) row-major, b1, W2, b2; mean cross-entropy +
l2 * sum(theta^2); the symmetry group is the 2^H H! permutations and sign flips of hidden units.

Solves gradient = 0 by Levenberg-Marquardt on ||g||^2, alone or after a capped Newton iteration,
merges points equal up to the group, takes the index from eigvalsh.  2-D functions start from a
fine grid; networks from random points of many scales ("blind") and, as many, from combinations
and perturbations of points known so far; 30 % of either are made symmetric.  Writes energies and
hits of minima and transition states to the JSON file, positions to the .npz file beside it.
"""

import argparse
import itertools
import json
import time
from pathlib import Path

import numpy as np
from smoke import arguments


def sym(a, b, c):
    return np.array([[a, b], [b, c]]).transpose(2, 0, 1)


def camel(X):
    x, y = X.T
    f = (4 - 2.1 * x**2 + x**4 / 3) * x**2 + x * y + (4 * y**2 - 4) * y**2
    g = np.stack([8 * x - 8.4 * x**3 + 2 * x**5 + y, x - 8 * y + 16 * y**3], -1)
    return f, g, sym(8 - 25.2 * x**2 + 10 * x**4, np.ones_like(x), 48 * y**2 - 8)


def schwefel(X):
    r = np.sqrt(np.maximum(np.abs(X), 1e-30))
    s, c = np.sin(r), np.cos(r)
    h = -np.sign(X) * (0.75 * c / r - 0.25 * s)
    return 418.9829 * 2 - (X * s).sum(1), -s - 0.5 * r * c, sym(h[:, 0], 0 * h[:, 0], h[:, 1])


def ackley(X):
    r = np.maximum(np.sqrt((X**2).mean(1)), 1e-30)
    a, w = 20 * np.exp(-0.2 * r), 2 * np.pi
    b, s = np.exp(np.cos(w * X).mean(1)), np.sin(w * X)
    g = (0.1 * a / r)[:, None] * X + (0.5 * w * b)[:, None] * s
    p, q = 0.1 * a / r * (0.1 / r + 0.5 / r**2), 0.25 * w * w * b  # of X X^T and s s^T
    D = (0.1 * a / r + 0.5 * w * w * b * np.cos(w * X).T) - p * X.T**2 - q * s.T**2
    return 20 + np.e - a - b, g, sym(D[0], -p * X.prod(1) - q * s.prod(1), D[1])


def mueller_brown(X):
    x, y = X[:, :1], X[:, 1:]
    A, a, b = np.array([[-200, -100, -170, 15], [-1, -1, -6.5, 0.7], [0, 0, 11, 0.6]])
    c, u, v = np.array([-10, -10, -6.5, 0.7]), x - np.array([1, 0, -0.5, -1]), y - np.array([0, 0.5, 1.5, 1])
    e = A * np.exp(np.minimum(a * u * u + b * u * v + c * v * v, 200))
    p, q = 2 * a * u + b * v, b * u + 2 * c * v
    H = sym((e * (p * p + 2 * a)).sum(1), (e * (p * q + b)).sum(1), (e * (q * q + 2 * c)).sum(1))
    return e.sum(1), np.stack([(e * p).sum(1), (e * q).sum(1)], -1), H


def network(x, y, H, l2):
    N, P, x1 = len(x), 4 * H + 1, np.hstack([x, np.ones((len(x), 1))])

    def fgh(X):
        B, v = len(X), X[:, None, 3 * H : 4 * H]
        t = np.tanh(x1 @ X[:, : 3 * H].reshape(B, 3, H))
        s = 1 - t * t
        z = (t * v).sum(2) + X[:, -1:]
        p = np.exp(-np.logaddexp(0, -z))
        f = (np.logaddexp(0, z) - y * z).mean(1) + l2 * (X * X).sum(1)
        Jw = (x1[:, :, None] * (v * s)[:, :, None, :]).reshape(B, N, 3 * H)
        J = np.concatenate([Jw, t, np.ones((B, N, 1))], 2)
        d1, d2 = (p - y) / N, p * (1 - p) / N
        g = (d1[:, None, :] @ J)[:, 0] + 2 * l2 * X
        Hess = J.transpose(0, 2, 1) @ (d2[:, :, None] * J) + 2 * l2 * np.eye(P)
        ds = d1[:, :, None] * s  # below, the second derivatives of the logit
        C = np.tensordot(-2 * t * v * ds, x1[:, :, None] * x1[:, None, :], (1, 0))
        c = np.tensordot(ds, x1, (1, 0))
        for h, i in enumerate(np.arange(3 * H).reshape(3, H).T):  # b1 is the third row of W1
            Hess[:, i[:, None], i] += C[:, h]
            Hess[:, i, 3 * H + h] += c[:, h]
            Hess[:, 3 * H + h, i] += c[:, h]
        return f, g, Hess

    return fgh


BOXES = {
    "camel": [[-3, 3], [-2, 2]],
    "schwefel": [[-500, 500]] * 2,
    "ackley": [[-32.768, 32.768]] * 2,
    "mueller_brown": [[-1.5, 1.2], [-0.2, 2]],
}


def problem(name):
    """(fgh, number of hidden units, box or None) of a problem."""
    if name in BOXES:
        return globals()[name], 0, np.array(BOXES[name], float)
    if name.startswith("xor"):
        H, l2, x = name[3:], 1e-3, np.array([[-1.0, -1], [-1, 1], [1, -1], [1, 1]])
    else:
        (H, l2), x = name.removeprefix("checker").split("_"), np.random.default_rng(0).uniform(-1, 1, (60, 2))
    return network(x, (x.prod(axis=1) < 0).astype(float), int(H), float(l2)), int(H), None


def check(fgh, X, d=1e-5):
    """Analytic derivatives against central differences."""
    f, g, H = fgh(X)
    for i in range(X.shape[1]):
        (fp, gp, _), (fm, gm, _) = (fgh(X + s * d * np.eye(X.shape[1])[i]) for s in (1, -1))
        assert np.allclose((fp - fm) / (2 * d), g[:, i], atol=1e-6 * (1 + abs(f).max()), rtol=1e-5)
        assert np.allclose((gp - gm) / (2 * d), H[:, i], atol=1e-6 * (1 + abs(g).max()), rtol=1e-5)


def lm(fgh, X, mu, iters, tol):
    """Levenberg-Marquardt on ||g||^2 from each row of X; rows and whether converged."""
    X, mu, live = X.copy(), mu.copy(), np.arange(len(X))
    _, g, H = fgh(X)
    for _ in range(iters):
        live = live[(abs(g[live]).max(1) > tol) & (mu[live] < 1e4) & np.isfinite(g[live]).all(1)]
        A = H[live] @ H[live]
        A += (mu[live] * A.trace(axis1=1, axis2=2) + 1e-200)[:, None, None] * np.eye(X.shape[1])
        T = X[live] - np.linalg.solve(A, H[live] @ g[live, :, None])[:, :, 0]
        _, gT, HT = fgh(T)
        ok = (gT**2).sum(1) < (g[live] ** 2).sum(1)
        mu[live] = np.maximum(mu[live] * np.where(ok, 0.2, 5), 1e-16)
        X[live[ok]], g[live[ok]], H[live[ok]] = T[ok], gT[ok], HT[ok]
    return X, abs(g).max(1) <= tol


def follow(fgh, X, k, cap, iters):
    """Capped Newton, uphill along the lowest k modes, downhill along others (k < 0: plain)."""
    X, live, modes = X.copy(), np.arange(len(X)), np.arange(X.shape[1])
    for _ in range(iters):
        _, g, H = fgh(X[live])
        w, V = np.linalg.eigh(H)
        up = np.where(k[live, None] < 0, w < 0, modes < k[live, None])
        c = (g[:, None, :] @ V)[:, 0] * np.where(up, -1, 1) / np.maximum(abs(w), 1e-8)
        n = np.linalg.norm(c, axis=1)
        X[live] -= (V @ c[:, :, None])[:, :, 0] * np.minimum(1, cap[live] / (n + 1e-300))[:, None]
        live = live[n > 1e-5]
    return X


class Store:
    """Distinct stationary points up to the group, with the number of hits of each."""

    def __init__(self, P, H, tol):
        self.H, self.tol, self.perms = H, tol, list(itertools.permutations(range(H)))
        self.X, self.E, self.hits = np.empty((0, P)), np.empty(0), np.empty((0, 2), int)

    def match(self, a, b):
        """Number of group elements that bring a to b."""
        if abs(a - b)[-1 if self.H else slice(2)].max() > self.tol:
            return 0
        A, B = a[: 4 * self.H].reshape(4, -1)[:, :, None], b[: 4 * self.H].reshape(4, -1)[:, None, :]
        n = sum((abs(A - s * B).max(0) < self.tol).astype(int) for s in (1, -1))
        return sum(int(n[np.arange(self.H), p].prod()) for p in self.perms)

    def add(self, X, E, blind):
        """Merge converged points; returns the number of new ones."""
        size = len(self.E)
        _, first, inv = np.unique(np.round(X, 6), axis=0, return_index=True, return_inverse=True)
        counts = np.stack([np.bincount(inv.ravel(), m, len(first)) for m in (None, blind)], 1).astype(int)
        for i, c in zip(first, counts, strict=False):
            near = np.flatnonzero(abs(self.E - E[i]) < 1e-9 * (1 + abs(E[i])))
            j = next((j for j in near if self.match(X[i], self.X[j])), len(self.E))
            if j == len(self.E):
                self.X, self.E = np.vstack([self.X, X[i]]), np.append(self.E, E[i])
                self.hits = np.vstack([self.hits, [0, 0]])
            self.hits[j] += c
        return len(self.E) - size


def starts(rng, store, fgh, n):
    """Points to polish for a network, and which of them come from blind starts."""
    H, P = store.H, store.X.shape[1]
    scale = np.exp(rng.uniform(-2.3, 2.1, (n, 1)) + rng.normal(0, 0.5, (n, 3)))  # of layers
    X = rng.normal(size=(n, P)) * scale[:, [0] * (3 * H) + [1] * H + [2]]
    blind = np.arange(n) >= (n // 2 if len(store.E) else 0)
    for i in np.flatnonzero(~blind):
        a, b = store.X[rng.integers(len(store.E), size=2)]
        b = a if rng.random() < 0.3 else b  # an image of itself
        U = b[:-1].reshape(4, H)[:, rng.permutation(H)] * rng.choice([-1, 1], H)
        t = rng.choice([0.0, 0.5, rng.uniform(-0.2, 1.2)])
        noise = 10 ** rng.uniform(-3, 0.3) * rng.normal(size=P)
        X[i] = (1 - t) * a + t * np.append(U, b[-1]) + noise * (t == 0 or rng.random() < 0.7)
    for i in np.flatnonzero(rng.random(n) < 0.3):  # units that are zero, equal or opposite
        U = X[i, :-1].reshape(4, H)
        for h in np.flatnonzero(rng.random(H) < 0.5):
            U[:, h] = rng.choice([-1, 0, 1]) * U[:, rng.integers(H)]
    i = np.flatnonzero(rng.random(n) < 2 / 3)  # the rest goes to lm as it is
    k = rng.choice([-1, 0, 1, 1, 1, rng.integers(P + 1)], len(i))
    X[i] = follow(fgh, X[i], k, 10 ** rng.uniform(-1.3, 0.3, len(i)), 80)
    return X, blind


def save(store, fgh, name, path, **out):
    """Classify the points, and write one problem into the JSON and .npz files."""
    npz = path.with_suffix(".npz")
    arrays = dict(np.load(npz)) if npz.exists() else {}
    w = np.linalg.eigvalsh(fgh(store.X)[2])
    index, degenerate = (w < 0).sum(1), abs(w).min(1) <= 1e-10
    size = 2**store.H * len(store.perms) // np.array([store.match(a, a) for a in store.X])
    out |= {
        "by_index": np.bincount(index).tolist(),
        "degenerate": int(degenerate.sum()),
        "euler": int((size * (-1) ** index).sum()),
    }  # over all images; 1 for a complete network
    for key, k in (("minima", 0), ("ts", 1)):
        i = sorted(np.flatnonzero((index == k) & ~degenerate), key=lambda j: store.E[j])
        hits, blind = store.hits[i].min(0, initial=10**9).tolist()
        out[key] = {
            "count": len(i),
            "rarest_hits": hits,
            "rarest_blind_hits": blind,
            "smallest_abs_eigenvalue": float(abs(w[i]).min(initial=1e9)),
            "energies": [float(f"{e:.12g}") for e in store.E[i]],
        }
        arrays[f"{name}/{key}"] = store.X[i]
    np.savez_compressed(npz, **arrays)
    path.write_text(json.dumps((json.loads(path.read_text()) if path.exists() else {}) | {name: out}, indent=1))
    return out


def search(name, args):
    fgh, H, box = problem(name)
    rng, t0, n, new, total = np.random.default_rng(0), time.time(), 0, [], args.starts
    if box is None:
        store, batch, tol = Store(4 * H + 1, H, 1e-5), 1000, 1e-12
    else:
        store, batch, tol, m = Store(2, 0, 1e-6), 20_000, 1e-10, int(np.sqrt(total))
        ticks, total = [lo + (hi - lo) * (np.arange(m) + 0.5) / m for lo, hi in box], m * m
        grid = np.stack(np.meshgrid(*ticks), -1).reshape(-1, 2)
    check(fgh, rng.uniform(*((-2, 2) if box is None else box.T), (50, store.X.shape[1])))
    while n < total and time.time() - t0 < args.seconds:
        size = min(batch, total - n)
        X, blind = starts(rng, store, fgh, size) if box is None else (grid[n : n + size], np.ones(size, bool))
        n += len(X)
        X, ok = lm(fgh, X, 10 ** rng.uniform(-8, 0, len(X)), 100, tol)
        if box is not None:
            ok &= ((box[:, 0] < X) & (box[:, 1] > X)).all(1)
            # not stationary points: Ackley's cusp at the origin; Schwefel's infinite curvature on the axes
            ok &= {"ackley": abs(X).max(1) > 1e-6, "schwefel": abs(X).min(1) > 1e-3}.get(name, True)
        new.append(store.add(X[ok], fgh(X[ok])[0], blind[ok]))
        if len(new) % 20 == 0 or n >= total or time.time() - t0 >= args.seconds:
            out = save(store, fgh, name, args.out, starts=n, seconds=round(time.time() - t0, 1))
            print(
                name,
                n,
                "starts,",
                sum(new[-20:]),
                "new; by index",
                out["by_index"],
                "Euler",
                out["euler"],
                "rarest",
                [out[k]["rarest_hits"] for k in ("minima", "ts")],
                flush=True,
            )


def main():
    ap = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    ap.add_argument("problems", nargs="+", metavar="PROBLEM")
    ap.add_argument("--starts", type=int, default=100_000, help="at most this many (2-D: a square grid)")
    ap.add_argument("--seconds", type=float, default=np.inf, help="at most this long for each")
    ap.add_argument("--out", type=Path, default=Path("oracle.json"))
    args = arguments(ap, "camel xor1 --starts 1200 --out {folder}/oracle.json")
    np.seterr(over="ignore", invalid="ignore")
    for name in args.problems:
        search(name, args)


if __name__ == "__main__":
    main()
