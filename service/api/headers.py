"""Headers that every answer carries, put together once."""

from __future__ import annotations

from service.api import documentation_pages, page, report_pages
from service.settings import Settings

Headers = list[tuple[bytes, bytes]]

_ALWAYS: Headers = [(b"x-content-type-options", b"nosniff"), (b"referrer-policy", b"no-referrer")]
_NO_STORE: Headers = [(b"cache-control", b"no-store")]
_REVALIDATED: Headers = [(b"cache-control", b"no-cache")]
_NOTHING = "default-src 'none'; frame-ancestors 'none'"
_TLS_ONLY: Headers = [(b"strict-transport-security", b"max-age=31536000")]


class AnswerHeaders:
    """Which headers the answer to a path carries.

    Answers are nobody's to keep: they hold inputs and predictions. The scripts of the
    documentation are, and the page's files, if it is asked each time whether they still hold.
    """

    def __init__(self, settings: Settings) -> None:
        always = _ALWAYS + (_TLS_ONLY if settings.tls_certificate is not None else [])
        self._data = [*always, *_NO_STORE, _policy(_NOTHING)]
        self._scripts = [*always, _policy(_NOTHING)]
        self._files = [*always, *_REVALIDATED, _policy(_NOTHING)]
        self._reports = [*always, *_NO_STORE, _policy(report_pages.POLICY)]
        policies = documentation_pages.POLICIES | page.POLICIES
        self._pages = {
            path: [*always, *_NO_STORE, _policy(policy)] for path, policy in policies.items()
        }

    def of(self, path: str) -> Headers:
        """Of the answer to a request for `path`."""
        if path.startswith(documentation_pages.STATIC):
            return self._scripts
        if path.startswith(page.ADDRESS):
            return self._files
        if report_pages.covers(path):
            return self._reports
        return self._pages.get(path, self._data)


def _policy(policy: str) -> tuple[bytes, bytes]:
    return (b"content-security-policy", policy.encode())
