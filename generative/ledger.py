"""What pairs of heads cost under the two-stage prior: bits spent, bits saved, and who wins.

The account is exact integer arithmetic, so that a world model of 1e12 bits hides nothing. Where its
entries come from counting programs, see :mod:`generative.discrete`.
"""

from dataclasses import dataclass, fields
from itertools import product
from typing import Literal, get_args

from generative.errors import InvalidInput

Function = Literal["intended", "complex", "simple"]
FUNCTIONS: tuple[Function, ...] = get_args(Function)
Verdict = Literal["wanted", "fine", "bad", "does not fit"]


@dataclass(frozen=True)
class Assumptions:
    """What the account of the nine pairs rests on; all costs in bits.

    Attributes
    ----------
    world : int
        N, the whole world model, with its facts about humans.
    intended, complex, simple : int
        To specify a head that answers honestly, like the complex labelling process, or like the
        simple one.
    language : int, optional
        -log2 of the fraction of random humans who use language as the intended head does; None:
        as much as the intended head costs, so that random humans are as good a prior over language
        as the heads' own. Less: humans are the better prior; more: the worse.
    complex_and_simple : int, optional
        To specify these two together; None: as much as the complex one, which contains the other.
    complex_agrees : int
        -log2 of the fraction of random humans for whom the complex and the simple head agree on
        the small set.
    capped : bool
        Whether agreement can be had for the intended head's cost by another route (a second copy
        of it, or one inside the world model), so that no more than that can be saved.
    corrected : bool
        Whether the large set corrects the simple process, so that a simple first head cannot fit.
    """

    world: int = 10**12
    intended: int = 10_000
    complex: int = 2_000
    simple: int = 1_000
    language: int | None = None
    complex_and_simple: int | None = None
    complex_agrees: int = 0
    capped: bool = True
    corrected: bool = True

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            if isinstance(value, int) and not isinstance(value, bool) and value < 0:
                raise InvalidInput(field.name, value, "a number of bits >= 0")

    @property
    def language_bits(self) -> int:
        """`language`, with its default resolved."""
        return self.intended if self.language is None else self.language


# The assumptions of the source's own example.
SOURCE = Assumptions()


@dataclass(frozen=True)
class Pair:
    """One pair of heads in the account.

    Attributes
    ----------
    first, second : {"intended", "complex", "simple"}
        Which function each head is; the first one answers.
    spent, saved, total : int
        Bits for both heads; bits that conditioning on agreement saves; world + spent - saved.
    verdict : {"wanted", "fine", "bad", "does not fit"}
    """

    first: Function
    second: Function
    spent: int
    saved: int
    total: int
    verdict: Verdict


def heads_cost(assumptions: Assumptions, first: Function, second: Function) -> int:
    """Bits that specify both heads; equal heads are specified once."""
    one, two = (getattr(assumptions, name) for name in (first, second))
    if first == second:
        return one
    if {first, second} == {"complex", "simple"}:
        given = assumptions.complex_and_simple
        return max(one, two) if given is None else given
    return one + two


def bits_saved(assumptions: Assumptions, first: Function, second: Function) -> int:
    """Bits that agreement of both heads on the small set saves in the second stage."""
    if first == second:
        return 0  # whatever humans say, they agree
    if "intended" not in (first, second):
        return assumptions.complex_agrees
    language = assumptions.language_bits
    return min(language, assumptions.intended) if assumptions.capped else language


def nine_pairs(assumptions: Assumptions = SOURCE) -> list[Pair]:
    """Return the account of all nine pairs, in the order of :data:`FUNCTIONS`."""
    return [_pair(assumptions, first, second) for first, second in product(FUNCTIONS, repeat=2)]


def single_heads(assumptions: Assumptions = SOURCE) -> dict[Function, int]:
    """Total bits of models with one head, or with both tied together: nothing to save."""
    return {name: assumptions.world + getattr(assumptions, name) for name in FUNCTIONS}


def margin(assumptions: Assumptions = SOURCE) -> int:
    """Bits by which the best honest pair is cheaper than the best other that fits the data.

    A single dishonest head counts among the others. Positive: honesty wins, by 2^margin to one.
    """
    pairs = nine_pairs(assumptions)
    honest = [pair.total for pair in pairs if pair.verdict in ("wanted", "fine")]
    others = [pair.total for pair in pairs if pair.verdict == "bad"]
    single = single_heads(assumptions)
    others.append(single["complex"])
    if not assumptions.corrected:
        others.append(single["simple"])
    return min(others) - min(honest)


def _pair(assumptions: Assumptions, first: Function, second: Function) -> Pair:
    spent = heads_cost(assumptions, first, second)
    saved = bits_saved(assumptions, first, second)
    total = assumptions.world + spent - saved
    return Pair(first, second, spent, saved, total, _verdict(assumptions, first, second))


def _verdict(assumptions: Assumptions, first: Function, second: Function) -> Verdict:
    if first == "intended":
        return "wanted" if second == "simple" else "fine"
    if first == "simple" and assumptions.corrected:
        return "does not fit"
    return "bad"
