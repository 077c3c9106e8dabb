"""Pages of reports: HTML of whoever may write to the model repository, shown without any rights.

In the sandbox of its policy a page is of an origin of its own, runs no script, loads nothing,
submits nothing and opens nothing; it draws with what stands in it.
"""

from __future__ import annotations

import re

PATH = "/models/{name}/versions/{version}/reports/{report}/page"
"""Where they are served."""

POLICY = (
    "default-src 'none'; style-src 'unsafe-inline'; img-src data:; base-uri 'none'; "
    "form-action 'none'; frame-ancestors 'none'; sandbox"
)
"""Their Content-Security-Policy."""

_END = "/page"
_PATTERN = re.compile(re.sub(r"{\w+}", "[^/]+", PATH))


def covers(path: str) -> bool:
    """Whether what is asked for is such a page."""
    return path.endswith(_END) and _PATTERN.fullmatch(path) is not None
