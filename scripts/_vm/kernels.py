"""Kernels to boot: Debian's packages, downloaded and unpacked, never installed.

Installing a kernel package regenerates a machine's boot loader; unpacking one touches
nothing. apt downloads and verifies them, with lists and a cache of our own, so that the
host's own apt state stays as it is.
"""

from __future__ import annotations

import os
import platform
import re
import shutil
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path

from scripts._vm.cache import CannotHave, cache_dir, lacking, locked, run, say, with_sbin

#: Which Debian release ships which series. "newest" is whatever sid has today.
RELEASES = {"5.10": "bullseye", "6.1": "bookworm", "6.12": "trixie", "newest": "sid"}
_CODENAMES = {"bullseye", "bookworm", "trixie", "forky", "sid", "stable", "testing", "unstable"}
# Not -cloud-amd64 (it has no 9p, which the root file system comes over) and not -rt-amd64.
_PACKAGE = re.compile(r"linux-(?P<part>image|binary)-(?P<version>\d[\w.+]*(?:-\d+)?)-amd64")


@dataclass(frozen=True, slots=True)
class Kernel:
    """An unpacked kernel: its release (``uname -r``) and its image."""

    release: str
    image: Path
    #: Where it was unpacked; modprobe's -d.
    tree: Path

    @property
    def modules(self) -> Path:
        """The folder of its modules."""
        return self.tree / "lib" / "modules" / self.release


def cached(series: str) -> Kernel | None:
    """The kernel of this series that was unpacked before, if any."""
    current = _kernels_dir() / series
    if not current.is_symlink():
        return None
    return _kernel_in(current.resolve())


def get(series: str, *, update: bool = False) -> Kernel:
    """The newest kernel of a series ("6.1", "newest"): from the cache, else downloaded.

    ``update`` asks Debian again although one is cached. Raises CannotHave.
    """
    if not update and (kernel := cached(series)):
        return kernel
    if platform.machine() != "x86_64":
        raise CannotHave(f"the VM's kernels are for x86_64; this machine is {platform.machine()}")
    if missing := lacking("apt-get", "apt-cache", "dpkg", "depmod"):
        raise CannotHave(
            f"no kernel {series} in {_kernels_dir()} and no {missing[0]} to get one with. On a "
            "machine with apt and kmod, run `scripts/vm --fetch` and copy that folder here."
        )
    with locked(_kernels_dir()):
        if not update and (kernel := cached(series)):
            return kernel
        return _download(series)


def _kernels_dir() -> Path:
    return cache_dir() / "kernels"


def _download(series: str) -> Kernel:
    release = RELEASES.get(series, RELEASES["newest"])
    say(f"looking for kernel {series} in Debian {release}")
    apt = _Apt(_kernels_dir() / ".apt" / release, release)
    apt.update()
    wanted = "" if series == "newest" else series
    found = [
        match
        for name in apt.package_names()
        if (match := _PACKAGE.fullmatch(name)) and _series_of(match["version"], wanted)
    ]
    if not found:
        raise CannotHave(
            f"Debian {release} has no kernel {series} now. Known are {', '.join(RELEASES)}; "
            f"cached are {', '.join(sorted(list_cached())) or 'none'}.\n{apt.complaints}".rstrip()
        )
    # Since 7.0 "image" is a package of dependencies, "binary" the kernel, "modules" apart.
    best = max(found, key=lambda match: (_numbers(match["version"]), match["part"] == "binary"))
    version = best["version"]
    packages = [best.string]
    if best["part"] == "binary":
        packages.append(f"linux-modules-{version}-amd64")

    home = _kernels_dir() / f"{version}-amd64"
    if not home.is_dir():
        say(f"downloading {' and '.join(packages)} (once)")
        with tempfile.TemporaryDirectory(dir=_kernels_dir(), prefix=".unpack-") as folder:
            tree = Path(folder) / "tree"
            tree.mkdir()
            for package in apt.download(packages, Path(folder)):
                run("dpkg", "--extract", str(package), str(tree))
            if not (tree / "lib").exists():
                (tree / "lib").symlink_to("usr/lib")
            for name in ("usr/share", "usr/lib/linux-image*", "usr/lib/debug"):
                for path in tree.glob(name):
                    shutil.rmtree(path, ignore_errors=True)
            unpacked = _kernel_in(tree)
            if unpacked is None:
                raise CannotHave(f"{' and '.join(packages)} hold no kernel image that we know")
            run("depmod", "-b", str(tree), unpacked.release)
            tree.chmod(0o755)
            tree.rename(home)
    link = _kernels_dir() / f".{series}.new"
    link.unlink(missing_ok=True)
    link.symlink_to(home.name)
    link.rename(_kernels_dir() / series)
    kernel = cached(series)
    if kernel is None:
        raise CannotHave(f"{home} is damaged; remove it and run this again")
    return kernel


def list_cached() -> dict[str, Kernel]:
    """Every series that has been unpacked here."""
    if not _kernels_dir().is_dir():
        return {}
    links = [path.name for path in _kernels_dir().iterdir() if path.is_symlink()]
    return {name: kernel for name in links if (kernel := cached(name))}


def _kernel_in(tree: Path) -> Kernel | None:
    for pattern in ("boot/vmlinuz-*", "usr/lib/modules/*/vmlinuz"):
        for image in sorted(tree.glob(pattern)):
            release = image.name.removeprefix("vmlinuz-")
            return Kernel(image.parent.name if release == "vmlinuz" else release, image, tree)
    return None


def _series_of(version: str, series: str) -> bool:
    return not series or version.startswith((f"{series}.", f"{series}-"))


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(number) for number in re.findall(r"\d+", version))


class _Apt:
    """apt-get on one Debian release, apart from the host's own lists, cache and pins."""

    def __init__(self, home: Path, release: str) -> None:
        self.complaints = ""
        lists, archives = home / "lists" / "partial", home / "cache" / "archives" / "partial"
        lists.mkdir(parents=True, exist_ok=True)
        archives.mkdir(parents=True, exist_ok=True)
        sources = home / "sources.list"
        sources.write_text("".join(f"{line}\n" for line in _sources(release)))
        options = {
            "Dir::Etc::sourcelist": sources,
            "Dir::Etc::sourceparts": "/dev/null",
            "Dir::Etc::preferences": "/dev/null",
            "Dir::Etc::preferencesparts": "/dev/null",
            "Dir::State::Lists": lists.parent,
            "Dir::Cache": home / "cache",
            "APT::Architecture": "amd64",
            "Acquire::Languages": "none",
            # The cache may be in a home that apt's own user cannot enter.
            **({"APT::Sandbox::User": "root"} if os.geteuid() == 0 else {}),
        }
        self._options = [
            word for key, value in options.items() for word in ("-o", f"{key}={value}")
        ]

    def update(self) -> None:
        # A release may have no security archive left; what was found is judged, not the code.
        done = subprocess.run(
            ["apt-get", *self._options, "-q", "update"],
            capture_output=True,
            text=True,
            check=False,
            env=with_sbin(),
        )
        self.complaints = done.stderr

    def package_names(self) -> list[str]:
        return run("apt-cache", *self._options, "pkgnames", "linux-").split()

    def download(self, packages: list[str], folder: Path) -> list[Path]:
        run("apt-get", *self._options, "-q", "download", *packages, cwd=folder)
        return sorted(folder.glob("*.deb"))


def _sources(release: str) -> list[str]:
    """sources.list lines for a release, on the mirrors that this machine's own apt names."""
    keyring = Path("/usr/share/keyrings/debian-archive-keyring.gpg")
    if not keyring.exists():
        raise CannotHave(
            f"apt cannot verify Debian's packages: {keyring} is missing. "
            "Run `apt-get install debian-archive-keyring` and this again."
        )
    main, security = _mirrors()
    lines = [f"deb [signed-by={keyring}] {main} {release} main"]
    if security and release != "sid":
        lines.append(f"deb [signed-by={keyring}] {security} {release}-security main")
    return lines


def _mirrors() -> tuple[str, str | None]:
    main = os.environ.get("OOMWATCH_DEBIAN_MIRROR")
    security = None
    named = run("apt-get", "indextargets", "--format", "$(REPO_URI) $(RELEASE)").split("\n")
    for uri, release in (line.split() for line in named if line.count(" ") == 1):
        if release in _CODENAMES:
            main = main or uri
        elif release.removesuffix("-security") in _CODENAMES:
            security = security or uri
    if main is None:
        raise CannotHave(
            "this machine's apt sources name no Debian mirror to take kernels from. Set "
            "OOMWATCH_DEBIAN_MIRROR to one's address."
        )
    return main, security
