"""Normal numbers for long vectors: those of `jax.random.normal`, without its passes over memory.

On CPUs JAX rolls the rounds of its generator into a loop, each turn of which reads and writes all
numbers; for 10^6 of them that costs more than the gradient of a network. Written out, the rounds
fuse with what uses them. The generator is Threefry-2x32 with 20 rounds (J. K. Salmon et al.,
"Parallel random numbers: as easy as 1, 2, 3", SC11 (2011), doi:10.1145/2063384.2063405).
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, UInt32

_ROTATIONS = ((13, 15, 26, 6), (17, 29, 16, 24))
_PARITY, _NUM_GROUPS = 0x1BD11BDA, 5
_LONGEST_COUNT = 2**32


def standard_normal(key: jax.Array, size: int, dtype: jnp.dtype) -> Float[Array, " size"]:
    """Draw from N(0, 1): the numbers of `jax.random.normal(key, (size,), dtype)`, sooner.

    Parameters
    ----------
    key : PRNG key
    size : int
    dtype : dtype
    """
    is_threefry = jax.random.key_impl(key) == "threefry2x32"
    if dtype != jnp.float32 or not is_threefry or size >= _LONGEST_COUNT:
        return jax.random.normal(key, (size,), dtype)
    bits = _threefry(jax.random.key_data(key), jax.lax.iota(jnp.uint32, size))
    bits = jax.lax.optimization_barrier(bits)  # two passes: one is compiled to slower code
    one = jnp.float32(1).view(jnp.uint32)
    unit = jax.lax.bitcast_convert_type((bits >> 9) | one, jnp.float32) - 1
    lowest = jnp.nextafter(jnp.float32(-1), jnp.float32(0))
    uniform = jnp.maximum(lowest, unit * (1 - lowest) + lowest)
    return jax.lax.optimization_barrier(jnp.float32(2**0.5) * jax.lax.erf_inv(uniform))


def _threefry(key: UInt32[Array, "2"], count: UInt32[Array, " n"]) -> UInt32[Array, " n"]:
    keys = (key[0], key[1], key[0] ^ key[1] ^ jnp.uint32(_PARITY))
    first, second = keys[0] + jnp.zeros_like(count), keys[1] + count
    for group in range(_NUM_GROUPS):
        for rotation in _ROTATIONS[group % 2]:
            first = first + second
            second = first ^ ((second << rotation) | (second >> (32 - rotation)))
        first = first + keys[(group + 1) % 3]
        second = second + keys[(group + 2) % 3] + jnp.uint32(group + 1)
    return first ^ second
