"""Boots this host's own files under another kernel and runs a command there."""

from __future__ import annotations

import argparse
import ctypes
import os
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import IO

from scripts._vm import initramfs, kernels, runtimes
from scripts._vm.cache import CannotHave, cache_dir, say
from scripts._vm.signs_of_life import StoodStill, TookTooLong, wait

ROOT = Path(__file__).resolve().parents[2]
_GUEST = Path(__file__).with_name("guest.sh").resolve()
_PR_SET_PDEATHSIG = 1
# A guest on a /dev/kvm that does not work hangs before its first line; one that works is
# up in a few seconds.
_KVM_PROBE_S = 15.0
_LAST_LINES = 40
# Not -cpu max as it is: a kernel that is told of fast string instructions clears and copies pages
# by them, and an emulator steps through each of their bytes: without them pages are touched in half
# the time and copied in a quarter. Of AMD's later models Linux takes it without being told
# (rep_good, arch/x86/kernel/cpu/amd.c).
_EMULATED_CPU = "max,-erms,family=15,model=4,stepping=1"
_KERNEL_PARAMETERS = (
    # The kernel's own words, warnings and worse, until guest.sh silences it.
    "console=ttyS0",
    "loglevel=5",
    # A panic ends the machine. After an Oops a lock may be held for which all wait ever after.
    "panic=-1",
    "oops=panic",
    # Its tools are not there for a Docker daemon.
    "apparmor=0",
    # On a busy host the clock's watchdog finds an emulated TSC unstable: the kernel then patches
    # its code while it runs, which QEMU's translator does not always survive (seen: Oops: int3).
    "tsc=nowatchdog",
    # Nobody breaks in here, and detours of every call and return cost an emulator more than a CPU.
    "mitigations=off",
    "init_on_alloc=0",
)
_TIMED_OUT = 124  # as timeout(1)
_BROKE = 125


@dataclass(frozen=True, slots=True)
class _Machine:
    memory: str = "2G"
    cpus: int = 2
    writable: bool = False
    kvm: bool = False
    #: Laid over the host's files.
    over: Path | None = None


def main() -> int:
    """Do what the command line says; the exit status."""
    options = _parse(sys.argv[1:])
    if options.list:
        for series, release in kernels.RELEASES.items():
            kernel = kernels.cached(series)
            state = f"{kernel.release}, cached" if kernel else f"to be had from Debian {release}"
            print(f"{series:8} {state}")
        return 0
    for received in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(received, _interrupted)
    try:
        kernel = kernels.get(options.kernel, update=options.update)
        over = runtimes.get(update=options.update) if options.runtimes else None
        if options.fetch:
            return 0
        kvm = _kvm_works(kernel)
        machine = _Machine(options.memory, options.cpus, options.rw, kvm, over)
        how = "under KVM" if kvm else "emulated, for want of a usable KVM"
        say(f"booting Linux {kernel.release} with {machine.memory}, {machine.cpus} CPUs, {how}")
        until = time.monotonic() + options.timeout
        status = _run(kernel, machine, options, until)
        for _ in range(options.tries - 1):
            if status != _BROKE:
                break
            say("trying another machine")
            status = _run(kernel, machine, options, until)
        return status
    except CannotHave as error:
        say(str(error))
        return _BROKE
    except KeyboardInterrupt:
        say("interrupted")
        return 130


def _run(
    kernel: kernels.Kernel, machine: _Machine, options: argparse.Namespace, until: float
) -> int:
    """Boot a machine for the command, and keep what is left of it; the exit status."""
    with _shared_folder() as share:
        status = _boot(kernel, machine, options.command, share, until=until)
        if options.results is not None:
            shutil.copytree(share / "results", options.results, dirs_exist_ok=True)
        if status != 0:
            _keep_log(share, cache_dir() / f"{kernel.release}.log")
    return status


def _parse(words: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="scripts/vm",
        usage="scripts/vm [OPTIONS] -- COMMAND...",
        description="Run a command in a virtual machine of this host's own files, with cgroup v2, "
        "under another kernel. Nothing is installed on the host but QEMU. The file system is "
        "read-only but for /tmp and /run, which are the machine's own memory.",
        epilog="Exit status: the command's; 124 when the time ran out; 125 when the machine broke.",
    )
    parser.add_argument(
        "--kernel",
        default="6.1",
        metavar="SERIES",
        help="5.10, 6.1 (the default), 6.12, 7.2 or newest",
    )
    parser.add_argument("--memory", default="2G", help="default 2G")
    parser.add_argument("--cpus", type=int, default=2, help="default 2")
    parser.add_argument("--rw", action="store_true", help="let the command change the host's files")
    parser.add_argument(
        "--runtimes",
        action="store_true",
        help="with dockerd, containerd, runc, crun, runsc and podman, unpacked and not installed",
    )
    parser.add_argument(
        "--results",
        "--rwdir",
        type=Path,
        metavar="DIR",
        help="afterwards holds what the command left in the folder $OOMWATCH_RESULTS",
    )
    parser.add_argument(
        "--timeout", type=float, default=1500, metavar="S", help="of all tries; default 1500"
    )
    parser.add_argument(
        "--tries",
        type=int,
        default=1,
        metavar="N",
        help="boot another where one broke, as an emulated one may, up to N in all; default 1",
    )
    parser.add_argument("--list", action="store_true", help="list the kernels and stop")
    parser.add_argument("--fetch", action="store_true", help="get the kernel and stop")
    parser.add_argument("--update", action="store_true", help="look for a newer one of the series")
    parser.add_argument("command", nargs=argparse.REMAINDER, help=argparse.SUPPRESS)
    options = parser.parse_args(words)
    if options.command[:1] == ["--"]:
        del options.command[0]
    if not options.command and not (options.list or options.fetch):
        parser.error("no command; for example: scripts/vm -- uname -a")
    if options.rw and options.runtimes:
        parser.error("--rw and --runtimes exclude each other: what is laid over cannot be changed")
    return options


@contextmanager
def _shared_folder() -> Iterator[Path]:
    """The one folder of the host that the machine may write to."""
    with tempfile.TemporaryDirectory(prefix="oomwatch-vm-", ignore_cleanup_errors=True) as name:
        (Path(name) / "results").mkdir()
        yield Path(name)


def _boot(
    kernel: kernels.Kernel,
    machine: _Machine,
    command: Sequence[str],
    share: Path,
    *,
    until: float,
) -> int:
    """Boot, run the command with its output on ours, and give back its exit status."""
    # In a file, since the kernel's command line holds 2 kB.
    (share / "command").write_text(f"exec {shlex.join(command)}\n")
    began = time.monotonic()
    qemu = _start(kernel, machine, share)
    try:
        pumps = [
            threading.Thread(target=_pump, args=(source, sink), daemon=True)
            for source, sink in ((qemu.stdout, 1), (qemu.stderr, 2))
        ]
        for pump in pumps:
            pump.start()
        wait(qemu, share / "alive", until=until)
        for pump in pumps:
            pump.join()
    except TookTooLong as why:
        say(str(why))
        return _TIMED_OUT
    except StoodStill as why:
        say(str(why))
        return _BROKE
    finally:
        qemu.kill()
        qemu.wait()
    if not (share / "status").exists():
        say("the machine ended before the command did")
        return _BROKE
    took, booted = time.monotonic() - began, (share / "booted").read_text().strip()
    status = int((share / "status").read_text())
    say(f"exit status {status} after {took:.0f} s (command began {booted} s into the boot)")
    return status


def _keep_log(share: Path, log: Path) -> None:
    """Keep the kernel's log, and print its end where the kernel itself could not tell it."""
    console, dmesg = share / "console.log", share / "dmesg"
    log.write_bytes(b"".join(part.read_bytes() for part in (console, dmesg) if part.exists()))
    if not dmesg.exists():
        for line in console.read_text(errors="replace").splitlines()[-_LAST_LINES:]:
            say(f"console: {line!r}"[:200])
    say(f"the kernel's log: {log}")


def _start(kernel: kernels.Kernel, machine: _Machine, share: Path) -> subprocess.Popen[bytes]:
    first_root = share / "initramfs"
    with first_root.open("wb") as out:
        initramfs.write(
            out,
            kernel,
            guest=_GUEST,
            root=ROOT,
            writable=machine.writable,
            overlaid=machine.over is not None,
        )
    words = [
        "qemu-system-x86_64",
        *("-machine", "q35", "-accel", "kvm" if machine.kvm else "tcg"),
        *("-cpu", "max" if machine.kvm else _EMULATED_CPU),
        *("-m", machine.memory, "-smp", str(machine.cpus)),
        *("-nodefaults", "-no-user-config", "-display", "none", "-no-reboot"),
        *("-kernel", str(kernel.image), "-initrd", str(first_root)),
        *("-append", " ".join(_KERNEL_PARAMETERS)),
        *("-serial", f"file:{share / 'console.log'}"),
        *_files("root", Path("/"), writable=machine.writable),
        *_files("share", share, writable=True),
        *(_files("over", machine.over, writable=False) if machine.over else ()),
        *("-device", "virtio-serial-pci"),
        # Our pipes. QEMU opens these paths anew, which would truncate a file.
        *("-chardev", "file,id=out,path=/proc/self/fd/1"),
        *("-device", "virtserialport,chardev=out,name=out"),
        *("-chardev", "file,id=err,path=/proc/self/fd/2"),
        *("-device", "virtserialport,chardev=err,name=err"),
    ]
    parent = os.getpid()

    def die_with_parent() -> None:
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:
            os._exit(1)

    # A session of its own: Ctrl-C reaches us alone, and we end the machine. And it ends with
    # us when we are killed outright.
    return subprocess.Popen(
        words,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        start_new_session=True,
        preexec_fn=die_with_parent,
    )


def _files(tag: str, folder: Path, *, writable: bool) -> list[str]:
    """QEMU's words for a folder of the host's, which the guest mounts by its tag."""
    # A comma ends a value in QEMU's options; two stand for one.
    path = str(folder).replace(",", ",,")
    how = "" if writable else ",readonly=on"
    return [
        *("-fsdev", f"local,id={tag},path={path},security_model=none,multidevs=remap{how}"),
        *("-device", f"virtio-9p-pci,fsdev={tag},mount_tag={tag}"),
    ]


def _pump(source: IO[bytes], sink: int) -> None:
    while chunk := os.read(source.fileno(), 65536):
        while chunk:
            chunk = chunk[os.write(sink, chunk) :]


def _kvm_works(kernel: kernels.Kernel) -> bool:
    """Whether a guest boots under KVM here. Tried once a boot of the host."""
    if not os.access("/dev/kvm", os.R_OK | os.W_OK):
        return False
    boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    told = cache_dir() / f"kvm-{boot}"
    if not told.exists():
        say("trying KVM")
        with _shared_folder() as share:
            (share / "command").write_text("exit\n")
            qemu = _start(kernel, _Machine(kvm=True), share)
            try:
                qemu.communicate(timeout=_KVM_PROBE_S)
            except subprocess.TimeoutExpired:
                pass
            finally:
                qemu.kill()
                qemu.wait()
            works = (share / "status").exists()
        told.write_text("works\n" if works else "does not work\n")
    return told.read_text() == "works\n"


def _interrupted(signum: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt


if __name__ == "__main__":
    sys.exit(main())
