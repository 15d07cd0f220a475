#!/usr/bin/python3
"""A real RTSP server for tests and demonstrations: N H.264 mounts ``/cam0``, ``/cam1``... made cheaply.

Runs under Debian's own Python (packages gir1.2-gst-rtsp-server-1.0, python3-gi, gstreamer1.0-plugins-{base,good,bad,ugly},
gstreamer1.0-libav for files), never under the project's environment. A clip is encoded once at start and its access
units are replayed for ever on every mount, so that many cameras cost almost nothing. Prints one JSON line
``{"port": ..., "mounts": [...]}`` when clients may come; ends with SIGTERM, SIGINT or end of standard input
(``--stay`` ignores the latter).

Faults on purpose: ``--silent`` accepts connections and never answers (needs no GStreamer); ``--stall-after N`` sends N
pictures and then nothing while the connection stays; ``--freeze-after N`` goes on with the same picture for ever;
``--change-after N`` goes on with another size and rate in the same stream.
"""

import argparse
import json
import os
import select
import signal
import socket
import sys
import threading
import time


def parse_arguments():
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cameras", type=int, default=1, help="mounts /cam0 .. /camN-1 (default 1)")
    parser.add_argument("--file", action="append", default=[], help="video file; several are shared out to the mounts")
    parser.add_argument("--seconds", type=float, default=10.0, help="length of the loop (default 10)")
    parser.add_argument("--fps", type=float, default=15.0, help="pictures a second (default 15)")
    parser.add_argument("--size", default="640x360", help="WxH (default 640x360)")
    parser.add_argument("--keyframe", type=float, default=1.0, help="seconds between keyframes (default 1)")
    parser.add_argument("--kbit", type=int, default=1000, help="bitrate (default 1000)")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=8554, help="0 picks a free one")
    parser.add_argument("--user", help="ask for this user")
    parser.add_argument("--password", default="")
    parser.add_argument("--auth", choices=("basic", "digest"), default="digest", help="how (default digest)")
    parser.add_argument("--silent", action="store_true", help="accept and never answer")
    parser.add_argument("--stall-after", type=int, metavar="N", help="pictures, then silence")
    parser.add_argument("--freeze-after", type=int, metavar="N", help="pictures, then the same one for ever")
    parser.add_argument("--change-after", type=int, metavar="N", help="pictures, then --change-size at --change-fps")
    parser.add_argument("--change-size", default="320x180", help="WxH after the change (default 320x180)")
    parser.add_argument("--change-fps", type=float, default=5.0, help="pictures a second after the change (default 5)")
    parser.add_argument("--stay", action="store_true", help="do not end with standard input")
    return parser.parse_args()


def announce(port, mounts):
    """Tell whoever started us that clients may come."""
    print(json.dumps({"port": port, "mounts": mounts}), flush=True)


def wait_for_the_end(stay):
    """Return when standard input ends (the parent is gone), unless ``stay``."""
    while True:
        if stay:
            signal.pause()
        elif select.select([0], [], [], 3600)[0] and not os.read(0, 4096):
            return


def be_silent(args):
    """Accept every connection, keep it, answer nothing."""
    listener = socket.create_server((args.host, args.port))
    kept = []

    def accept():
        while True:
            kept.append(listener.accept()[0])

    threading.Thread(target=accept, daemon=True).start()
    announce(listener.getsockname()[1], [f"/cam{i}" for i in range(args.cameras)])
    wait_for_the_end(args.stay)


def encode(Gst, args, path, pattern, size, fps):
    """Access units of one clip, [(bytes, is_keyframe)], beginning with a keyframe."""
    width, height = (int(side) for side in size.split("x"))
    count = max(1, round(args.seconds * fps))
    rate = f"{round(fps * 1000)}/1000"
    if path:
        start = f'filesrc location="{os.path.abspath(path)}" ! decodebin ! videoconvert ! videoscale ! videorate'
    else:
        start = f"videotestsrc pattern={pattern} num-buffers={count} ! timeoverlay"
    pipeline = Gst.parse_launch(
        f"{start} ! video/x-raw,width={width},height={height},framerate={rate},pixel-aspect-ratio=1/1 ! videoconvert"
        f" ! video/x-raw,format=I420 ! x264enc tune=zerolatency speed-preset=ultrafast bitrate={args.kbit} threads=1"
        f" key-int-max={max(1, round(args.keyframe * fps))} ! h264parse config-interval=-1"
        " ! video/x-h264,stream-format=byte-stream,alignment=au ! appsink name=out sync=false"
    )
    out = pipeline.get_by_name("out")
    pipeline.set_state(Gst.State.PLAYING)
    units = []
    while len(units) < count:
        sample = out.emit("pull-sample")
        if sample is None:
            break
        buffer = sample.get_buffer()
        units.append((buffer.extract_dup(0, buffer.get_size()), not buffer.has_flags(Gst.BufferFlags.DELTA_UNIT)))
    pipeline.set_state(Gst.State.NULL)
    if not units or not units[0][1]:
        sys.exit(f"rtsp_server: nothing could be encoded from {path or pattern}")
    return units


def pictures(args, units, changed):
    """(unit, rate) to send as picture n, for n = 0, 1, ...; (None, rate) when there is nothing more to send."""
    n = 0
    last_key = units[0]
    while True:
        if args.change_after is not None and n >= args.change_after:
            yield changed[(n - args.change_after) % len(changed)], args.change_fps
            n += 1
            continue
        if args.stall_after is not None and n >= args.stall_after:
            yield None, args.fps
            return
        unit = units[n % len(units)]
        if args.freeze_after is not None and n >= args.freeze_after:
            unit = last_key
        elif unit[1]:
            last_key = unit
        yield unit, args.fps
        n += 1


class Feeder:
    """Pushes one clip into the appsrc of a prepared media, in real time, until the media is torn down."""

    def __init__(self, Gst, args, units, changed):
        self.Gst, self.args, self.units, self.changed = Gst, args, units, changed

    def configure(self, _factory, media):
        """A first client has come: start to feed."""
        gone = threading.Event()
        media.connect("unprepared", lambda *_: gone.set())
        source = media.get_element().get_by_name_recurse_up("src")
        threading.Thread(target=self.feed, args=(source, gone), daemon=True).start()

    def feed(self, source, gone):
        """One picture every 1/fps seconds."""
        Gst, due_ns = self.Gst, 0
        began = time.monotonic_ns()
        for unit, fps in pictures(self.args, self.units, self.changed):
            if unit is None or gone.wait(max(0.0, (began + due_ns - time.monotonic_ns()) / 1e9)):
                return
            period_ns = round(1e9 / fps)
            data, is_key = unit
            buffer = Gst.Buffer.new_wrapped(data)
            buffer.pts = buffer.dts = due_ns
            buffer.duration = period_ns
            due_ns += period_ns
            if not is_key:
                buffer.set_flags(Gst.BufferFlags.DELTA_UNIT)
            if source.emit("push-buffer", buffer) != Gst.FlowReturn.OK:
                return


def serve(args):
    """Encode, mount, serve."""
    import gi

    gi.require_version("Gst", "1.0")
    gi.require_version("GstRtsp", "1.0")
    gi.require_version("GstRtspServer", "1.0")
    from gi.repository import GLib, Gst, GstRtsp, GstRtspServer

    Gst.init(None)
    clips = args.file or [None]
    units = [encode(Gst, args, path, "ball", args.size, args.fps) for path in clips]
    changed = [[]] * len(clips)
    if args.change_after is not None:
        changed = [encode(Gst, args, path, "ball", args.change_size, args.change_fps) for path in clips]
    server = GstRtspServer.RTSPServer.new()
    server.set_address(args.host)
    server.set_service(str(args.port))
    mounts = []
    for i in range(args.cameras):
        factory = GstRtspServer.RTSPMediaFactory.new()
        factory.set_launch(
            "( appsrc name=src is-live=true format=time do-timestamp=false max-bytes=0"
            " caps=video/x-h264,stream-format=byte-stream,alignment=au"
            " ! h264parse config-interval=-1 ! rtph264pay name=pay0 pt=96 config-interval=-1 )"
        )
        factory.set_shared(True)
        factory.connect("media-configure", Feeder(Gst, args, units[i % len(units)], changed[i % len(units)]).configure)
        if args.user:
            permissions = GstRtspServer.RTSPPermissions.new()
            permissions.add_role("viewer")
            permissions.add_permission_for_role("viewer", "media.factory.access", True)
            permissions.add_permission_for_role("viewer", "media.factory.construct", True)
            factory.set_permissions(permissions)
        server.get_mount_points().add_factory(f"/cam{i}", factory)
        mounts.append(f"/cam{i}")
    if args.user:
        server.set_auth(make_auth(GstRtsp, GstRtspServer, args))
    if not server.attach(None):
        sys.exit(f"rtsp_server: cannot listen on {args.host}:{args.port}")
    loop = GLib.MainLoop()
    threading.Thread(target=loop.run, daemon=True).start()
    announce(server.get_bound_port(), mounts)
    wait_for_the_end(args.stay)


def make_auth(GstRtsp, GstRtspServer, args):
    """One user, one role, by basic or digest."""
    auth = GstRtspServer.RTSPAuth.new()
    token = GstRtspServer.RTSPToken.new()
    token.set_string("media.factory.role", "viewer")
    if args.auth == "basic":
        auth.set_supported_methods(GstRtsp.RTSPAuthMethod.BASIC)
        auth.add_basic(GstRtspServer.RTSPAuth.make_basic(args.user, args.password), token)
    else:
        auth.set_supported_methods(GstRtsp.RTSPAuthMethod.DIGEST)
        auth.add_digest(args.user, args.password, token)
    return auth


def main():
    """Run until told to end."""
    args = parse_arguments()
    signal.signal(signal.SIGTERM, lambda *_: os._exit(0))
    signal.signal(signal.SIGINT, lambda *_: os._exit(0))
    if args.silent:
        be_silent(args)
    else:
        serve(args)
    os._exit(0)  # feeders may sit inside GStreamer; nothing is left to save


if __name__ == "__main__":
    main()
