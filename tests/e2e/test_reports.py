"""The shipped report, as clients of a real server find it."""

from __future__ import annotations

import asyncio

import pytest

from service.client import AsyncClient, Client
from service.errors import ReportNotFound
from tests.e2e.servers import SHIPPED, Server


def test_the_shipped_report_is_of_the_shipped_weights(shipped: Server) -> None:
    with Client(shipped.url) as client:
        found = client.reports()
        assert (found.next, found.warnings) == (None, [])
        [report] = found.reports
        assert (report.model, report.version, report.name) == ("co2", 1, "held-out")
        # Otherwise it is to be made again, as models/README.md says.
        assert report.weights == "same"
        by_name = {method.name: method for method in report.methods}
        errors = [by_name[name].root_mean_squared_error for name in ("mc_dropout", "deterministic")]
        assert errors[0] is not None
        assert errors[1] is not None
        assert errors[0][0] < errors[1][0]
        numbers = client.report("co2", 1, "held-out")
        assert numbers["data"]["rows"] == 222
        assert client.report_page("co2", 1, "held-out").startswith("<!doctype html>")
    folder = SHIPPED / "co2" / "1" / "reports"
    assert sum(file.stat().st_size for file in folder.iterdir()) < 200_000


def test_what_is_not_there_is_an_error_of_the_service(shipped: Server) -> None:
    async def ask() -> int:
        async with AsyncClient(shipped.url) as client:
            assert (await client.report("co2", 1, "held-out"))["model"] == "co2"
            assert "co2, version 1" in await client.report_page("co2", 1, "held-out")
            return len((await client.reports(model="digits", version=1)).reports)

    assert asyncio.run(ask()) == 0
    with Client(shipped.url) as client, pytest.raises(ReportNotFound, match="no report 'gone'"):
        client.report("co2", 1, "gone")
