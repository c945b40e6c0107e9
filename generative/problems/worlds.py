"""The worlds as problems: images of digits, beans in a box, and a room on video."""

from dataclasses import dataclass

from generative.problems.problem import Problem
from generative.problems.two_headed import TwoHeaded
from generative.worlds import digits, jevons, room


@dataclass(frozen=True)
class Digits(TwoHeaded):
    """Is this a 3? Images of 3, 5 and 8, of which the human sees the right half only."""

    def build(self) -> Problem:
        """Build the problem."""
        description = "a two-headed network on images of 3, 5 and 8"
        return self.build_from("digits", description, digits.cases(), digits.pictures)


@dataclass(frozen=True)
class Jevons(TwoHeaded):
    """Are there more than k beans? The human is W. S. Jevons, in 1871."""

    num_small: int = 60
    num_held_out: int = 30

    def build(self) -> Problem:
        """Build the problem."""
        description = "a two-headed network on bean counts with real human errors"
        return self.build_from("jevons", description, jevons.cases(self.seed))


@dataclass(frozen=True)
class Room(TwoHeaded):
    """Did anyone enter; are there more than k chairs? The human sees the camera only.

    Parameters
    ----------
    hypothetical : bool
        Draw corrected cases from imagined attacks instead of recorded ones.
    num_videos : int
        Videos to simulate and draw all sets from.
    """

    num_small: int = 100
    hypothetical: bool = False
    num_videos: int = 3000

    def build(self) -> Problem:
        """Build the problem."""
        imagined = None
        if self.hypothetical:
            imagined = room.cases(self.num_videos, self.seed + 1, room.HYPOTHETICAL)
        cases = room.cases(self.num_videos, self.seed)
        description = "a two-headed network on a simulated video of a room"
        return self.build_from("room", description, cases, room.pictures, imagined)
