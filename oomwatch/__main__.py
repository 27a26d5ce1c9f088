"""Where the command begins, as the script `oomwatch` and as `python -m oomwatch`."""

from __future__ import annotations

import sys


def main() -> None:
    """Load the command line and run it; Ctrl-C ends the process by the signal, as it ends others.

    Python would raise a KeyboardInterrupt, out of whichever of the hundred modules is being
    imported, or lose it in there. A command that has something to do first sees to it itself.
    """
    try:
        import signal

        if signal.getsignal(signal.SIGINT) is signal.default_int_handler:  # it may be ignored
            signal.signal(signal.SIGINT, signal.SIG_DFL)
    except KeyboardInterrupt:
        sys.exit(130)
    from oomwatch.cli.main import main as command_line

    command_line()


if __name__ == "__main__":
    main()
