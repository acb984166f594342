"""HTTP between the client and our Hub: requests in, answers out, and the faults in between."""

import contextlib
import json
import socket
import struct
import time
from http.server import BaseHTTPRequestHandler

from tests.helpers.hub.faults import Alter, Answer, Cut, Drop, Hang, RefusedError, Stall


def handler(hub):
    """The class that serves `hub`."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True

        def handle_one_request(self):
            with contextlib.suppress(ConnectionError):  # the client went away
                super().handle_one_request()

        def log_message(self, *_):
            pass

        def _serve(self):
            headers = {key.lower(): value for key, value in self.headers.items()}
            body = self._body(headers)
            if self.path == "/api/agent-harnesses":  # asked once a day, whatever is called
                return self._send(Answer(404))
            request = hub.note(self.command, self.path, headers, body)
            fault = hub.fault(request)
            if isinstance(fault, Answer):
                return self._send(fault)
            if isinstance(fault, Hang):
                time.sleep(fault.seconds)
                return self._break()
            if fault == Drop():
                return self._break()
            try:
                answer = hub.answer(request)
            except RefusedError as refused:
                answer = refused.answer
            if isinstance(fault, Drop):
                return self._break()
            if isinstance(fault, Alter) and answer.status in (200, 206):
                answer = Answer(answer.status, answer.headers, fault.change(answer.body))
            if isinstance(fault, Stall):
                return self._send(answer, len(answer.body) // 2, fault.seconds)
            return self._send(answer, fault.bytes if isinstance(fault, Cut) else None)

        do_GET = do_HEAD = do_POST = do_PUT = _serve  # noqa: N815 http.server's names

        def _body(self, headers):
            if headers.get("transfer-encoding", "").lower() != "chunked":
                return self.rfile.read(int(headers.get("content-length", 0)))
            body = b""
            while size := int(self.rfile.readline(), 16):
                body += self.rfile.read(size)
                self.rfile.readline()
            self.rfile.readline()
            return body

        def _send(self, answer, cut=None, seconds=0):
            body = answer.body if isinstance(answer.body, bytes) else json.dumps(answer.body).encode()
            self.send_response(answer.status)
            for key, value in answer.headers.items():
                self.send_header(key, value)
            if not isinstance(answer.body, bytes):
                self.send_header("Content-Type", "application/json")
            if "Content-Length" not in answer.headers:
                self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(body if cut is None else body[:cut])
                if cut is not None and cut < len(body):
                    self.wfile.flush()
                    time.sleep(seconds)
                    self._break(reset=False)

        def _break(self, *, reset=True):
            """Close without an answer; a reset, or the end of what was sent."""
            if reset:  # linger for 0 seconds: the client sees a reset at once
                self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self.close_connection = True
            with contextlib.suppress(OSError):
                self.connection.shutdown(socket.SHUT_RDWR)

    return Handler
