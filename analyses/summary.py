"""What a run says, in a short table."""

from analyses.functionals import bits_saved, is_maximum, scalar_functionals, with_error
from analyses.tables import text_table
from inference import Run


def evidence(run: Run) -> str:
    """Log p(data) in nats and in bits, with its standard error."""
    estimate = run.log_evidence
    if estimate is None:
        return "not estimated"
    value = f"{estimate.value:.3f} +- {estimate.standard_error:.2g} nats"
    local = "local, " if estimate.method.endswith("local") else ""
    return f"{value} ({local}{estimate.bits:.3f} bits)"


def _usable(run: Run) -> str:
    if not run.usable:
        return "nothing of it may be used"
    return f"may be used: {', '.join(run.usable).replace('_', ' ')}"


def summarize(run: Run) -> str:
    """Return a run's estimates, functionals, right answers and checks."""
    rows = [[name, with_error(draws)] for name, draws in scalar_functionals(run.tree).items()]
    if run.bits_saved is not None:
        rows.insert(0, ["bits saved by agreement", bits_saved(run)])
    if run.log_evidence is not None:
        rows.insert(0, ["log evidence", evidence(run)])
    what = "at the maximum" if is_maximum(run) else "posterior mean"
    verdicts = [
        f"{'ok  ' if check.passed else 'FAIL'}  {check.name}: {check.message}"
        for check in run.checks
    ]
    return "\n".join(
        [
            text_table([what, "value"], rows),
            "",
            *verdicts,
            "",
            *(f"note: {note}" for note in run.notes),
            "",
            f"result: {run.result.value}; {_usable(run)}",
        ]
    )
