"""Which functions do the heads become, and what is the evidence, under other assumptions?

All set-ups explain the same labels, so that evidences compare, but for `no corrections`, whose data
are the small set alone.
"""

from collections.abc import Sequence
from typing import Any, ClassVar, Literal

import xarray as xr

from analyses.cells import Cell
from analyses.worlds import SAMPLER, WorldAnalysis, difference, trend, verdict
from generative.setups import Setup
from inference import HMC, MaximumAPosteriori

_TWO, _ONE, _SINGLE = "two stages", "one stage (tied heads)", "single instrumental head"
_SPLIT = "two stages, split"

# A set-up's name to the problem's options and the set-up of the model.
_SETUPS: dict[str, tuple[dict[str, Any], Setup]] = {
    _TWO: ({}, "two-stages"),
    _ONE: ({}, "one-stage"),
    "two stages, Z omitted": ({}, "z-omitted"),
    _SINGLE: ({"first_head": "instrumental"}, "one-stage"),
    "labels for the instrumental head": ({"first_head": "instrumental"}, "two-stages"),
    "two stages, L1": ({"stage": "laplace"}, "two-stages"),
    _SPLIT: ({}, "two-stages"),
    "no corrections": ({"corrected_fraction": 0.0}, "two-stages"),
}
_MAXIMA: dict[str, dict[str, Any]] = {
    "maximum": {},
    "maximum, intended head held in C": {"stop_gradient": "intended"},
}


class HeadPairs(WorldAnalysis):
    """Posterior probabilities of the nine pairs, and evidence, by set-up.

    Tied heads agree always, so that their evidence is that of one stage.

    Parameters
    ----------
    hmc : HMC
        With a log evidence.
    maximum : MaximumAPosteriori
        For the joint maximum, with and without stop-gradient.
    """

    name: ClassVar[str] = "head_pairs"
    bits: ClassVar[Literal["log_evidence", "bits_saved"]] = "log_evidence"
    varied: ClassVar[tuple[str, ...]] = ("first_head", "stage", "setting", "corrected_fraction")
    hmc: HMC = SAMPLER
    maximum: MaximumAPosteriori = MaximumAPosteriori(
        num_starts=4, num_warmup=800, num_steps=1000, num_ledger_points=0
    )

    def cells(self) -> Sequence[Cell]:
        """Return one run per set-up."""
        sampled = [
            self.cell(name, self.setting("split") if name == _SPLIT else options, setup)
            for name, (options, setup) in _SETUPS.items()
        ]
        maxima = [
            self.cell(name, backend=self.maximum.model_copy(update=options))
            for name, options in _MAXIMA.items()
        ]
        return sampled + maxima

    def conclude(self, tree: xr.DataTree) -> str:
        """Return evidences and pairs as tables, and what they say."""
        data = tree.to_dataset()
        evidence = [
            f"Evidence of two stages beside {other}: "
            f"{verdict(*difference(data, 'log_evidence', _TWO, case))}."
            for other, case in (("one", _ONE), ("a single instrumental head", _SINGLE))
        ]
        words = (
            f"P(first head intended): {trend(data, list(_SETUPS))}. In one stage nothing binds the "
            "second head, so that the evidence is that of the head with the labels alone, or of "
            "heads tied to it. The evidence of a maximum is Laplace's, local. Without Z the "
            "integral is no probability of the data; it is less by about the bits saved. Where "
            "there are no corrections the evidence is of other data."
        )
        return "\n\n".join([self.tables(data), " ".join([words, *evidence]), self.doubts(data)])
