"""Linear residuals under a Gaussian second stage: q(theta_2 | theta_1) in closed form.

With C = |A theta - c|_W^2 / 2 and theta_2 ~ N(theta_1, S2), agreement makes theta_2 | theta_1 the
Gaussian N(G theta_1 + g, Sq), and Z(theta_1) a Gaussian density of the residual. All algebra is
m x m; the formulas use S2 itself, never its inverse, so scales of 0 need no special case.
"""

from abc import abstractmethod

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree
from jax.scipy.linalg import solve_triangular
from jaxtyping import Array, ArrayLike, Float, PyTree

from generative.errors import InvalidInput
from generative.values import as_array, as_jax


class LinearResiduals(eqx.Module):
    """Residuals r(theta) with |r|^2 = (A theta - c)' W (A theta - c).

    Parameters
    ----------
    A : array, shape (m, d)
    c : array, shape (m,)
    W : array, shape (m, m), optional
        Symmetric positive definite weight; the identity by default.

    Raises
    ------
    InvalidInput
        If shapes differ, or W is not symmetric positive definite.

    Examples
    --------
    Two coordinates that are to be equal:

    >>> import numpy as np
    >>> residuals = LinearResiduals(A=np.array([[1.0, -1.0]]), c=np.zeros(1))
    >>> residuals(np.array([3.0, 1.0])).tolist()
    [2.0]
    """

    A: Float[Array, "m d"]
    c: Float[Array, " m"]

    def __init__(self, A: ArrayLike, c: ArrayLike, W: ArrayLike | None = None):
        A, c = as_array("A", A), as_array("c", c)
        if A.ndim != 2:
            raise InvalidInput("A", f"shape {A.shape}", "shape (m, d)")
        if c.shape != A.shape[:1]:
            raise InvalidInput("c", f"shape {c.shape}", f"shape {A.shape[:1]}")
        if W is not None:
            root = _transposed_root(np.asarray(W), len(c))
            A, c = root @ A, root @ c
        self.A, self.c = A, c

    def __call__(self, theta: PyTree) -> Float[Array, " m"]:
        """Residuals of one unbatched theta, shape (m,)."""
        return self.A @ ravel_pytree(theta)[0] - self.c


def _transposed_root(W: np.ndarray, m: int) -> Array:
    if W.shape != (m, m) or not np.allclose(W, W.T):
        found = f"shape {W.shape}" if W.shape != (m, m) else "an asymmetric matrix"
        raise InvalidInput("W", found, f"a symmetric matrix of shape {(m, m)}")
    try:
        return as_jax(np.linalg.cholesky(W).T)
    except np.linalg.LinAlgError:
        raise InvalidInput("W", "a negative or zero eigenvalue", "positive definite") from None


class CentredGaussian(eqx.Module):
    """Abstract: a Gaussian around 0, drawn by colouring standard normals."""

    @property
    @abstractmethod
    def num_normals(self) -> int:
        """Standard normals that a draw takes."""

    @property
    @abstractmethod
    def dtype(self) -> jnp.dtype:
        """Type of its draws."""

    @abstractmethod
    def colour(self, normals: Float[Array, " n"]) -> Float[Array, " d"]:
        """Turn standard normals into a draw."""

    def fluctuation(self, key: jax.Array) -> Float[Array, " d"]:
        """Draw from it."""
        return self.colour(jax.random.normal(key, (self.num_normals,), self.dtype))


class GaussianConditional(CentredGaussian):
    """The law of theta_2 given theta_1 when lambda C = |A theta - c|^2 / 2, however A is held.

    Attributes
    ----------
    c : array, shape (m,)
    variance : array, shape (d,)
        Second-stage variance S2 per coordinate; 0 is allowed.
    inverse_root : array, shape (m, m)
        Inverse of the lower Cholesky factor of I + A S2 A'. Its eigenvalues are at least 1, so
        the explicit inverse is harmless, and it turns every solve in the samplers' inner loops
        into a product.
    whitened_c : array, shape (m,)
        (I + A S2 A')^(-1/2) c.
    """

    c: eqx.AbstractVar[Float[Array, " m"]]
    variance: eqx.AbstractVar[Float[Array, " d"]]
    inverse_root: eqx.AbstractVar[Float[Array, "m m"]]
    whitened_c: eqx.AbstractVar[Float[Array, " m"]]

    @abstractmethod
    def product(self, x: Float[Array, " d"]) -> Float[Array, " m"]:
        """A x."""

    @abstractmethod
    def transpose(self, y: Float[Array, " m"]) -> Float[Array, " d"]:
        """A' y."""

    @abstractmethod
    def whiten(self, x: Float[Array, " d"]) -> Float[Array, " m"]:
        """(I + A S2 A')^(-1/2) A x."""

    @abstractmethod
    def unwhiten(self, y: Float[Array, " m"]) -> Float[Array, " d"]:
        """Transpose of :meth:`whiten`."""

    def potential(self, theta: Float[Array, " d"]) -> Float[Array, ""]:
        """|A theta - c|^2 / 2, nats."""
        return 0.5 * jnp.sum((self.product(theta) - self.c) ** 2)

    def whitened_residual(self, theta_1: Float[Array, " d"]) -> Float[Array, " m"]:
        """(I + A S2 A')^(-1/2) (A theta_1 - c): standard normal under the prior of the residual."""
        return self.whiten(theta_1) - self.whitened_c

    def log_normalizer(self, theta_1: Float[Array, " d"]) -> Float[Array, ""]:
        """Log Z(theta_1), nats."""
        half_log_det = -jnp.sum(jnp.log(jnp.diagonal(self.inverse_root)))
        return -half_log_det - 0.5 * jnp.sum(self.whitened_residual(theta_1) ** 2)

    def score(self, theta_1: Float[Array, " d"]) -> Float[Array, " d"]:
        """Gradient of log Z(theta_1)."""
        return -self.unwhiten(self.whitened_residual(theta_1))

    def mean(self, theta_1: Float[Array, " d"]) -> Float[Array, " d"]:
        """Mean of theta_2 given theta_1, G theta_1 + g."""
        return theta_1 + self.variance * self.score(theta_1)

    def low_rank(self, x: Float[Array, " d"]) -> Float[Array, " d"]:
        """A' (I + A S2 A')^-1 A x: minus the Hessian of log Z, times x."""
        return self.unwhiten(self.whiten(x))

    def gain(self, shift: Float[Array, " d"]) -> Float[Array, " d"]:
        """G shift: how the mean of theta_2 follows a shift of theta_1."""
        return shift - self.variance * self.low_rank(shift)

    def covariance(self, x: Float[Array, " d"]) -> Float[Array, " d"]:
        """Sq x."""
        return self.gain(self.variance * x)

    def precision(self, x: Float[Array, " d"]) -> Float[Array, " d"]:
        """Sq^-1 x on the free coordinates, 0 on the fixed ones (where x must be 0 too)."""
        free = self.variance > 0
        inverse = jnp.where(free, 1 / jnp.where(free, self.variance, 1), 0)
        return inverse * x + jnp.where(free, self.transpose(self.product(x)), 0)

    def sample(self, key: jax.Array, theta_1: Float[Array, " d"]) -> Float[Array, " d"]:
        """Draw theta_2 given theta_1 exactly (Matheron's rule: perturb, then solve).

        Notes
        -----
        A. Doucet, *A note on efficient conditional simulation of Gaussian distributions* (2010).
        """
        return self.mean(theta_1) + self.fluctuation(key)

    @property
    def num_normals(self) -> int:
        """Standard normals that a draw from N(0, Sq) takes: d + m."""
        return self.variance.size + self.c.size

    @property
    def dtype(self) -> jnp.dtype:
        """That of the variances."""
        return self.variance.dtype

    def colour(self, normals: Float[Array, " n"]) -> Float[Array, " d"]:
        """Turn standard normals into a draw from N(0, Sq)."""
        prior, noise = jnp.split(normals, [self.variance.size])
        prior = jnp.sqrt(self.variance) * prior
        return prior + self.variance * self.unwhiten(self.inverse_root @ noise - self.whiten(prior))


class LinearGaussianAgreement(GaussianConditional):
    """The conditional law with A held as a matrix.

    Parameters
    ----------
    A : array, shape (m, d)
        Residuals' matrix, sqrt(lambda) and the weight absorbed.
    c : array, shape (m,)
    variance : array, shape (d,)
        Second-stage variance S2 per coordinate; 0 is allowed.
    """

    A: Float[Array, "m d"]
    c: Float[Array, " m"]
    variance: Float[Array, " d"]
    inverse_root: Float[Array, "m m"]
    whitened_c: Float[Array, " m"]
    whitened_A: Float[Array, "m d"]

    def __init__(self, A: Array, c: Array, variance: ArrayLike):
        self.A, self.c = A, c
        self.variance = jnp.asarray(variance, A.dtype)
        self.inverse_root = inverse_root((A * self.variance) @ A.T)
        self.whitened_c = self.inverse_root @ c
        self.whitened_A = self.inverse_root @ A

    def product(self, x: Float[Array, " d"]) -> Float[Array, " m"]:
        """A x."""
        return self.A @ x

    def transpose(self, y: Float[Array, " m"]) -> Float[Array, " d"]:
        """A' y."""
        return self.A.T @ y

    def whiten(self, x: Float[Array, " d"]) -> Float[Array, " m"]:
        """(I + A S2 A')^(-1/2) A x."""
        return self.whitened_A @ x

    def unwhiten(self, y: Float[Array, " m"]) -> Float[Array, " d"]:
        """Transpose of :meth:`whiten`."""
        return self.whitened_A.T @ y


def inverse_root(gram: Float[Array, "m m"]) -> Float[Array, "m m"]:
    """Inverse of the lower Cholesky factor of I + gram."""
    identity = jnp.eye(len(gram), dtype=gram.dtype)
    return solve_triangular(jnp.linalg.cholesky(identity + gram), identity, lower=True)


@jax.jit
def linear_gaussian_agreement(
    residuals: LinearResiduals, strength: Float[Array, ""], variance: Float[Array, " d"]
) -> LinearGaussianAgreement:
    """Absorb lambda into the residuals and return the closed form, in the variance's dtype."""
    root = jnp.sqrt(strength)
    A, c = (x.astype(variance.dtype) for x in (residuals.A, residuals.c))
    return LinearGaussianAgreement(root * A, root * c, variance)
