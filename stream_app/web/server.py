"""Faust's web server with a socket of ours and our pages instead of Faust's own.

The socket is bound before anything starts: a taken port is one line, and port 0 means a free one.
"""

from __future__ import annotations

import errno
import logging
import socket
from typing import TYPE_CHECKING, Any, ClassVar

from aiohttp.web import BaseSite, SockSite
from faust.web.drivers.aiohttp import Web

from stream_app.errors import StartError

if TYPE_CHECKING:
    from stream_app.web.pages import Pages

log = logging.getLogger("stream_app.web")


def bound_socket(host: str, port: int) -> socket.socket:
    """A listening address of ours; port 0 means a free one. Raises StartError, naming the setting."""
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        bound = socket.socket(family, kind, protocol)
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        bound.bind(address)
    except OSError as error:
        taken = error.errno == errno.EADDRINUSE
        why = "is taken" if taken else f"cannot be had ({error.strerror or error})"
        raise StartError(
            f"port {port} on {host} {why}",
            advice="set another [web] port, or 0 for a free one" if taken else "correct [web] host and port",
        ) from error
    return bound


class ShuntWeb(Web):
    """The worker's web server. Faust's index, router and table pages are left out: they would tell internals."""

    logger = logging.getLogger("faust.web")
    default_blueprints: ClassVar[Any] = ()
    production_blueprints: ClassVar[Any] = ()
    debug_blueprints: ClassVar[Any] = ()
    optional_blueprints: ClassVar[Any] = ()

    def __init__(self, app: Any, pages: Pages, bound: socket.socket | None = None, **kwargs: Any) -> None:
        super().__init__(app, **kwargs)
        self._pages = pages
        self._socket = bound

    def bind(self) -> None:
        """Take the port. Raises StartError, naming the setting, where it cannot be had."""
        conf = self.app.conf
        if not conf.web_enabled:
            return
        if self._socket is not None and self._socket.getsockname()[1] != conf.web_port:
            self._socket.close()  # `faust worker -p` asked for another one than the settings
            self._socket = None
        if self._socket is None:
            self._socket = bound_socket(conf.web_bind, conf.web_port)

    def init_server(self) -> None:
        """Our routes first; pages of the user's own beside them."""
        self._pages.add_to(self.web_app)
        super().init_server()

    def _new_transport_tcp(self) -> BaseSite:
        self.bind()
        if self._socket is None:
            raise StartError("the web server is switched off")
        log.info("web server on http://%s:%s", self.app.conf.web_bind, self.app.conf.web_port)
        return SockSite(self._runner, self._socket)
