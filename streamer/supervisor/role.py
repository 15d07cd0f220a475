"""The supervisor: spawn, watch, restart with backoff, reload, stop in order. It touches no picture and no alert store.

Start: hub, infer, then the captures once infer has told its input size. Stop: captures, infer (it drains), hub,
within 8 s. One loop over the heartbeat pipes and the signals; handlers only set flags.
"""

from __future__ import annotations

import logging
import os
import select
import signal
import time
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from random import Random
from types import FrameType

from vedette.streamer.config import Config, Loaded, load_config
from vedette.streamer.errors import ConfigError
from vedette.streamer.supervisor.environment import environment_faults
from vedette.streamer.supervisor.post import Death, Post
from vedette.streamer.supervisor.reload import Changes, capture_view, changes, fixed_faults, infer_view
from vedette.streamer.supervisor.reporter import Reporter
from vedette.streamer.supervisor.restart import Backoff, Policy
from vedette.streamer.supervisor.sdnotify import Notifier
from vedette.streamer.worker import Setup

log = logging.getLogger("vedette.supervisor")

#: The loop moves at least this often, seconds.
TICK_S = 0.1
#: A turn that took longer than this means that the supervisor itself was not running.
PAUSE_S = 1.0
#: What each group may take to stop before it is killed, seconds; together with slack they stay below 8 s.
STOP_ORDER = (("capture", 2.0), ("infer", 2.5), ("hub", 2.0))
_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
#: Stop signals closer together than this are one, seconds.
SAME_WISH_S = 0.25
#: Without hub or infer nobody is served: they are tried again sooner than a camera that is away.
ESSENTIAL = Policy(cap_s=5.0)
#: A capture that keeps crashing costs most of a second of CPU a start; ten seconds of life are health.
CAMERA = Policy(cap_s=10.0, healthy_s=10.0)
#: Exit codes that, at the first start, no restart will heal: a wrong configuration or store, no engine.
HOPELESS = (2, 3)


class Supervisor:
    """Runs one daemon from a checked configuration, in a run folder it owns.

    path: the file that SIGHUP loads again. targets: role -> ``module:function`` in place of the worker's own table.
    environment: variables added to every child's.
    """

    def __init__(
        self,
        loaded: Loaded,
        path: Path,
        run_dir: Path,
        *,
        targets: Mapping[str, str] | None = None,
        environment: Mapping[str, str] | None = None,
        notifier: Notifier | None = None,
    ) -> None:
        self.config = loaded.config
        self.posts: list[Post] = []
        self._secrets = loaded.secrets
        self._path = path
        self._run_dir = run_dir
        self._targets = dict(targets or {})
        self._environment = environment
        self._notifier = notifier or Notifier()
        self._random = Random(uuid.uuid4().int)
        self._reporter = Reporter(self.config, str(run_dir), uuid.uuid4().hex[:12])
        self._input_hw = self.config.engine.input_hw
        # starting is mostly computing: more at once than cores only makes everyone late
        self._most_starting = max(2, len(os.sched_getaffinity(0)))
        self._ticked_s: float | None = None
        self._ready = False
        self._fatal: tuple[int, str] | None = None
        self._stop_signals = 0
        self._stopped_s = float("-inf")
        self._hangups = 0

    def run(self) -> int:
        """Until told to stop. 0 stopped cleanly, 1 something had to be killed; ConfigError's 2 and EngineError's 3
        when the first start is hopeless."""
        with self._signals() as wakeup_fd:
            clean = False
            try:
                self._begin(time.monotonic())
                while not self._stop_signals and self._fatal is None:
                    self._wait(wakeup_fd, self.posts)
                    self._tick(time.monotonic())
            finally:
                clean = self._stop(wakeup_fd)
        if self._fatal is not None:
            code, sentence = self._fatal
            log.error("%s", sentence)
            return code
        return 0 if clean else 1

    # -- the loop ------------------------------------------------------------------------------------------------

    def _begin(self, now_s: float) -> None:
        self._notifier.status("starting")
        for role in ("hub", "infer"):
            self._add(role, role, now_s)

    def _tick(self, now_s: float) -> None:
        self._forgive_pause(now_s)
        for post in list(self.posts):
            death = post.tick(now_s, may_start=sum(p.starting for p in self.posts) < self._most_starting)
            if death is not None:
                self._mourn(post, death)
        if not self._ready and all(post.up for post in self.posts):
            self._open(now_s)
        self._resize(now_s)
        if self._hangups:
            self._hangups = 0
            self._reload(now_s)
        self._reporter.tick(self.posts, now_s)
        if all(self._moves(post, now_s) for post in self.posts if not post.camera):
            self._notifier.watchdog(now_s)
        self._notifier.status(self._status())

    def _open(self, now_s: float) -> None:
        """Hub and infer are up: man the cameras."""
        self._ready = True
        self._resize(now_s)
        for name in self.config.cameras:
            self._add("capture", name, now_s)
        self._reporter.follow(self.config, now_s)
        self._notifier.ready(self._status())
        log.info("ready: %d cameras", len(self.config.cameras))

    def _resize(self, now_s: float) -> None:
        """Give the captures the picture size that infer says it wants."""
        infer = self._post("infer", camera=False)
        told = infer.child.beat.get("input_hw") if infer is not None and infer.child is not None else None
        if not (isinstance(told, list) and len(told) == 2 and all(isinstance(x, int) and 0 < x <= 8192 for x in told)):
            return
        if tuple(told) != self._input_hw:
            self._input_hw = (told[0], told[1])
            for post in self.posts:
                if post.camera:
                    post.replace(self._setup("capture", post.name), now_s)

    def _forgive_pause(self, now_s: float) -> None:
        """A machine that slept, or a container that was paused, must not look like children that hang."""
        pause_s = 0.0 if self._ticked_s is None else now_s - self._ticked_s
        self._ticked_s = now_s
        if pause_s > PAUSE_S:
            log.warning("did not run for %.1f s; nobody's silence counts for that time", pause_s)
            for post in self.posts:
                if post.child is not None:
                    post.child.forgive(pause_s)

    def _mourn(self, post: Post, death: Death) -> None:
        if post.camera and death.wanted and post.name not in self.config.cameras:
            self.posts.remove(post)
        if not self._ready and not post.camera and not death.was_up and death.status in HOPELESS:
            sentence = death.sentence or f"{post.name} ended with exit {death.status} before it was up"
            self._fatal = (death.status or 1, sentence)

    def _moves(self, post: Post, now_s: float) -> bool:
        """Whether a post makes progress: its child speaks in time, or it waits to be started."""
        return post.child is None or not post.child.overdue(now_s)

    def _status(self) -> str:
        cameras = [post for post in self.posts if post.camera]
        streaming = sum(post.state == "streaming" for post in cameras)
        if not self._ready:
            return "starting: " + ", ".join(f"{post.name} {post.state}" for post in self.posts)
        return f"{streaming} of {len(cameras)} cameras streaming"

    def _wait(self, wakeup_fd: int, posts: list[Post]) -> None:
        poll = select.poll()
        poll.register(wakeup_fd, select.POLLIN)
        for post in posts:
            if post.child is not None and not post.child.deaf:
                poll.register(post.child.beat_fd, select.POLLIN)
        ready = dict(poll.poll(TICK_S * 1000))
        if wakeup_fd in ready:
            os.read(wakeup_fd, 4096)

    # -- posts ---------------------------------------------------------------------------------------------------

    def _add(self, role: str, name: str, now_s: float) -> None:
        backoff = Backoff(CAMERA if role == "capture" else ESSENTIAL, self._random)
        post = Post(self._setup(role, name), backoff, self._environment, self._secrets)
        post.man(now_s)
        self.posts.append(post)

    def _setup(self, role: str, name: str) -> Setup:
        config, secrets = self.config, self._secrets
        if role == "capture":
            config = capture_view(config, name)
            secrets = tuple(secret for secret in secrets if secret in config.cameras[name].source)
        elif role == "infer":
            config, secrets = infer_view(config), ()
        return Setup(
            role=role,
            name=name,
            boot="",  # every life has its own: Post fills it in
            run_dir=str(self._run_dir),
            config=config.model_dump(mode="json"),
            heartbeat_fd=-1,
            parent_pid=os.getpid(),
            input_hw=self._input_hw,
            secrets=secrets,
            target=self._targets.get(role),
        )

    def _post(self, name: str, *, camera: bool) -> Post | None:
        return next((p for p in self.posts if p.name == name and bool(p.camera) is camera), None)

    # -- reload --------------------------------------------------------------------------------------------------

    def _reload(self, now_s: float) -> None:
        if not self._ready:
            self._hangups = 1  # as soon as there is something to change
            return
        self._notifier.reloading()
        try:
            loaded = load_config(self._path)
            faults = [loaded.fault(*fault) for fault in fixed_faults(self.config, loaded.config)]
            faults += environment_faults(loaded, running=self.config)
            if faults:
                raise ConfigError(faults)
        except ConfigError as error:
            self._reporter.counters["reloads_refused"] += 1
            for problem in error.problems:
                log.error("reload: %s", problem)
            log.error("reload: the configuration is wrong; the one that runs stays")
        else:
            self._reporter.counters["reloads"] += 1
            self._secrets = loaded.secrets
            self._apply(changes(self.config, loaded.config), loaded.config, now_s)
        self._notifier.ready(self._status())

    def _apply(self, what: Changes, config: Config, now_s: float) -> None:
        log.info("reload: %s", what)
        if self.config.engine.input_hw != config.engine.input_hw:
            self._input_hw = config.engine.input_hw
        self.config = config
        self._reporter.follow(config, now_s)
        self._refit("hub", restart=what.hub, now_s=now_s)
        self._refit("infer", restart=what.infer == "restart", now_s=now_s)
        infer = self._post("infer", camera=False)
        if what.infer == "reload" and infer is not None and infer.child is not None:
            infer.child.send({"control": "reload", "config": infer.setup.config})
        for name in what.removed:
            self._dismiss(name, now_s)
        for name in what.added:
            self._add_camera(name, now_s)
        for name in config.cameras:
            post = self._post(name, camera=True)
            if post is not None and name in what.restarted:
                post.replace(self._setup("capture", name), now_s)
            elif post is not None:
                post.setup = self._setup("capture", name)

    def _refit(self, role: str, *, restart: bool, now_s: float) -> None:
        post = self._post(role, camera=False)
        assert post is not None
        if restart:
            post.replace(self._setup(role, role), now_s)
        else:
            post.setup = self._setup(role, role)  # its next life, whenever that begins, has the new configuration

    def _dismiss(self, name: str, now_s: float) -> None:
        post = self._post(name, camera=True)
        if post is None:
            return
        post.stop(now_s)
        if post.child is None:
            self.posts.remove(post)

    def _add_camera(self, name: str, now_s: float) -> None:
        post = self._post(name, camera=True)
        if post is None:
            self._add("capture", name, now_s)
        else:  # removed by the last reload and still on its way out
            post.replace(self._setup("capture", name), now_s)

    # -- the end -------------------------------------------------------------------------------------------------

    def _stop(self, wakeup_fd: int) -> bool:
        """Stop everything in order; whether nothing had to be killed. A second signal kills at once."""
        self._notifier.stopping()
        log.info("stopping")
        first = self._stop_signals
        clean = True
        for role, within_s in STOP_ORDER:
            posts = [post for post in self.posts if post.setup.role == role]
            if role == "hub" and self._ready and posts and posts[0].up and not self._forced(first):
                clean &= self._reporter.close(1.0)
            clean &= self._stop_group(posts, within_s, wakeup_fd, first)
        self._reporter.release()
        return clean

    def _stop_group(self, posts: list[Post], within_s: float, wakeup_fd: int, first: int) -> bool:
        now_s = time.monotonic()
        for post in posts:
            post.stop(now_s, within_s)
        clean = True
        while any(post.child is not None for post in posts):
            if self._forced(first):
                for post in posts:
                    post.kill()
            self._wait(wakeup_fd, posts)
            self._reporter.link.work()
            self._notifier.status("stopping")
            for post in posts:
                death = post.tick(time.monotonic())
                if death is not None and not death.clean:
                    log.warning("%s: did not stop cleanly", post.name)
                    clean = False
        return clean

    def _forced(self, first: int) -> bool:
        return self._stop_signals > max(first, 1)

    @contextmanager
    def _signals(self) -> Iterator[int]:
        """Flags for SIGTERM, SIGINT and SIGHUP; the loop wakes on them and on a child's death."""
        reader, writer = os.pipe()
        os.set_blocking(reader, False)
        os.set_blocking(writer, False)
        old_fd = signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
        for number in (*_SIGNALS, signal.SIGCHLD):
            signal.signal(number, self._on_signal)
        try:
            yield reader
        finally:
            for number in _SIGNALS:
                signal.signal(number, signal.SIG_IGN)  # the process ends now: no late signal may stop it tidying up
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            signal.set_wakeup_fd(old_fd)
            os.close(reader)
            os.close(writer)

    def _on_signal(self, number: int, _: FrameType | None) -> None:
        if number in (signal.SIGTERM, signal.SIGINT):
            # timeout(1), shells and service managers may signal both the process and its group: that is one wish
            again = time.monotonic() - self._stopped_s > SAME_WISH_S
            self._stopped_s = time.monotonic()
            self._stop_signals += again
        elif number == signal.SIGHUP:
            self._hangups += 1
