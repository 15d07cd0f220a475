"""Alerts published to an MQTT broker: ``<prefix>/alert/<camera>/<kind>``, QoS 1, plain JSON.

``<prefix>/available`` is ``online``, and ``offline`` by the broker's hand when we are gone (retained last will).
An alert counts as delivered when the broker acknowledged it. Needs the extra ``mqtt``.
"""

from __future__ import annotations

import logging
import ssl
import threading
import time
from collections.abc import Sequence
from typing import Annotated, Any, Literal

from pydantic import Field

from vedette.streamer.errors import SinkError
from vedette.streamer.outbox.records import Stored
from vedette.streamer.sinks.base import Place, SinkConfig

log = logging.getLogger("vedette.sinks.mqtt")

ONLINE, OFFLINE = b"online", b"offline"


class MqttConfig(SinkConfig):
    """host, port: the broker. prefix: first level of every topic. tls: true for the system's certificates; ca: a
    file of your own. timeout: seconds to connect and to wait for an acknowledgement."""

    kind: Literal["mqtt"] = "mqtt"
    host: Annotated[str, Field(min_length=1, max_length=255)]
    port: Annotated[int, Field(ge=1, le=65535)] = 1883
    prefix: Annotated[str, Field(pattern=r"^[A-Za-z0-9_.-]+(/[A-Za-z0-9_.-]+)*$", max_length=128)] = "vedette"
    username: str | None = None
    password: str | None = None
    client_id: Annotated[str, Field(pattern=r"^[A-Za-z0-9_.-]{1,64}$")] | None = None
    tls: bool = False
    ca: str | None = None
    timeout: Annotated[float, Field(gt=0, le=60)] = 5.0

    def connect(self, place: Place) -> MqttSink:
        """Connect to the broker. Raises SinkError."""
        return MqttSink(self, place)


class MqttSink:
    """One connection; a lost one is an error of the next delivery, and the runner connects again."""

    def __init__(self, config: MqttConfig, place: Place) -> None:
        try:
            from paho.mqtt import client as paho
        except ImportError as error:
            raise SinkError("mqtt: paho-mqtt is not installed; pip install 'vedette[mqtt]'") from error
        self._config = config
        self._connected = threading.Event()
        self._why = "no answer"
        self._client: Any = paho.Client(
            paho.CallbackAPIVersion.VERSION2,
            client_id=config.client_id or f"vedette-{place.site}-{config.title()}"[:64],
            reconnect_on_failure=False,
        )
        self._client.max_inflight_messages_set(100)
        self._client.on_connect = self._on_connect
        self._client.on_disconnect = self._on_disconnect
        if config.username is not None:
            self._client.username_pw_set(config.username, config.password)
        self._availability = f"{config.prefix}/available"
        self._client.will_set(self._availability, OFFLINE, qos=1, retain=True)
        self._open()

    def _open(self) -> None:
        config = self._config
        try:
            if config.tls or config.ca:
                self._client.tls_set_context(ssl.create_default_context(cafile=config.ca))
            self._client.connect_timeout = config.timeout
            self._client.connect(config.host, config.port, keepalive=15)
        except (OSError, ValueError) as error:
            raise SinkError(f"mqtt: {config.host}:{config.port}: {error}") from error
        self._client.loop_start()
        if not self._connected.wait(config.timeout):
            self.close()
            raise SinkError(f"mqtt: {config.host}:{config.port}: {self._why}")
        self._client.publish(self._availability, ONLINE, qos=1, retain=True)

    def _on_connect(self, _client: Any, _data: Any, _flags: Any, reason: Any, _properties: Any) -> None:
        if reason.is_failure:
            self._why = str(reason)
        else:
            self._connected.set()

    def _on_disconnect(self, _client: Any, _data: Any, _flags: Any, reason: Any, _properties: Any) -> None:
        self._why = str(reason)
        self._connected.clear()

    def deliver(self, alerts: Sequence[Stored]) -> int:
        """Publish them all, then wait for the broker's acknowledgements in order. Raises SinkError."""
        sent = [
            self._client.publish(f"{self._config.prefix}/alert/{alert.camera}/{alert.kind}", alert.body, qos=1)
            for alert in alerts
        ]
        deadline = time.monotonic() + self._config.timeout
        for done, message in enumerate(sent):
            problem = self._wait(message, deadline)
            if problem is not None:
                self.close()  # what is not acknowledged is published again on the next connection
                if done:
                    return done
                raise SinkError(f"mqtt: not acknowledged: {problem}")
        return len(sent)

    def _wait(self, message: Any, deadline: float) -> str | None:
        """None when the broker acknowledged the message before the deadline, else why not."""
        try:
            while not message.is_published():
                if not self._connected.is_set() or time.monotonic() > deadline:
                    return self._why
                message.wait_for_publish(0.1)
        except (RuntimeError, ValueError) as error:  # paho: it was published while there was no connection
            return f"{self._why}: {error}"
        return None

    def refused(self) -> int:
        """A broker refuses nothing for good."""
        return 0

    def close(self) -> None:
        """Say offline when there is somebody to say it to, and disconnect."""
        if self._connected.is_set():
            goodbye = self._client.publish(self._availability, OFFLINE, qos=1, retain=True)
            self._wait(goodbye, time.monotonic() + 0.5)
        self._client.disconnect()
        self._client.loop_stop()
        self._connected.clear()
