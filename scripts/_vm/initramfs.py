"""The first root file system of the VM: busybox, a few modules, and a script that goes on.

It mounts the host's files over 9p and hands over to guest.sh. Written here, rather than by
virtme-ng's init, because that runs systemd-tmpfiles and waits for udev over 9p first: 20 of
its 25 seconds to the command under emulation.
"""

from __future__ import annotations

import lzma
import shlex
import shutil
from pathlib import Path
from typing import IO

from scripts._vm.cache import CannotHave
from scripts._vm.kernels import Kernel

# What is needed before the root can be read; modprobe finds the rest there.
_MODULES = ("virtio_pci", "9pnet_virtio", "9p", "virtio_console", "overlay")

_INIT = """\
#!/bin/busybox sh
bb=/bin/busybox
$bb mount -t devtmpfs devtmpfs /dev
exec </dev/null >/dev/ttyS0 2>&1
for module in /modules/*; do $bb insmod "$module"; done
how=version=9p2000.L,trans=virtio,access=any,msize=512000
files() {{ $bb mount -t 9p -o "$1,$how" "$2" "$3"; }}
{root_of_files} || $bb poweroff -f
$bb mount --move /dev /root/dev
exec $bb switch_root /root /bin/bash {arguments}
"""

# Read-only: nothing may be written to the host's files, nor seem to be.
_OVERLAID = (
    "files {access} root /host && files ro,cache=loose over /over && "
    "$bb mount -t overlay -o ro,lowerdir=/over:/host overlay /root"
)


def write(
    out: IO[bytes], kernel: Kernel, *, guest: Path, root: Path, writable: bool, overlaid: bool
) -> None:
    """Write the archive. ``guest`` is run in the new root as ``bash GUEST ROOT MODULES``.

    ``overlaid`` lays the files with the tag "over" on the host's.
    """
    busybox = shutil.which("busybox")
    if busybox is None:
        raise CannotHave("no busybox: install busybox-static")
    # The host's files may change while it runs only where the guest may change them too;
    # else what was read once is kept, which makes imports several times faster.
    access = "rw" if writable else "ro,cache=loose"
    words = [str(guest), str(root), str(kernel.modules)]
    for folder in ("bin", "dev", "host", "modules", "over", "root"):
        _member(out, folder, 0o040755)
    _member(out, "bin/busybox", 0o100755, Path(busybox).read_bytes())
    for number, module in enumerate(_modules(kernel)):
        name = module.name.removesuffix(".xz")
        _member(out, f"modules/{number:02}-{name}", 0o100644, _unpacked(module))
    files = (_OVERLAID if overlaid else "files {access} root /root").format(access=access)
    script = _INIT.format(root_of_files=files, arguments=shlex.join(words))
    _member(out, "init", 0o100755, script.encode())
    _member(out, "TRAILER!!!", 0)


def _modules(kernel: Kernel) -> list[Path]:
    """The modules' files, each after those that it needs. What is built in has none."""
    needs = {}
    for line in (kernel.modules / "modules.dep").read_text().splitlines():
        path, _, others = line.partition(":")
        needs[Path(path).name.partition(".")[0].replace("-", "_")] = [*others.split()[::-1], path]
    paths = (path for name in _MODULES for path in needs.get(name, []))
    return [kernel.modules / path for path in dict.fromkeys(paths)]


def _unpacked(module: Path) -> bytes:
    content = module.read_bytes()
    return lzma.decompress(content) if module.suffix == ".xz" else content


def _member(out: IO[bytes], name: str, mode: int, content: bytes = b"") -> None:
    """One member of a cpio archive in the "newc" form (the kernel's buffer-format.rst)."""
    encoded = name.encode() + b"\0"
    fields = (0, mode, 0, 0, 1, 0, len(content), 0, 0, 0, 0, len(encoded), 0)
    header = b"070701" + b"".join(b"%08x" % field for field in fields) + encoded
    out.write(header + b"\0" * (-len(header) % 4))
    out.write(content + b"\0" * (-len(content) % 4))
