"""CURVE and ZAP on a real hub's tcp sockets: who has a key that is let in hears everything, nobody else hears anything."""

from __future__ import annotations

import json
import socket
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import zmq

from vedette.streamer import subscribe
from vedette.streamer.bench._hub import HubProcess, numbered_event
from vedette.streamer.cli import main
from vedette.streamer.client import Subscription
from vedette.streamer.errors import ConfigError
from vedette.streamer.eventlink import EventLink
from vedette.streamer.keys.curve import ClientKeys, secure_server
from vedette.streamer.keys.door import Door, Doors
from vedette.streamer.keys.doorman import Doorman
from vedette.streamer.keys.folder import KeyFolder, Pair, new_pair


def free_endpoint() -> str:
    """A loopback address nobody uses now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return f"tcp://127.0.0.1:{probe.getsockname()[1]}"


def until(condition: Callable[[], object], within_s: float = 15.0) -> None:
    """Wait for a condition."""
    deadline = time.monotonic() + within_s
    while not condition():
        assert time.monotonic() < deadline, "the condition did not come true"
        time.sleep(0.01)


class Site:
    """A hub that asks for keys, its folder, and the producer's end of its events."""

    def __init__(self, folder: Path) -> None:
        self.keys = KeyFolder(folder / "keys")
        self.keys.create()
        self.log = (folder / "hub.log").open("w+")
        alerts = {
            "publish": free_endpoint(),
            "replay": free_endpoint(),
            "curve": {"keys": str(self.keys.path)},
        }
        self.hub = HubProcess(folder / "store", alerts=alerts, stderr=self.log).start()
        self.link = EventLink(self.hub.events, "infer", "boot-1")
        self._number = 0

    def let_in(self, name: str) -> Pair:
        """A subscriber of that name."""
        pair = new_pair()
        self.keys.add(name, pair.public)
        return pair

    def raise_alerts(self, count: int) -> None:
        """Commit some alerts."""
        for _ in range(count):
            self._number += 1
            self.link.send(numbered_event(self._number))
        assert self.link.drain(10)

    def subscribe(self, pair: Pair, since: int | None = 0) -> Subscription:
        """A subscriber with its keys."""
        server = self.keys.server().public
        return subscribe(
            self.hub.publish, replay=self.hub.replay, since=since, server_key=server, secret_key=pair.secret
        )

    def logged(self) -> str:
        """What the hub said."""
        return Path(self.log.name).read_text()

    def close(self) -> None:
        """Everything ends."""
        self.link.close()
        self.hub.close()
        self.log.close()


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """One site for all tests of this file."""
    made = Site(tmp_path_factory.mktemp("site"))
    yield made
    made.close()


def seqs(subscription: Subscription, count: int) -> list[int]:
    """The next seqs."""
    got = []
    for _ in range(count):
        alert = subscription.next(15.0)
        assert alert is not None, f"only {got} came; replays={subscription.replays}"
        got.append(alert["seq"])
    return got


def heard(keys: ClientKeys | None, publish: str, replay: str | None = None) -> list[bytes]:
    """What a raw client is told within the time of a status message: by the publisher, and as an answer."""
    with zmq.Context() as context, context.socket(zmq.SUB) as listener, context.socket(zmq.DEALER) as asker:
        for client, endpoint in ((listener, publish), (asker, replay)):
            client.setsockopt(zmq.LINGER, 0)
            if endpoint is not None:
                if keys is not None:
                    keys.secure(client, endpoint)
                client.connect(endpoint)
        listener.subscribe("")
        if replay is not None:
            asker.send(b'{"from": 0}')
        poller = zmq.Poller()
        poller.register(listener, zmq.POLLIN)
        poller.register(asker, zmq.POLLIN)
        return [found.recv() for found, _ in poller.poll(1500)]


def test_a_key_that_is_let_in_hears_the_past_and_the_present(site: Site) -> None:
    """Replay and live alerts come through the encrypted sockets, each once, in order."""
    pair = site.let_in("wall")
    first = _last(site)
    site.raise_alerts(3)
    with site.subscribe(pair, since=first) as subscription:
        assert seqs(subscription, 3) == [first + 1, first + 2, first + 3]
        site.raise_alerts(2)
        assert seqs(subscription, 2) == [first + 4, first + 5]


def _last(site: Site) -> int:
    return site.link.counters["acked"]


def test_nobody_else_hears_anything(site: Site) -> None:
    """Neither the publish nor the replay address tells a word to a plain client, to a key that is not in the
    folder, or to one that takes another site for this one."""
    site.raise_alerts(1)
    stranger = new_pair()
    clients = [
        None,
        ClientKeys(site.keys.server().public, stranger.secret),
        ClientKeys(new_pair().public, site.let_in("misled").secret),
    ]
    with ThreadPoolExecutor(len(clients)) as pool:
        assert list(pool.map(lambda keys: heard(keys, site.hub.publish, site.hub.replay), clients)) == [[], [], []]
    assert stranger.public in site.logged()
    assert stranger.secret not in site.logged()


@pytest.mark.slow
def test_a_key_let_in_later_works_without_a_restart_of_either_end(site: Site) -> None:
    """A subscriber that waits outside comes in by itself once `vedette keys new` let its key in."""
    pair = new_pair()
    first = _last(site)
    site.raise_alerts(2)
    with site.subscribe(pair, since=first) as subscription:
        assert subscription.next(1.0) is None
        site.keys.add("late", pair.public)
        assert seqs(subscription, 2) == [first + 1, first + 2]


def test_a_revoked_key_hears_no_more_and_nobody_else_loses_an_alert(site: Site, capsys: pytest.CaptureFixture) -> None:
    """`vedette keys revoke` ends the living connections of the key within seconds; the others are back by themselves
    and have every alert once, also those raised while the doors were opened anew."""
    gone, stays = site.let_in("gone"), site.let_in("stays")
    first = _last(site)
    with site.subscribe(gone, since=first) as lost, site.subscribe(stays, since=first) as kept:
        site.raise_alerts(1)
        assert seqs(lost, 1) == seqs(kept, 1) == [first + 1]
        opened = site.logged().count("is open again")
        assert main(["keys", "revoke", "gone", "--dir", str(site.keys.path)]) == 0
        until(lambda: site.logged().count("is open again") == opened + 2)
        site.raise_alerts(20)
        assert seqs(kept, 20) == list(range(first + 2, first + 22))
        assert lost.next(2.0) is None
    assert "gone is let in no more" in capsys.readouterr().out


def test_who_came_and_who_was_refused_is_counted(site: Site) -> None:
    """status.hub tells both numbers; nothing secret stands in the hub's log."""
    pair = site.let_in("counts")
    client = ClientKeys(site.keys.server().public, pair.secret)
    with zmq.Context() as context, context.socket(zmq.SUB) as socket_:
        socket_.setsockopt(zmq.LINGER, 0)
        client.secure(socket_, site.hub.publish)
        socket_.connect(site.hub.publish)
        socket_.subscribe("status.hub")
        assert socket_.poll(10_000)
        counters = json.loads(socket_.recv_multipart()[1])["counters"]
    assert counters["curve_accepted"] > 0
    assert site.keys.server().secret not in site.logged()


def test_watch_takes_keys_from_files(site: Site, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    """What `vedette keys new` wrote is what `vedette watch --key --server-key` takes; status comes too."""
    key = tmp_path / "phone.key"
    assert main(["keys", "new", "phone", "--dir", str(site.keys.path), "--out", str(key)]) == 0
    site.raise_alerts(1)
    where = [site.hub.publish, "--key", str(key), "--server-key", str(site.keys.path / "server.pub")]
    assert main(["watch", *where, "--from", str(_last(site) - 1), "--count", "1"]) == 0
    assert f"#{_last(site)}" in capsys.readouterr().out
    where[-1] = site.keys.server().public
    assert main(["watch", *where, "--topic", "status", "--count", "1"]) == 0
    assert "status.hub" in capsys.readouterr().out


def test_a_dead_doorman_lets_nobody_in() -> None:
    """It fails closed: when the ZAP handler is gone even a known key stays outside."""
    site, client = new_pair(), new_pair()
    with zmq.Context() as context, context.socket(zmq.PUB) as publisher:
        publisher.setsockopt(zmq.LINGER, 0)
        secure_server(publisher, site)
        port = publisher.bind_to_random_port("tcp://127.0.0.1")
        assert heard(ClientKeys(site.public, client.secret), f"tcp://127.0.0.1:{port}") == []


@pytest.mark.slow
def test_the_doorman_follows_his_folder(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A file that holds no key harms nobody else, and a folder that went away closes the doors, both said once."""
    folder = KeyFolder(tmp_path / "keys")
    folder.create()
    pair = new_pair()
    folder.add("one", pair.public)
    with zmq.Context() as context, context.socket(zmq.PUB) as publisher:
        publisher.setsockopt(zmq.LINGER, 0)
        doors = Doors()
        doorman = Doorman(context, folder, doors, Counter())
        try:
            door = Door(publisher, "tcp://127.0.0.1:*", "alerts.publish", doors)
            client = ClientKeys(folder.server().public, pair.secret)
            (folder.path / "allowed" / "two.pub").write_text("no key")
            assert not _silent(publisher, door, client)
            assert caplog.text.count("two.pub") == 1
            (folder.path / "allowed").rename(tmp_path / "away")
            until(lambda: doors.orders == 1)
            door.tend()
            assert _silent(publisher, door, client)
            assert "nobody is let in" in caplog.text
            (tmp_path / "away").rename(folder.path / "allowed")
            assert not _silent(publisher, door, client)
        finally:
            doorman.stop()


def _silent(publisher: zmq.Socket[bytes], door: Door, keys: ClientKeys) -> bool:
    """Whether nothing arrives although something is said all the time."""
    with zmq.Context() as context, context.socket(zmq.SUB) as client:
        client.setsockopt(zmq.LINGER, 0)
        keys.secure(client, door.endpoint)
        client.connect(door.endpoint)
        client.subscribe("")
        deadline = time.monotonic() + 1.5
        while time.monotonic() < deadline:
            door.tend()
            publisher.send(b"x")
            if client.poll(10):
                return False
    return True


def test_a_port_taken_while_the_doors_are_shut_is_waited_for(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """tend() neither blocks nor gives up: it says so once and opens as soon as the address is free."""
    folder = KeyFolder(tmp_path / "keys")
    folder.create()
    with zmq.Context() as context, context.socket(zmq.PUB) as publisher, socket.socket() as thief:
        doors = Doors()
        doorman = Doorman(context, folder, doors, Counter())
        try:
            door = Door(publisher, "tcp://127.0.0.1:*", "alerts.publish", doors)
            publisher.unbind(door.endpoint)
            port = int(door.endpoint.rpartition(":")[2])
            until(lambda: not _taken(port))
            thief.bind(("127.0.0.1", port))
            thief.listen()
            door._shut = True
            for _ in range(3):
                door.tend()
            assert caplog.text.count("cannot be bound") == 1
            thief.close()
            until(lambda: door.tend() or not door._shut)
            assert _taken(port)
        finally:
            doorman.stop()


def _taken(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


@pytest.mark.parametrize("server_key", [None, "x" * 40, "short", "\u00e9" * 40, "~" * 40])
def test_subscribe_refuses_keys_that_are_none(server_key: str | None) -> None:
    """A typing error is said at once, and the secret is not part of the sentence."""
    secret = new_pair().secret
    if server_key == "x" * 40:
        server_key, secret = new_pair().public, secret[:-1]
    with pytest.raises(ConfigError) as caught:
        subscribe("tcp://127.0.0.1:1", server_key=server_key, secret_key=secret)
    assert secret not in str(caught.value)


@pytest.mark.slow
def test_a_hub_without_its_keys_does_not_start(tmp_path: Path) -> None:
    """alerts.curve names a folder that is not there: exit 2 and the command that makes it; never an open door."""
    log = (tmp_path / "log").open("w+")
    alerts = {"publish": free_endpoint(), "curve": {"keys": str(tmp_path / "none")}}
    hub = HubProcess(tmp_path / "store", alerts=alerts, stderr=log)
    hub.start(wait_s=0)
    assert hub.process.wait(20) == 2
    (failed,) = [beat for beat in hub.beats() if beat["state"] == "failed"]
    assert "vedette keys new" in failed["error"]
    hub.close()
    log.close()
