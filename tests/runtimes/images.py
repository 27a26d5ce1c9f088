"""The image of the tests' containers, for containerd: as the kubelet's, or by its own command."""

from __future__ import annotations

import hashlib
import io
import json
import subprocess
import tarfile
from pathlib import Path

from tests.runtimes.processes import SECONDS
from tests.runtimes.workloads import SLEEPER

IMAGE = "localhost/oomwatch-busybox:latest"


def import_image(socket: Path, namespace: str, root: Path) -> None:
    """Have containerd take in the image that is made of a root file system."""
    words = ("ctr", "--address", str(socket), "--namespace", namespace, "images", "import", "-")
    subprocess.run(words, input=_archive(root), check=True, capture_output=True, timeout=SECONDS)


def _archive(root: Path) -> bytes:
    """An image of one layer, as `docker save` writes it: what containerd imports."""
    layer = io.BytesIO()
    with tarfile.open(fileobj=layer, mode="w") as tar:
        tar.add(root, arcname=".")
    config = {
        "architecture": "amd64",
        "os": "linux",
        "config": {"Cmd": SLEEPER},
        "rootfs": {
            "type": "layers",
            "diff_ids": [f"sha256:{hashlib.sha256(layer.getvalue()).hexdigest()}"],
        },
    }
    manifest = [{"Config": "config.json", "RepoTags": [IMAGE], "Layers": ["layer.tar"]}]
    image = io.BytesIO()
    with tarfile.open(fileobj=image, mode="w") as tar:
        for name, content in (
            ("config.json", json.dumps(config).encode()),
            ("layer.tar", layer.getvalue()),
            ("manifest.json", json.dumps(manifest).encode()),
        ):
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    return image.getvalue()
