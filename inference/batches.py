"""How many points of a map are in flight at a time."""

# Numbers held by the particles in flight, at most.
MAX_NUMBERS = 4_000_000


def in_flight(number: int, numbers_each: int) -> int:
    """Largest divisor of `number` that memory allows: no batch is left over to be compiled apart.

    Parameters
    ----------
    number : int
        Of points.
    numbers_each : int
        Numbers that each of them holds.
    """
    limit = max(MAX_NUMBERS // numbers_each, 1)
    return max(i for i in range(1, number + 1) if number % i == 0 and i <= limit)
