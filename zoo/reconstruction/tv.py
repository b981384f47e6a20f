"""Total variation with a certificate: how far above the best any image could do it is.

    minimise  P(x) = f(A x) + lam TV(x)   over images x in the box,
    TV(x) = sum over pixels of |(x[r+1, c] - x[r, c], x[r, c+1] - x[r, c])|,

differences past the edge being zero. The box, [0, u] for attenuation, [-u, u] for other real images
and |x| <= u for complex ones, makes every pair of dual variables a bound from below,

    D(p, q) = -f*(p) - u sum of max(0, -g)  (box [0, u]; else |g|),   g = A* p + grad* q,

for |q| <= lam, so that P - D bounds what is left to gain. Chambolle and Pock's primal-dual steps
(J. Math. Imaging Vis. 40, 2011), over-relaxed (Condat, J. Optim. Theory Appl. 158, 2013), with a
diagonal preconditioner (Pock and Chambolle, ICCV 2011) where A has no negative entry. A x and g are
kept beside x, p and q, and so an iteration is one A and one A*.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import tensorflow as tf

from zoo.physics.operators import Operator
from zoo.reconstruction import weight
from zoo.reconstruction.fidelity import Fidelity
from zoo.reconstruction.record import Result
from zoo.reconstruction.weight import Solution

_BLOCK = 20  # iterations between two looks at the gap
_RELAXATION = 1.8  # of at most 2: a third fewer iterations than 1


class State(NamedTuple):
    """An iterate: x, p, q, A x and g."""

    x: tf.Tensor
    p: tf.Tensor
    q: tf.Tensor
    ax: tf.Tensor
    g: tf.Tensor


class Problem(tf.experimental.ExtensionType):
    """What the iterations need: f, u, and the steps of p, x and q."""

    fidelity: Fidelity
    upper: tf.Tensor
    rays: tf.Tensor
    pixels: tf.Tensor
    edges: tf.Tensor


def gradient(x: tf.Tensor) -> tf.Tensor:
    """Forward differences of `[H, W]`: `[2, H, W]`, zero past the edge."""
    down = tf.pad(x[1:] - x[:-1], [[0, 1], [0, 0]])
    right = tf.pad(x[:, 1:] - x[:, :-1], [[0, 0], [0, 1]])
    return tf.stack([down, right])


def gradient_adjoint(q: tf.Tensor) -> tf.Tensor:
    """The transpose of `gradient`."""
    down = tf.pad(q[0, :-1], [[1, 0], [0, 0]]) - tf.pad(q[0, :-1], [[0, 1], [0, 0]])
    right = tf.pad(q[1, :, :-1], [[0, 0], [1, 0]]) - tf.pad(q[1, :, :-1], [[0, 0], [0, 1]])
    return down + right


def total_variation(x: tf.Tensor) -> tf.Tensor:
    """TV of `[H, W]`, in float64."""
    return tf.reduce_sum(tf.cast(_lengths(gradient(x)), tf.float64))


class TotalVariation:
    """Solves for one fidelity and box, with any weights lam one after the other.

    Args:
        operator: A, of images `[H, W]`.
        fidelity: f.
        upper: u, in the image's unit.
    """

    stride = 2.0

    def __init__(self, operator: Operator, fidelity: Fidelity, upper: float):
        if len(operator.domain_shape) != 2:
            raise ValueError(
                f"operator: expected one of images (H, W). Received: {operator.domain_shape}"
            )
        self.operator, self.fidelity = operator, fidelity
        self._real = operator.dtype.real_dtype
        root = tf.sqrt(fidelity.weights)
        if operator.nonnegative:
            # Pock and Chambolle: one over the sums of rows and of columns.
            rows = operator.forward(tf.ones(operator.domain_shape, self._real))
            columns = operator.adjoint(root)
            share = tf.reduce_mean(columns) / 4
            rays = tf.math.divide_no_nan(root, rows)
            rays = tf.where(rays > 0, rays, tf.reduce_max(root) + 1e-30)
            pixels = 1 / (columns + 4 * share)
        else:
            # The power method comes from below.
            size = 1.02 * operator.norm() * tf.reduce_max(root)
            share = size / np.sqrt(8.0)
            rays = tf.fill(operator.range_shape, tf.reduce_max(root) ** 2 / size)
            pixels = 1 / (size + np.sqrt(8.0) * share)
        # The step of q; the differences are counted `share` times, as large as A's columns.
        edges = share / (2 if operator.nonnegative else np.sqrt(8.0))
        self.problem = Problem(fidelity, tf.cast(upper, self._real), rays, pixels, edges)
        # White noise, weighted as the measurement: how large it and what A* makes of it are.
        noise = np.random.default_rng(0).standard_normal(operator.range_shape)
        noise = tf.cast(root, operator.dtype) * tf.cast(noise, operator.dtype)
        back = operator.adjoint(noise)
        self.level = tf.sqrt(tf.reduce_mean(tf.abs(back) ** 2))
        image = self._box(operator.pseudo_inverse(fidelity.y))
        sizes = [tf.abs(noise) / tf.sqrt(rays), tf.abs(image) / tf.sqrt(pixels)]
        self._sizes = [tf.maximum(tf.norm(size), 1e-30) for size in sizes]
        # Of graphs alone: a solve is hundreds of iterations.
        self._run, self._judge = operator.graph(_iterations), operator.graph(_bounds)

    @property
    def guess(self) -> float:
        """A weight to begin at: half of what noise is after A*, where TV begins to hold it down."""
        return 0.5 * float(self.level)

    def start(self, x: tf.Tensor | None = None) -> State:
        """An iterate from an image, or from nothing."""
        kind = self.operator.dtype
        x = tf.zeros(self.operator.domain_shape, kind) if x is None else self._box(x)
        p = tf.zeros(self.operator.range_shape, kind)
        q = tf.zeros((2, *self.operator.domain_shape), kind)
        return State(x, p, q, self.operator.forward(x), tf.zeros_like(x))

    def solve(
        self,
        lam: float,
        start: State,
        tolerance: float,
        iterations: int,
        progress: Callable[[int, float], None] | None = None,
    ) -> Solution:
        """Iterates until the gap is at most `tolerance`, or so many times.

        Args:
            lam: weight of TV.
            start: where to begin: `start()`, or the end of another solve.
            tolerance: of (P - D) / P.
            iterations: at most.
            progress: called with the iterations done and the gap.
        """
        bound, balance = tf.cast(lam, self._real), self._balance(tf.cast(lam, self._real))
        state = start._replace(q=_project(start.q, bound))
        state = state._replace(g=self._slope(state))
        best: Solution | None = None
        done = 0
        while done < iterations and (best is None or best.gap > tolerance):
            state, found = self._run(self.problem, state, bound, balance)
            done += _BLOCK
            gap, objective = self._gap(found, bound)
            if best is None or gap < best.gap:
                best = Solution(found, objective, gap, done)
            if progress:
                progress(done, best.gap)
        if best is None:
            raise ValueError(f"iterations: expected a positive number. Received: {iterations}")
        return best._replace(iterations=done)

    def _slope(self, state: State) -> tf.Tensor:
        return self.operator.adjoint(state.p) + gradient_adjoint(state.q)

    def _box(self, x: tf.Tensor) -> tf.Tensor:
        return _boxed(x, self.problem.upper, self.operator.nonnegative)

    def _gap(self, state: State, lam) -> tuple[float, float]:
        """The relative gap and the objective."""
        primal, dual = (float(value) for value in self._judge(self.problem, state, lam))
        return (primal - dual) / max(abs(primal), 1e-30), primal

    def _balance(self, lam: tf.Tensor) -> tf.Tensor:
        """Dual over primal steps, as the sizes of the variables are thought to be.

        A dual variable is held as white noise that A* makes as large as lam; ten times as much took
        the fewest iterations in CT and MRI, for weights a tenth to twice the best.
        """
        share = tf.clip_by_value(lam / self.level, 0.01, 10)
        return 10 * share * self._sizes[0] / self._sizes[1]


def _iterations(
    operator: Operator, problem: Problem, state: State, lam, balance
) -> tuple[State, State]:
    """So many steps: the iterate, and that before its over-relaxation, which is feasible.

    `balance` times the dual steps, and one over it times the primal ones.
    """
    across = tf.cast(problem.pixels / balance, operator.dtype)
    rays = problem.rays * balance
    wide = tf.cast(rays, operator.dtype)
    edges = tf.cast(problem.edges * balance, operator.dtype)

    def step(k, state, _):
        x = _boxed(state.x - across * state.g, problem.upper, operator.nonnegative)
        ax = operator.forward(x)
        p = problem.fidelity.step(state.p + wide * (2 * ax - state.ax), rays)
        q = _project(state.q + edges * gradient(2 * x - state.x), lam)
        found = State(x, p, q, ax, operator.adjoint(p) + gradient_adjoint(q))
        pairs = zip(state, found, strict=True)
        return k + 1, State(*(a + _RELAXATION * (b - a) for a, b in pairs)), found

    _, state, found = tf.while_loop(lambda k, *_: k < _BLOCK, step, (0, state, state))
    return state, found


def _bounds(operator: Operator, problem: Problem, state: State, lam) -> tuple[tf.Tensor, tf.Tensor]:
    """P and D of an iterate, float64."""
    tv = total_variation(state.x)
    primal = problem.fidelity.value(state.ax) + tf.cast(lam, tf.float64) * tv
    lost = tf.nn.relu(-state.g) if operator.nonnegative else tf.abs(state.g)
    box = tf.cast(problem.upper, tf.float64) * tf.reduce_sum(tf.cast(lost, tf.float64))
    return primal, -problem.fidelity.conjugate(state.p) - box


def _boxed(x: tf.Tensor, upper: tf.Tensor, nonnegative: bool) -> tf.Tensor:
    """The nearest image in the box."""
    if x.dtype.is_complex:
        return x * tf.cast(upper / tf.maximum(tf.abs(x), upper), x.dtype)
    return tf.clip_by_value(x, 0 * upper if nonnegative else -upper, upper)


def _lengths(q: tf.Tensor) -> tf.Tensor:
    """The length of the vector at each pixel, `[2, H, W]` to `[H, W]`."""
    return tf.sqrt(tf.reduce_sum(tf.abs(q) ** 2, 0))


def _project(q: tf.Tensor, lam) -> tf.Tensor:
    """Vectors no longer than lam."""
    shrunk = lam / tf.maximum(_lengths(q), tf.maximum(lam, 1e-30))
    return q * tf.cast(shrunk, q.dtype)


def reconstruct(
    measured,
    operator: Operator,
    lam: float | str | None = None,
    fidelity: str = "l2",
    sigma: float | np.ndarray | None = None,
    photons: float | None = None,
    upper: float | None = None,
    tolerance: float = 1e-4,
    iterations: int = 3000,
    seed: int = 0,
    progress: Callable[[int, float], None] | None = None,
) -> Result:
    """The image of least f(A x) + lam TV(x), with its certificate.

    Args:
        measured: y, of the operator's range.
        operator: A.
        lam: a number, in the unit of f per unit of the image; or how it is found without knowing
            the image: "holdout" (None), "sure" or "discrepancy" (`zoo.reconstruction.weight`).
        fidelity: "l2", "poisson" or "l1" (`zoo.reconstruction.fidelity`).
        sigma: standard deviation of the noise, one for all or of y's shape; of complex values
            that of the real part.
        photons: in its place, photons before the object: line integrals then have the variance
            1 / (photons exp(-y)).
        upper: u, the most that the image may reach; None: twice what a quick image does.
        tolerance: the gap to stop at, as a share of the objective.
        iterations: at most, in each solve.
        seed: of the draws of "sure" and "holdout", and of the first guess of lam.
        progress: called with the iterations done and the gap.

    Raises:
        ValueError: for bad arguments, and a rule that needs noise that is not known.
    """
    y = operator.checked("measured", measured)
    # What is seen at all, and how well.
    weights = weight.of_noise(y, operator, sigma, photons)
    image = operator.pseudo_inverse(y)
    if upper is None:
        upper = 2.0 * float(np.quantile(np.abs(image), 0.999)) or 1.0  # any, of a slice of air
    if not upper > 0:
        raise ValueError(f"upper: expected a positive number. Received: {upper}")

    def problem(y: tf.Tensor, weights: tf.Tensor) -> TotalVariation:
        return TotalVariation(operator, Fidelity(fidelity, y, weights, photons), upper)

    # The weight of TV, and the image with it.
    known = sigma is not None or photons is not None
    search = weight.Search(
        "tv", problem, operator, y, weights, known, tolerance, iterations, seed, progress
    )
    found, record = search.solved(lam)
    record.iterations, record.objective, record.gap = found.iterations, found.objective, found.gap
    record.converged = found.gap <= tolerance
    result = found.state.x.numpy()
    if np.abs(result).max() > 0.999 * upper:
        record.notes.append(f"the image reaches the bound of {upper:g}; try a higher `upper`")
    if not record.converged:
        record.notes.append(
            f"stopped after {found.iterations} iterations, before the gap asked for"
        )
    return result, record
