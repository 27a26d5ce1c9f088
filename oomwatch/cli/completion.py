"""`oomwatch completion`: the script that teaches a shell to complete oomwatch's words."""

from __future__ import annotations

import click

from oomwatch.cli.output import put


@click.command(
    short_help="Print the script that completes commands in a shell.",
    epilog="""\b
Examples:
  oomwatch completion bash > /etc/bash_completion.d/oomwatch
  oomwatch completion zsh > "${fpath[1]}/_oomwatch"
  oomwatch completion fish > ~/.config/fish/completions/oomwatch.fish""",
)
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
def command(shell: str) -> None:
    """Print the script that completes oomwatch's commands and options in SHELL."""
    from click.shell_completion import BashComplete, FishComplete, ShellComplete, ZshComplete

    from oomwatch.cli.main import cli

    class Bash(BashComplete):
        """Bash, without starting one to ask its version: the script is made elsewhere, too."""

        @staticmethod
        def _check_version() -> None:
            return None

    classes: dict[str, type[ShellComplete]] = {
        "bash": Bash,
        "zsh": ZshComplete,
        "fish": FishComplete,
    }
    put(classes[shell](cli, {}, "oomwatch", "_OOMWATCH_COMPLETE").source())
