"""`fedaudit view`: the runs of a directory, served to this computer's browser and to nobody else.

It listens on the loopback alone, on a path that nobody can guess, and answers no other host name:
a page elsewhere that has its own name point at 127.0.0.1 (DNS rebinding) is refused, and so are
other users of this computer. An address names a run by a digest, so that no part of it ever becomes
a path. Nothing is written.
"""

import hmac
import secrets
from collections.abc import Mapping
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

from fedaudit.core.errors import FedauditError
from fedaudit.core.version import VERSION
from fedaudit.files import regular_file
from fedaudit.reports.archive import RunSummary, list_runs
from fedaudit.reports.archive_page import difference_page, index_page, run_id
from fedaudit.reports.build import results_of
from fedaudit.reports.html import scripts, source_hash

LOOPBACK = "127.0.0.1"
SECONDS = 20.0
"""How long a browser may take over one request."""
KEPT = {"report.html": "text/html; charset=utf-8", "results.json": "application/json"}
"""Files of a run that are served as they are kept."""
_HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "same-origin",
    "Cache-Control": "no-store",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
}


class ArchiveServer(ThreadingHTTPServer):
    """Serves a directory's runs below `address`.

    Args:
        directory: Where the runs lie.
        port: 0 chooses a free one.
    """

    daemon_threads = True

    def __init__(self, directory: Path, port: int = 0) -> None:
        super().__init__((LOOPBACK, port), _Handler)
        self.directory, self.token = directory, secrets.token_urlsafe(24)
        self.runs: Mapping[str, RunSummary] = {}

    @property
    def address(self) -> str:
        """URL of the list of runs."""
        return f"http://{LOOPBACK}:{self.server_port}/{self.token}/"

    def look(self) -> tuple[RunSummary, ...]:
        """Read the list of runs anew."""
        runs = list_runs(self.directory)
        self.runs = {run_id(run): run for run in runs}
        return runs


class _Handler(BaseHTTPRequestHandler):
    server: ArchiveServer
    server_version, sys_version = "fedaudit", ""
    timeout = SECONDS

    def do_GET(self) -> None:
        self._answer(body=True)

    def do_HEAD(self) -> None:
        self._answer(body=False)

    def log_message(self, format: str, *args: object) -> None:
        """Nothing: what is opened is nobody's business."""

    def _answer(self, *, body: bool) -> None:
        try:
            self._send(*self._page(), body=body)
        except _RefusedError as refusal:
            self._send(refusal.status, f"{refusal}\n".encode(), "text/plain; charset=utf-8", body)
        except FedauditError as error:
            message = f"{error}\n".encode("utf-8", "backslashreplace")
            self._send(HTTPStatus.CONFLICT, message, "text/plain; charset=utf-8", body)

    def _page(self) -> tuple[HTTPStatus, bytes, str]:
        server = self.server
        names = {f"{host}:{server.server_port}" for host in (LOOPBACK, "localhost")}
        if self.headers.get_all("Host", []) not in [[name] for name in names]:
            raise _RefusedError(HTTPStatus.MISDIRECTED_REQUEST, "this is no server of that name")
        if self.headers.get("Sec-Fetch-Site", "none") not in {"none", "same-origin"}:
            raise _RefusedError(HTTPStatus.FORBIDDEN, "another site asked for this")
        url = urlsplit(self.path)
        _, _, rest = url.path.partition("/")
        token, *place = rest.split("/")
        if not hmac.compare_digest(token.encode(), server.token.encode()):
            raise _RefusedError(HTTPStatus.FORBIDDEN, "open the printed address")
        match place:
            case [""]:
                html = index_page(server.look(), server.directory.resolve().name, live=True)
                return HTTPStatus.OK, html.encode(), KEPT["report.html"]
            case ["runs", name, file] if file in KEPT:
                content = self._read(self._run(name), file)
                return HTTPStatus.OK, content, KEPT[file]
            case ["diffs", pair] if pair.endswith(".html") and pair.count("-") == 1:
                return self._difference(*pair.removesuffix(".html").split("-"))
            case ["diff"]:
                query = parse_qs(url.query, max_num_fields=2)
                before, after = (query.get(key, [""])[0] for key in ("before", "after"))
                return self._difference(before, after)
        raise _RefusedError(HTTPStatus.NOT_FOUND, "there is no such page")

    def _difference(self, *names: str) -> tuple[HTTPStatus, bytes, str]:
        before, after = (self._run(name) for name in names)
        old, new = results_of(before.path), results_of(after.path)
        html = difference_page(old, new, (before.name, after.name))
        return HTTPStatus.OK, html.encode(), KEPT["report.html"]

    def _run(self, name: str) -> RunSummary:
        if not self.server.runs:
            self.server.look()
        if name not in self.server.runs:
            raise _RefusedError(HTTPStatus.NOT_FOUND, "there is no such run")
        return self.server.runs[name]

    def _read(self, run: RunSummary, file: str) -> bytes:
        try:
            return regular_file.read_bytes(run.path / file)
        except FileNotFoundError as error:
            raise _RefusedError(HTTPStatus.NOT_FOUND, f"this run has no {file}") from error

    def _send(self, status: HTTPStatus, content: bytes, kind: str, body: bool) -> None:
        self.send_response(status)
        headers = {"Content-Type": kind, "Content-Length": f"{len(content)}"}
        for name, value in (headers | _HEADERS | {"Content-Security-Policy": _policy()}).items():
            self.send_header(name, value)
        self.end_headers()
        if body:
            self.wfile.write(content)


class _RefusedError(Exception):
    """A request that gets no page."""

    def __init__(self, status: HTTPStatus, message: str) -> None:
        super().__init__(f"{message} (fedaudit {VERSION})")
        self.status = status


def _policy() -> str:
    """Content security policy of every answer: our script alone, and no request to elsewhere."""
    ours = " ".join(map(source_hash, scripts()))
    return "; ".join(
        (
            "default-src 'none'",
            f"script-src {ours}",
            "style-src 'unsafe-inline'",  # pages narrow it to their own by a hash
            "img-src data:",
            "base-uri 'none'",
            "form-action 'self'",
            "frame-ancestors 'none'",
        )
    )
