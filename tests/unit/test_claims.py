"""What a runtime says of a container, held within bounds."""

from __future__ import annotations

from oomwatch.containers import claims
from oomwatch.events import Pod

POD = {
    claims.POD_NAME: "api-0",
    claims.POD_NAMESPACE: "prod",
    claims.POD_UID: "2ca4a155-3599-498d-bb9d-4446693fa3ea",
    claims.CONTAINER_NAME: "api",
}


def test_one_label_that_is_too_long_costs_no_other() -> None:
    told = {"a": "x" * 70_000, "app": "shop", "z" * 70_000: "", "tier": "db"}
    assert claims.labels(told) == {"app": "shop", "tier": "db"}


def test_labels_fit_their_bounds_in_all() -> None:
    kept = claims.labels({f"{number:03}": "x" * 4000 for number in range(100)})
    assert kept is not None
    assert list(kept) == [f"{number:03}" for number in range(16)]
    many = claims.labels({str(number): "" for number in range(1000)})
    assert many is not None
    assert len(many) == claims.MOST_LABELS


def test_an_images_labels_do_not_crowd_out_the_pods() -> None:
    # containerd's CRI and Docker add the kubelet's labels to those of the image.
    image = {f"a.{number}": "x" * 1000 for number in range(300)}
    kept = claims.labels({**image, **POD})
    assert kept is not None
    assert len(kept) > len(POD)
    assert kept.items() >= POD.items()
    assert claims.pod_of(kept) == Pod(uid=POD[claims.POD_UID], name="api-0", namespace="prod")


def test_what_is_no_label_is_left_out() -> None:
    assert claims.labels({"": "x", "n": 7, 7: "n", "ok": "", "half\ud800": "\ud800"}) == {
        "ok": "",
        "half?": "?",
    }
    assert claims.labels(["app"]) is None
    assert claims.labels({}) == {}
