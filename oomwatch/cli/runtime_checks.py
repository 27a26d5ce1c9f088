"""What `oomwatch doctor` finds of container runtimes: who could tell containers' names."""

from __future__ import annotations

from oomwatch.cli.checks import Check, Host, State, why_silent


def check_runtimes(host: Host) -> Check:
    """Which runtimes answer at their usual sockets? None is needed: a path tells an id as well."""
    from oomwatch.sources.runtimes import USUAL_SOCKETS

    answering: list[str] = []
    silent: list[str] = []
    for usual in USUAL_SOCKETS:
        socket = host.path(str(usual.socket))
        try:
            socket.stat()
        except (FileNotFoundError, NotADirectoryError):
            continue
        except OSError:
            pass  # it may be there: below it is said what is in the way
        silence = why_silent(socket)
        if silence is None:
            answering.append(f"{usual.kind} at {usual.socket}")
        else:
            silent.append(f"{usual.kind} at {usual.socket} ({silence})")
    if silent:
        return Check(
            "runtimes",
            State.DEGRADED,
            f"does not answer: {', '.join(silent)}; its containers have ids and no names",
            "Start it, or run as a user who may write to its socket (root).",
        )
    if not answering:
        found = "no runtime's socket is there: containers are known by their cgroups' paths alone"
        return Check("runtimes", State.OK, found)
    return Check("runtimes", State.OK, ", ".join(answering))
