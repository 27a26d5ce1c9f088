# Sourced by the other scripts: makes .venv in the checkout, once.
#
#   root=...; . "$root/scripts/_venv.sh"; need_venv run|dev
#
# run: the package and what it imports. dev: and every tool.
# When the venv is there this costs no process at all: `oomwatch tail --help`
# must be quick, and inside the VM the checkout is read-only and has no network.

venv=$root/.venv

say() { printf '%s: %s\n' "${0##*/}" "$*" >&2; }
die() { say "$*"; exit 1; }

# What the venv was made from. The path belongs to it: a venv that was moved is broken.
_recipe() { printf -v recipe '%s\n%s' "$root" "$(<"$root/pyproject.toml")"; }

_venv_is_good() {
    local recipe stamp
    [[ -x $venv/bin/python ]] || return
    _recipe
    for stamp in "$@"; do
        [[ -r $venv/.made-$stamp && $(<"$venv/.made-$stamp") == "$recipe" ]] && return
    done
    return 1
}

# The tools' venv is good for the package alone too.
_venv_serves() { if [[ $1 == run ]]; then _venv_is_good run dev; else _venv_is_good dev; fi; }

need_venv() { _venv_serves "$1" || _make_venv "$1"; }

_find_python() {
    local name found=
    for name in python3 python3.14 python3.13 python3.12 python3.11; do
        command -v "$name" >/dev/null || continue
        found=yes
        "$name" -c 'import sys; sys.exit(sys.version_info < (3, 11))' || continue
        if "$name" -c 'import ensurepip, venv' 2>/dev/null; then
            python=$name
            return
        fi
        die "$name cannot make virtual environments." \
            "Install its venv package (Debian, Ubuntu: apt-get install python3-venv) and run this again."
    done
    [[ -n $found ]] && die "Python 3.11 or newer is needed; python3 is $(python3 -V 2>&1)." \
        "Install a newer one (it may be called python3.12, say) and run this again."
    die "Python 3.11 or newer is needed and no python3 is on PATH." \
        "Install it (Debian, Ubuntu: apt-get install python3 python3-venv) and run this again."
}

_make_venv() {
    local kind=$1 python recipe extra=
    [[ -w $root ]] || die "$venv is missing or out of date, and $root cannot be written to." \
        "Run this once where it can."
    # In a subshell, so that the lock goes with it: two first runs at once make one venv.
    (
        exec 9>"$root/.venv.lock"
        flock 9
        _venv_serves "$kind" && exit
        # Keep the tools of a venv that only went stale.
        [[ -e $venv/.made-dev ]] && kind=dev
        [[ $kind == dev ]] && extra="[dev]"
        _recipe
        if [[ ! -x $venv/bin/pip ]] || ! "$venv/bin/pip" --version >/dev/null 2>&1; then
            _find_python
            say "making a virtual environment in .venv with $python"
            "$python" -m venv --clear "$venv" || die "could not make $venv"
        fi
        say "installing oomwatch$extra and what it needs into .venv (once; a minute or so)"
        "$venv/bin/python" -m pip install --quiet --quiet --disable-pip-version-check \
            --editable "$root$extra" >&2 || die "pip could not install oomwatch$extra (see above)"
        # The VM reads this venv over a slow file system and cannot write bytecode there.
        "$venv/bin/python" -m compileall -q "$venv/lib" >/dev/null 2>&1 || true
        printf '%s' "$recipe" >"$venv/.made-$kind"
        say "ready"
    ) </dev/null || exit
}
