"""urllib3's connections, whose sockets we know and can end. Imported when the first request is made: it takes time."""

import http.client
import io
import socket
from typing import Any

from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.connectionpool import HTTPConnectionPool, HTTPSConnectionPool
from urllib3.exceptions import ConnectTimeoutError, NameResolutionError, NewConnectionError

from kpy.util.pace import Pace, PacedReader
from kpy.util.sockets import Sockets


def pools_of(sockets: Sockets, *, verify: bool, pace: Pace) -> dict[str, Any]:
    """urllib3's pools, of connections whose sockets we know, and whose answers, headers too, come at this pace."""

    class Answer(http.client.HTTPResponse):
        def __init__(self, sock: socket.socket, *args: Any, **more: Any) -> None:
            super().__init__(sock, *args, **more)
            self.fp = io.BufferedReader(PacedReader(self.fp.detach(), pace))

    def connected(connection: HTTPConnection) -> socket.socket:
        timeout, options = connection.timeout, list(connection.socket_options or ())
        try:
            seconds = timeout if isinstance(timeout, int | float) else None
            return sockets.connect(connection.host, connection.port, seconds, options)
        except socket.gaierror as error:
            raise NameResolutionError(connection.host, connection, error) from error
        except TimeoutError as error:
            raise ConnectTimeoutError(connection, "timed out") from error
        except OSError as error:
            raise NewConnectionError(connection, str(error)) from error

    class Plain(HTTPConnection):
        response_class = Answer

        def _new_conn(self) -> socket.socket:
            return connected(self)

    class Secure(HTTPSConnection):
        response_class = Answer

        def _new_conn(self) -> socket.socket:
            return connected(self)

        def connect(self) -> None:
            super().connect()
            if self.sock is not None:
                sockets.add(self.sock)  # TLS took the place of the one that was connected
            if not verify:
                self.is_verified = True  # asked for by the user: urllib3 need not warn at each request

    class PlainPool(HTTPConnectionPool):
        ConnectionCls = Plain

    class SecurePool(HTTPSConnectionPool):
        ConnectionCls = Secure

    return {"http": PlainPool, "https": SecurePool}
