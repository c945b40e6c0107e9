"""The command line: problems, run, compare, report, analyse, benchmark."""

import sys
from collections.abc import Sequence

from analyses.cache import forget_programs, keep_programs
from analyses.command_line import Refused, parse


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; return 0 for a usable result, 1 for a failed one, 2 for bad input.

    An analysis that was made returns 0: its conclusion names the runs whose checks failed.
    """
    try:
        parsed = parse(list(sys.argv[1:] if arguments is None else arguments))
        (keep_programs if parsed.cache else forget_programs)()
        # Only now, as it takes seconds: help and mistyped commands must not wait for it.
        from analyses.commands import execute

        return execute(parsed)
    except Refused as error:
        print(f"concord: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("concord: interrupted; what has --out goes on with --resume", file=sys.stderr)
        return 1


if __name__ == "__main__":
    raise SystemExit(main())
