"""A deep ensemble over HTTP: described, sampled and evaluated as one model."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import torch

from tests.e2e.servers import serving
from tests.repositories import build_network, write_members, write_model

INPUTS = [[0.1, -0.4, 1.0, 0.3], [1.2, 0.0, -0.7, 0.5]]


def test_members_are_served_as_one_model(tmp_path: Path) -> None:
    folder = write_model(tmp_path, "mine", more="passes = 20")
    write_members(folder, 5, version=2)
    (folder / "2" / "members.json").write_text('{"origin": {"trained": "five seeds"}}')
    broken = write_model(tmp_path, "gap")
    write_members(broken, 3)[1].unlink()
    with serving(tmp_path) as server:
        single, ensemble = server.get("/models/mine").json()["versions"]
        assert (single["members"], ensemble["members"]) == (1, 5)
        assert (single["origin"], ensemble["origin"]) == (None, {"trained": "five seeds"})
        assert ensemble["sites"] == single["sites"]
        assert ensemble["parameters"] == 5 * single["parameters"]
        assert (
            "weights-2.safetensors is missing"
            in server.get("/models/gap").json()["versions"][0]["reason"]
        )
        server.says("5 members, 1 dropout sites")

        evaluated = server.post("/eval", {"inputs": INPUTS, "model": "mine"}).json()
        assert evaluated["version"] == 2
        with torch.no_grad():
            networks = [build_network(folder, seed=member).eval() for member in range(5)]
            probs = [network(torch.tensor(INPUTS)).softmax(-1) for network in networks]
        np.testing.assert_allclose(evaluated["mean"], torch.stack(probs).mean(0), atol=1e-6)

        body = {"inputs": INPUTS, "model": "mine", "return": ["mean", "samples"]}
        alone = server.post("/predict", body).json()
        assert alone["passes"] == 20
        samples = np.array(alone["samples"])
        np.testing.assert_allclose(alone["mean"], samples.mean(0), atol=1e-6)
        first = server.post("/predict", {**body, "version": 1, "passes": 4}).json()
        np.testing.assert_allclose(samples[::5], first["samples"], atol=1e-6)

        def one_of_a_crowd(seed: int) -> Any:
            return server.post("/predict", {**body, "seed": seed % 3}).json()["mean"]

        with ThreadPoolExecutor(12) as crowd:
            means = list(crowd.map(one_of_a_crowd, range(12)))
        np.testing.assert_allclose(means[::3], [alone["mean"]] * 4, atol=1e-6)
