"""Step sizes meet their target rate, bounded or not, alone or as a population."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from inference.moves.step_size import LARGEST_ANGLE, averaged, initial, pooled, update

TRUE, FALSE = jnp.ones((), bool), jnp.zeros((), bool)
TARGET = 0.5


def rate(value, threshold):
    """Acceptance falls with the angle, and is one half at the threshold."""
    return 1 / (1 + (value / threshold) ** 4)


def adapted(key, threshold, num_iterations=400):
    """Adapt to moves that are accepted or not, and have no rate in between."""

    def body(step, x):
        key, is_last = x
        accepted = jax.random.bernoulli(key, rate(step.value, threshold)).astype(float)
        return update(step, accepted, TARGET, TRUE, is_last), step.value

    is_last = jnp.arange(num_iterations) == num_iterations - 1
    keys = jax.random.split(key, num_iterations)
    return jax.lax.scan(body, initial(0.3, jnp.dtype(float)), (keys, is_last))


@pytest.mark.parametrize(("threshold", "excess"), [(0.1, 0.05), (0.6, 0.1), (1.2, 0.15)])
def test_average_meets_the_target_below_the_bound(seed, threshold, excess):
    keys = jax.random.split(jax.random.key(seed), 64)
    step, _ = jax.vmap(partial(adapted, threshold=threshold))(keys)
    found = np.asarray(rate(step.value, threshold))
    # What averages lose to iterates that are cut off at the bound makes steps shorter, not longer.
    assert TARGET - 0.05 < found.mean() < TARGET + excess


def test_iterates_that_are_averaged_before_the_bound_end_too_long(seed):
    """The negative control: the bound comes after the average, as in dual averaging without one."""
    threshold, keys = 1.2, jax.random.split(jax.random.key(seed), 64)

    def unbounded(key):
        def body(carry, x):
            key, count = x
            mean_error, log_average = carry
            log_value = jnp.log(0.3) - jnp.sqrt(count - 1) / 0.05 * mean_error
            value = jnp.exp(jnp.minimum(log_value, jnp.log(LARGEST_ANGLE)))
            accepted = jax.random.bernoulli(key, rate(value, threshold)).astype(float)
            weight = 1 / (count + 10)
            mean_error = (1 - weight) * mean_error + weight * (TARGET - accepted)
            log_value = jnp.log(0.3) - jnp.sqrt(count) / 0.05 * mean_error
            forgetting = count**-0.75
            return (mean_error, (1 - forgetting) * log_average + forgetting * log_value), None

        xs = (jax.random.split(key, 400), jnp.arange(1.0, 401.0))
        log_average = jax.lax.scan(body, (jnp.zeros(()), jnp.zeros(())), xs)[0][1]
        return jnp.exp(jnp.minimum(log_average, jnp.log(LARGEST_ANGLE)))

    found = np.asarray(rate(jax.vmap(unbounded)(keys), threshold))
    assert found.mean() < TARGET - 0.05


def test_it_stays_at_the_bound_where_all_is_accepted(seed):
    step, values = adapted(jax.random.key(seed), 100.0)
    assert float(step.value) == pytest.approx(LARGEST_ANGLE, rel=0.02)
    assert float(values.max()) <= LARGEST_ANGLE * (1 + 1e-12)


def test_a_population_adapts_to_its_mean_rate(seed):
    step = one = initial(0.3, jnp.dtype(float))
    for key in jax.random.split(jax.random.key(seed), 5):
        rates = jax.random.uniform(key, (100,))
        each = jax.vmap(lambda r, step=step: update(step, r, TARGET, TRUE, FALSE))(rates)
        step, one = pooled(step, each), update(one, rates.mean(), TARGET, TRUE, FALSE)
        assert np.allclose(step, one, rtol=1e-10)
    assert np.allclose(averaged(step).value, averaged(one).value)


def test_it_keeps_still_after_warm_up():
    step = initial(0.3, jnp.dtype(float))
    assert np.array_equal(update(step, jnp.zeros(()), TARGET, FALSE, FALSE), step)
