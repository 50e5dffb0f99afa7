"""HTTP/1.1 with keep-alive and TLS, and every way to get it wrong on purpose."""

from __future__ import annotations

import json
import select
import socket
import socketserver
import ssl
import struct
import subprocess
import threading
import time
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any, Callable
from urllib.parse import unquote, urlsplit

from .service import Answer, Service, encoded

Perform = Callable[[str, dict[str, Any]], Any]

CONTROL = "/_fake"


class _Server(socketserver.ThreadingMixIn, socketserver.TCPServer):
    """A thread a connection, each numbered, all closed when the server stops."""

    daemon_threads = True
    block_on_close = False
    allow_reuse_address = True
    request_queue_size = 512

    def __init__(self, address: tuple[str, int]) -> None:
        self.stopping = threading.Event()
        self._guard = threading.Lock()
        self._open: set[socket.socket] = set()
        self.accepted = 0
        super().__init__(address, BaseHTTPRequestHandler)
        self._thread = threading.Thread(target=self.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)

    @property
    def port(self) -> int:
        return int(self.server_address[1])

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self.stopping.set()
        self.shutdown()
        self.server_close()
        with self._guard:
            for connection in self._open:
                try:
                    connection.shutdown(socket.SHUT_RDWR)
                except OSError:
                    pass  # Closed by the other side meanwhile.

    def open_connections(self) -> int:
        with self._guard:
            return len(self._open)

    def finish_request(self, request: Any, client_address: Any) -> None:
        with self._guard:
            self.accepted += 1
            number = self.accepted
            self._open.add(request)
        request.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        try:
            self.converse(request, client_address, number)
        finally:
            with self._guard:
                self._open.discard(request)

    def converse(self, request: socket.socket, client_address: Any, number: int) -> None:
        """Serve one connection to its end."""
        raise NotImplementedError

    def shutdown_request(self, request: Any) -> None:
        """Close at once: a FIN sent first would hide the reset that a fault asks for."""
        self.close_request(request)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Clients that vanish are what this fake is for."""

    def wait_for_hangup(self, connection: socket.socket) -> None:
        """Hold a connection until the other side or the server ends it."""
        while not self.stopping.is_set():
            readable, _, _ = select.select([connection], [], [], 0.1)
            try:
                if readable and not connection.recv(65536):
                    return
            except OSError:
                return


class _Handler(BaseHTTPRequestHandler):
    """Reads requests and writes answers, keeping the connection."""

    protocol_version = "HTTP/1.1"
    wbufsize = -1

    def log_message(self, format: str, *args: Any) -> None:
        """The request log is in the world, not on stderr."""

    def _read(self) -> tuple[str, str, bytes]:
        parts = urlsplit(self.path)
        length = int(self.headers.get("content-length") or 0)
        body = self.rfile.read(length)
        # A client that was killed in the middle of a request has not made it.
        if len(body) < length:
            raise ConnectionAbortedError
        return unquote(parts.path), parts.query, body

    def _head(self, answer: Answer, **more: str) -> None:
        self.wfile.write(self._heading(answer, **more))

    def _heading(self, answer: Answer, **more: str) -> bytes:
        reason = self.responses.get(answer.status, ("",))[0]
        lines = [f"HTTP/1.1 {answer.status} {reason}"]
        fields = {**answer.headers, **{name.replace("_", "-"): value for name, value in more.items()}}
        lines += [f"{name}: {value}" for name, value in fields.items()]
        return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1")

    def _send(self, answer: Answer) -> None:
        connection = "close" if self.close_connection else "keep-alive"
        self._head(answer, Content_Length=str(len(answer.body)), Connection=connection)
        self.wfile.write(answer.body)
        self.wfile.flush()


class ApiServer(_Server):
    """Stripe's API."""

    def __init__(
        self, address: tuple[str, int], service: Service, perform: Perform, tls: ssl.SSLContext | None = None
    ) -> None:
        self.service = service
        self.perform = perform
        self.tls = tls
        self.handshakes = 0
        super().__init__(address)

    def converse(self, request: socket.socket, client_address: Any, number: int) -> None:
        with self.service.world.lock:
            fault = self.service.world.faults.take_connection()
        if fault is not None:
            self.wait_for_hangup(request)
            return
        if self.tls is None:
            _ApiHandler(request, client_address, self, number)
            return
        # In this thread, so that a client that stalls its handshake holds up nobody else.
        with self.tls.wrap_socket(request.dup(), server_side=True) as secured:
            with self._guard:
                self.handshakes += 1
            _ApiHandler(secured, client_address, self, number)


class _ApiHandler(_Handler):
    def __init__(self, request: Any, client_address: Any, server: ApiServer, number: int) -> None:
        self.number = number
        self.owner = server
        super().__init__(request, client_address, server)

    def _serve(self) -> None:
        path, query, body = self._read()
        if path.startswith(CONTROL):
            self._send(controlled(self.owner.perform, path, body))
            return
        headers = {name.lower(): value for name, value in self.headers.items()}
        answer = self.owner.service.answer(self.command, path, query, headers, body, self.number)
        _SENDERS.get(answer.fault.kind, _ApiHandler._send)(self, answer)

    do_GET = do_POST = do_DELETE = do_PUT = do_PATCH = do_HEAD = _serve

    def _drop(self, answer: Answer) -> None:
        self.close_connection = True
        if answer.fault.style == "reset":
            self._reset()

    def _reset(self) -> None:
        # Lingering for no time makes the kernel send RST instead of FIN.
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))

    def _silent(self, answer: Answer) -> None:
        self.close_connection = True
        self.owner.wait_for_hangup(self.connection)

    def _half(self, answer: Answer) -> None:
        self.close_connection = True
        self._head(answer, Content_Length=str(len(answer.body)))
        self.wfile.write(answer.body[: len(answer.body) // 2])
        self.wfile.flush()
        if answer.fault.style == "reset":
            self._reset()

    def _drip(self, answer: Answer) -> None:
        fault = answer.fault
        head, rest = self._heading(answer, Content_Length=str(len(answer.body))), answer.body
        if fault.style == "head":
            head, rest = b"", head + rest
        self.wfile.write(head)
        for start in range(0, len(rest), fault.bytes):
            self.wfile.write(rest[start : start + fault.bytes])
            self.wfile.flush()
            if self.owner.stopping.wait(fault.seconds):
                break

    def _endless(self, answer: Answer) -> None:
        self.close_connection = True
        chunk = b" " * 16384
        if answer.fault.style == "head":
            self.wfile.write(b"HTTP/1.1 200 OK\r\n")
            while not self.owner.stopping.is_set():
                self.wfile.write(b"X-Padding: " + b"x" * 1000 + b"\r\n")
        if answer.fault.style == "length":
            self._head(answer, Content_Length=str(10**12))
        else:
            self._head(answer, Transfer_Encoding="chunked")
            chunk = b"4000\r\n" + chunk + b"\r\n"
        while not self.owner.stopping.is_set():
            self.wfile.write(chunk)

    def _junk(self, answer: Answer) -> None:
        answer.body = junk(answer.fault.style or "html", answer.body)
        if answer.fault.style in ("", "html"):
            answer.headers["Content-Type"] = "text/html"
        self._send(answer)

    def _garbled(self, answer: Answer) -> None:
        self.close_connection = True
        if answer.fault.style == "chunks":
            self._head(answer, Transfer_Encoding="chunked")
            self.wfile.write(b"many\r\n" + answer.body)
        elif answer.fault.style == "status":
            self.wfile.write(b"HTTP/1.1 9999 Splendid\r\nContent-Length: 2\r\n\r\n{}")
        else:
            self.wfile.write(b"SSH-2.0-OpenSSH_9.2\r\n")
        self.wfile.flush()

    def _provisional(self, answer: Answer) -> None:
        self.close_connection = True
        while not self.owner.stopping.wait(answer.fault.seconds):
            self.wfile.write(b"HTTP/1.1 103 Early Hints\r\nLink: </>; rel=preconnect\r\n\r\n")
            self.wfile.flush()

    def _wrong_length(self, answer: Answer) -> None:
        longer = answer.fault.style == "longer"
        self._head(answer, Content_Length=str(len(answer.body) + (10 if longer else -10)))
        self.wfile.write(answer.body)
        self.wfile.flush()
        if longer:
            self._silent(answer)


_SENDERS: dict[str, Callable[[_ApiHandler, Answer], None]] = {
    "drop": _ApiHandler._drop,
    "drip": _ApiHandler._drip,
    "endless": _ApiHandler._endless,
    "garbled": _ApiHandler._garbled,
    "half": _ApiHandler._half,
    "junk": _ApiHandler._junk,
    "provisional": _ApiHandler._provisional,
    "silent": _ApiHandler._silent,
    "wrong_length": _ApiHandler._wrong_length,
}


def _mistyped(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _mistyped(below) for key, below in value.items()}
    if isinstance(value, list):
        return {"data": value}
    if isinstance(value, str):
        return len(value)
    return str(value) if isinstance(value, (bool, int)) else []


def junk(style: str, body: bytes) -> bytes:
    """What a proxy or a bug sends in place of a body."""
    if style == "html":
        return b"<html><body><h1>502 Bad Gateway</h1></body></html>"
    if style == "truncated":
        return body[: len(body) // 2]
    if style == "empty":
        return b""
    if style == "list":
        return b"[1, 2, 3]"
    if style == "deep":
        return b'{"id":' + b"[" * 100000 + b"]" * 100000 + b"}"
    if style == "huge":
        return json.dumps({**json.loads(body), "padding": "x" * (8 << 20)}).encode()
    if style == "binary":
        return bytes(range(256))
    if style == "file":
        return b'{"id": "file_1", "object": "file", "created": 1}'
    if style == "types":
        return json.dumps(_mistyped(json.loads(body))).encode()
    raise ValueError("no such junk: " + style)


class ControlServer(_Server):
    """The fake's own remote control: `POST /_fake/<action>` with JSON arguments."""

    def __init__(self, address: tuple[str, int], perform: Perform) -> None:
        self.perform = perform
        super().__init__(address)

    def converse(self, request: socket.socket, client_address: Any, number: int) -> None:
        _ControlHandler(request, client_address, self)


class _ControlHandler(_Handler):
    server: ControlServer

    def _serve(self) -> None:
        path, _, body = self._read()
        self._send(controlled(self.server.perform, path, body))

    do_GET = do_POST = _serve


def controlled(perform: Perform, path: str, body: bytes) -> Answer:
    """Perform the action that a path names."""
    try:
        if not path.startswith(CONTROL):
            raise LookupError("the control API is under " + CONTROL)
        status, result = 200, perform(path[len(CONTROL) :].strip("/") or "help", json.loads(body or b"{}"))
    except Exception as error:  # Whatever a script did wrong, it is told.
        status, result = 400, {"error": f"{type(error).__name__}: {error}"}
    return Answer(status, {"Content-Type": "application/json; charset=utf-8"}, encoded(result))


def make_certificate(directory: Path, flaw: str = "") -> tuple[Path, ssl.SSLContext]:
    """A private CA and a certificate of it for this machine: the CA's file, and what a server needs.

    Two certificates, because rustls does not accept a trust anchor as a server's own certificate.
    The flaw is that it is `expired`, or for a server `elsewhere`.
    """
    names = {"elsewhere": "DNS:stripe.example"}.get(flaw, "DNS:localhost,IP:127.0.0.1,IP:0:0:0:0:0:0:0:1")
    days = {"expired": "-1"}.get(flaw, "30")

    def openssl(*arguments: str) -> None:
        subprocess.run(
            ["openssl", *arguments], check=True, cwd=directory, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
        )

    key = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
    (directory / "ca.cnf").write_text(
        "[req]\ndistinguished_name=dn\nx509_extensions=ca\nprompt=no\n[dn]\nCN=Fake Stripe CA\n"
        "[ca]\nbasicConstraints=critical,CA:true\nkeyUsage=critical,keyCertSign\nsubjectKeyIdentifier=hash\n"
    )
    (directory / "leaf.cnf").write_text(
        "basicConstraints=CA:false\nkeyUsage=digitalSignature\nextendedKeyUsage=serverAuth\n"
        f"subjectAltName={names}\n"
    )
    openssl("req", "-x509", *key, "-keyout", "ca.key", "-out", "ca.pem", "-days", "30", "-config", "ca.cnf")
    openssl("req", "-new", *key, "-keyout", "leaf.key", "-out", "leaf.csr", "-subj", "/CN=localhost")
    openssl(
        *("x509", "-req", "-in", "leaf.csr", "-CA", "ca.pem", "-CAkey", "ca.key", "-set_serial", str(time.time_ns())),
        *("-out", "leaf.pem", "-days", days, "-sha256", "-extfile", "leaf.cnf"),
    )
    # A Postgres server under another user reads the CA through SSL_CERT_FILE.
    directory.chmod(0o755)
    (directory / "ca.pem").chmod(0o644)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(directory / "leaf.pem", directory / "leaf.key")
    return directory / "ca.pem", context
