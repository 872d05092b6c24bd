"""`fedaudit view`: many runs on a page that nobody else reaches, and that runs nobody's code."""

import json
import shutil
import socket
import sys
import threading
from collections.abc import Iterator
from http.client import HTTPConnection
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))
sys.path.insert(0, str(Path(__file__).parents[1] / "reports"))
from browser import load
from sound_run import command

from fedaudit.reports.archive_server import ArchiveServer

NAME = "<script>alert(1)<\u202e"


@pytest.fixture
def runs(sound: Path, tmp_path: Path) -> Path:
    for name in ("one", NAME):
        shutil.copytree(sound, tmp_path / "runs" / name)
    return tmp_path / "runs"


@pytest.fixture
def server(runs: Path) -> Iterator[ArchiveServer]:
    with ArchiveServer(runs) as serving:
        thread = threading.Thread(target=serving.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        yield serving
        serving.shutdown()
        thread.join()


def get(
    server: ArchiveServer, place: str, method: str = "GET", **headers: str
) -> tuple[int, str, dict[str, str]]:
    """Status, body and headers of what the server answers to `place`, below its secret path."""
    path = place if place.startswith("/") else f"/{server.token}/{place}"
    connection = HTTPConnection("127.0.0.1", server.server_port, timeout=30)
    connection.request(method, path, headers=headers)
    answer = connection.getresponse()
    body = answer.read().decode()
    connection.close()
    return answer.status, body, dict(answer.getheaders())


def links(page: str, start: str) -> list[str]:
    return [part.split('"')[0] for part in page.split('href="') if part.startswith(start)]


def test_it_lists_opens_and_compares_runs(server: ArchiveServer, runs: Path) -> None:
    status, page, headers = get(server, "")
    assert status == 200
    assert "unsafe" not in headers["Content-Security-Policy"].split("style-src")[0]
    assert headers["Cache-Control"] == "no-store"
    assert "<script>alert" not in page
    assert "&lt;script&gt;alert(1)&lt;⟨U+202E⟩" in page
    opened = links(page, "runs/")
    assert len(opened) == 2
    kept = (runs / "one" / "report.html").read_text()
    assert kept in [get(server, link)[1] for link in opened]
    (changed,) = links(page, "diffs/")
    status, difference, _ = get(server, changed)
    assert status == 200
    assert "no difference shown" in difference
    first, second = changed.removeprefix("diffs/").removesuffix(".html").split("-")
    assert get(server, f"diff?before={first}&after={second}")[1] == difference
    stated = get(server, opened[0].replace("report.html", "results.json"))
    assert json.loads(stated[1])["study"] == "people"


@pytest.mark.parametrize(
    "host", ["evil.example", "evil.example:{port}", "127.0.0.1", "127.0.0.1:1", "[::1]:{port}", ""]
)
def test_another_name_is_refused(server: ArchiveServer, host: str) -> None:
    """A site whose name points at 127.0.0.1 reads nothing here."""
    status, page, _ = get(server, "", Host=host.format(port=server.server_port))
    assert (status, "runs" in page) == (421, False)


def test_two_names_and_none_are_refused(server: ArchiveServer) -> None:
    for hosts in ("", f"Host: 127.0.0.1:{server.server_port}\r\nHost: evil.example\r\n"):
        with socket.create_connection(("127.0.0.1", server.server_port), timeout=30) as wire:
            wire.sendall(f"GET /{server.token}/ HTTP/1.0\r\n{hosts}\r\n".encode())
            assert wire.recv(100).split()[1] == b"421"


def test_it_listens_on_the_loopback_alone(server: ArchiveServer) -> None:
    assert server.server_address[0] == "127.0.0.1"


def test_who_does_not_know_the_address_sees_nothing(server: ArchiveServer) -> None:
    for place in ("/", "/x/", f"/{server.token[:-1]}/", "/runs", "//", "*"):
        assert get(server, "/" + place[1:] if place != "*" else "/*")[0] == 403
    assert get(server, "", **{"Sec-Fetch-Site": "cross-site"})[0] == 403


@pytest.mark.parametrize(
    "place",
    [
        "runs/../../../etc/passwd",
        "runs/%2e%2e/%2e%2e/etc/passwd",
        "runs/{run}/../study.json",
        "runs/{run}/study.json",
        "runs/{run}/%2e%2e/report.html",
        "runs/one/report.html",
        "runs/{run}/report.html/",
        "diffs/{run}-..html",
        "diffs/-.html",
        "diff?before=../one&after=..",
        "x",
    ],
)
def test_an_address_never_becomes_a_path(server: ArchiveServer, place: str) -> None:
    (run, *_) = (link.split("/")[1] for link in links(get(server, "")[1], "runs/"))
    status, body, _ = get(server, place.format(run=run))
    assert status == 404
    assert "root:" not in body


def test_nothing_is_written_and_no_link_is_followed(
    server: ArchiveServer, runs: Path, tmp_path: Path
) -> None:
    for method in ("POST", "PUT", "DELETE", "OPTIONS"):
        assert get(server, "", method)[0] == 501
    assert get(server, "", "HEAD")[:2] == (200, "")
    (tmp_path / "secret").write_text("secret")
    for run in runs.iterdir():
        (run / "report.html").unlink()
        (run / "report.html").symlink_to(tmp_path / "secret")
    for link in links(get(server, "")[1], "runs/"):
        status, body, _ = get(server, link)
        assert status == 409
        assert body != "secret"


@pytest.mark.browser
@pytest.mark.slow
def test_a_kept_page_runs_no_code_but_ours(
    server: ArchiveServer, runs: Path, tmp_path: Path
) -> None:
    evil = "<html><body><script>document.title = 'owned'</script><p>here</p></body></html>"
    for run in runs.iterdir():
        (run / "report.html").write_text(evil)
    first = links(get(server, "")[1], "runs/")[0]

    class Address:
        def __init__(self, place: str) -> None:
            self.place = place

        def as_uri(self) -> str:
            return server.address + self.place

    shown, log = load(Address(first), tmp_path / "profile")  # type: ignore[arg-type]
    assert "here" in shown
    assert "<title>owned" not in shown
    assert "violates the following Content Security Policy" in log
    shown, log = load(Address(""), tmp_path / "profile")  # type: ignore[arg-type]
    assert 'id="filters"' in shown
    assert "hidden" not in shown.split('id="filters"')[1].split(">")[0]  # our own script ran
    assert not log


def test_a_bundle_is_rendered_anew_and_holds_no_faces(runs: Path, tmp_path: Path) -> None:
    (runs / "one" / "report.html").write_text("<script>evil()</script>")
    out = tmp_path / "out"
    result = command("view", runs, "--bundle", out)
    assert result.exception is None
    pages = sorted(path.relative_to(out).as_posix() for path in out.rglob("*.html"))
    assert len(pages) == 4  # the list, two reports, what changed
    for path in out.rglob("*.html"):
        page = path.read_text()
        assert "evil()" not in page
        assert "data:image/png" not in page
        assert str(tmp_path) not in page
        for link in links(page, "runs/") + links(page, "diffs/"):
            assert (path.parent / link.partition("#")[0]).exists()
    assert "is not empty" in str(command("view", runs, "--bundle", out).exception)
    assert "there is no folder" in str(command("view", runs / "none").exception)
