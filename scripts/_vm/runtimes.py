"""Container runtimes for the VM: this host's own release's packages, unpacked, never installed.

Installing Docker on a person's machine starts a daemon and changes the firewall. Here the
packages that the host lacks are unpacked into a folder of the cache, which the VM lays over the
host's files: dockerd and the rest are then at their usual paths, in the VM alone.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import tempfile
from pathlib import Path

from scripts._vm.cache import CannotHave, cache_dir, lacking, locked, run, say

_PACKAGES = (
    *("docker.io", "containerd", "runc", "crun", "runsc"),
    *("podman", "conmon", "iptables"),
    *("systemd", "dbus", "earlyoom", "nohang", "busybox-static"),
)
# Where a release has merged /bin into /usr/bin, its packages may still hold a /bin, which laid
# over the host's would hide the link to everything else.
_MERGED = ("bin", "sbin", "lib", "lib64")


def get(*, update: bool = False) -> Path:
    """The folder to lay over the host's root: from the cache, else downloaded.

    Made anew when packages were installed on or removed from the host, since it holds only
    what the host lacks. Raises CannotHave.
    """
    if missing := lacking("apt-get", "dpkg", "dpkg-query"):
        raise CannotHave(
            f"no {missing[0]} to get container runtimes with: they come as packages of a Debian "
            "or Ubuntu host's own release. Run this on such a machine or in such a container."
        )
    installed = run("dpkg-query", "-W", "-f", "${binary:Package} ${db:Status-Status}\n")
    recipe = "\n".join((*_PACKAGES, Path("/etc/os-release").read_text(), installed))
    home = cache_dir() / f"runtimes-{hashlib.sha256(recipe.encode()).hexdigest()[:12]}"
    if home.is_dir() and not update:
        return home
    with locked(cache_dir()):
        if update or not home.is_dir():
            _download(home)
    return home


def _download(home: Path) -> None:
    say(f"downloading container runtimes, about 100 MB (once): {', '.join(_PACKAGES)}")
    with tempfile.TemporaryDirectory(dir=cache_dir(), prefix=".unpack-") as name:
        folder = Path(name)
        tree = folder / "tree"
        tree.mkdir()
        for package in _fetch(folder / "apt"):
            run("dpkg", "--extract", str(package), str(tree))
        for merged in _MERGED:
            if (tree / merged).is_dir() and Path("/", merged).is_symlink():
                (tree / "usr" / merged).mkdir(parents=True, exist_ok=True)
                run("cp", "--archive", "--link", f"{tree / merged}/.", str(tree / "usr" / merged))
                shutil.rmtree(tree / merged)
        for unread in ("usr/share/doc", "usr/share/man", "usr/share/locale"):
            shutil.rmtree(tree / unread, ignore_errors=True)
        tree.chmod(0o755)
        for old in cache_dir().glob("runtimes-*"):
            shutil.rmtree(old)
        tree.rename(home)


def _fetch(home: Path) -> list[Path]:
    """Download what the host lacks of the packages and all that they depend on.

    apt decides by the host's own sources and by what is installed, with lists and a cache of
    our own, and verifies what it downloads.
    """
    lists, archives = home / "lists" / "partial", home / "archives" / "partial"
    lists.mkdir(parents=True)
    archives.mkdir(parents=True)
    options = {
        "Dir::State::Lists": lists.parent,
        "Dir::Cache": home,
        "Acquire::Languages": "none",
        # Nothing of the host's is changed, so its lock is not needed.
        "Debug::NoLocking": "true",
        **({"APT::Sandbox::User": "root"} if os.geteuid() == 0 else {}),
    }
    apt = [
        "apt-get",
        *(word for key, value in options.items() for word in ("-o", f"{key}={value}")),
    ]
    run(*apt, "--quiet", "update")
    words = ("--download-only", "--yes", "--no-install-recommends", "--no-upgrade")
    run(*apt, "--quiet", "install", *words, *_PACKAGES)
    return sorted((home / "archives").glob("*.deb"))
