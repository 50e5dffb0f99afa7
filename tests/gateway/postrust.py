"""A gateway that runs: postrust, which speaks as PostgREST does (https://postrust.org)."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import os
import socket
import subprocess
import tempfile
import time
import urllib.error
import urllib.parse
import urllib.request
from pathlib import Path
from typing import Any, NamedTuple

from harness import toolchain
from harness.database import Database

SECRET = "a secret that is long enough for HMAC SHA-256"


class Response(NamedTuple):
    """What the gateway answered."""

    status: int
    headers: dict[str, str]
    body: Any


def token(role: str, sub: str | None = None) -> str:
    """A JWT for a role, as a sign-in service makes them (RFC 7519, HS256)."""
    claims = {"role": role, "exp": int(time.time()) + 600, **({"sub": sub} if sub else {})}
    parts = [_base64(json.dumps(part).encode()) for part in ({"alg": "HS256", "typ": "JWT"}, claims)]
    signature = hmac.new(SECRET.encode(), b".".join(parts), hashlib.sha256).digest()
    return b".".join([*parts, _base64(signature)]).decode()


def _base64(data: bytes) -> bytes:
    return base64.urlsafe_b64encode(data).rstrip(b"=")


class Postrust:
    """A gateway in front of a database, serving one schema, while the block runs."""

    def __init__(self, db: Database, schema: str, *, pool: int = 10, settings: dict[str, str] | None = None) -> None:
        self._db = db
        self._settings = {
            "PGRST_DB_SCHEMAS": schema,
            "PGRST_DB_POOL": str(pool),
            **(settings or {}),
        }

    def __enter__(self) -> Postrust:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        self.url = f"http://127.0.0.1:{port}"
        directory = urllib.parse.quote(str(self._db.cluster.directory), safe="")
        # A file, because a pipe that nobody reads would fill up.
        self._log = tempfile.TemporaryFile("w+")
        self._process = subprocess.Popen(
            [toolchain.TOOLS / "bin/postrust"],
            env={
                "PATH": os.defpath,
                "PGRST_DB_URI": f"postgres://authenticator@localhost/{self._db.name}?host={directory}&port=5432",
                "PGRST_DB_ANON_ROLE": "anon",
                "PGRST_DB_CHANNEL_ENABLED": "true",
                "PGRST_JWT_SECRET": SECRET,
                "PGRST_SERVER_HOST": "127.0.0.1",
                "PGRST_SERVER_PORT": str(port),
                # PostgREST's paths, and errors as Postgres words them.
                "PGRST_COMPAT_MODE": "true",
                **self._settings,
            },
            stdout=self._log,
            stderr=subprocess.STDOUT,
        )
        try:
            self._wait_until_it_listens(port)
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.wait()
        self._log.close()

    def log_text(self) -> str:
        """What it has logged."""
        self._log.seek(0)
        return self._log.read()

    def rpc(self, function: str, arguments: object = None, *, method: str = "POST", **options: Any) -> Response:
        """Calls a function, with its arguments as the JSON body; options as for `request`."""
        body = b"" if method == "GET" else json.dumps(arguments or {}).encode()
        return self.request(method, f"/rpc/{function}", body, **options)

    def request(
        self,
        method: str,
        path: str,
        body: bytes = b"",
        *,
        jwt: str | None = None,
        headers: dict[str, str] | None = None,
    ) -> Response:
        """One request, anonymous unless there is a JWT."""
        headers = {"Content-Type": "application/json", **(headers or {})}
        if jwt:
            headers["Authorization"] = f"Bearer {jwt}"
        request = urllib.request.Request(self.url + path, body or None, headers, method=method)
        # Proxies of the environment are not meant for this.
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        try:
            with opener.open(request, timeout=60) as answer:
                return self._response(answer.status, answer)
        except urllib.error.HTTPError as error:
            return self._response(error.code, error)

    @staticmethod
    def _response(status: int, answer: Any) -> Response:
        text = answer.read().decode()
        return Response(status, dict(answer.headers), json.loads(text) if text else None)

    def _wait_until_it_listens(self, port: int) -> None:
        deadline = time.monotonic() + 30
        while True:
            try:
                socket.create_connection(("127.0.0.1", port), timeout=1).close()
                return
            except OSError:
                if self._process.poll() is not None or time.monotonic() > deadline:
                    raise RuntimeError(f"postrust did not start:\n{self.log_text()}") from None
                time.sleep(0.02)
