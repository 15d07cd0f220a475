"""``vedette keys``: who may subscribe over tcp, and tokens for HTTP.

``new`` and ``revoke`` work on the folder that ``alerts.curve.keys`` names; a running daemon follows it within a second.
Run them as the user the daemon runs as: a key that it cannot read lets nobody in.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from vedette.streamer.errors import ConfigError
from vedette.streamer.keys.folder import NAME, KeyFolder, checked, new_pair, write_key

FOLDER = Path("/var/lib/vedette/keys")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What ``vedette keys`` takes."""
    actions = parser.add_subparsers(dest="action", required=True, metavar="new | list | revoke | pair | token")
    new = actions.add_parser("new", help="let a subscriber in; makes the site's own keys too when there are none")
    new.add_argument("name", metavar="NAME", help="what the subscriber is called here")
    new.add_argument("--out", type=Path, metavar="FILE", help="where its secret key goes (default: NAME.key)")
    new.add_argument("--public", metavar="KEY", help="its public key, when it made the pair itself (vedette keys pair)")
    show = actions.add_parser("list", help="the site's public key, and who is let in")
    show.add_argument("--format", choices=("text", "json"), default="text", help="default: text")
    revoke = actions.add_parser("revoke", help="let a subscriber in no more, and end its connections")
    revoke.add_argument("name", metavar="NAME")
    for action in (new, show, revoke):
        action.add_argument("--dir", type=Path, default=FOLDER, metavar="DIR", help=f"the folder of keys ({FOLDER})")
    pair = actions.add_parser("pair", help="make a pair on the subscriber's machine; its secret never travels")
    pair.add_argument("out", type=Path, metavar="FILE", help="where the secret key goes")
    token = actions.add_parser("token", help="make a token for HTTP; the configuration needs only its hash")
    token.add_argument("name", metavar="NAME", help="what the client is called here")
    token.add_argument("--camera", action="append", metavar="CAMERA", help="only this camera; may be given again")


def run(args: argparse.Namespace) -> int:
    """Exit 0. Raises ConfigError (exit 2) saying what is wrong with a name, a key or the folder."""
    action = {"new": _new, "list": _list, "revoke": _revoke, "pair": _pair, "token": _token}[args.action]
    try:
        return action(args)
    except OSError as error:
        raise ConfigError(
            f"{error.filename}: {error.strerror}; `vedette keys new NAME --dir DIR` makes a folder"
        ) from error


def _new(args: argparse.Namespace) -> int:
    folder = KeyFolder(args.dir)
    folder.create()
    if args.public is not None:
        folder.add(args.name, checked(args.public, "--public"))
        print(f"{args.name} is let in")
    else:
        pair = new_pair()
        out = args.out or Path(f"{args.name if NAME.fullmatch(args.name) else 'subscriber'}.key")
        folder.add(args.name, pair.public)
        try:
            write_key(out, pair.secret)
        except BaseException:
            folder.remove(args.name)
            raise
        print(
            f"{args.name} is let in with the secret key in {out}; give it that file over a safe road, and delete it here"
        )
    print(f"server key, also in {folder.path / 'server.pub'}: {folder.server().public}")
    return 0


def _list(args: argparse.Namespace) -> int:
    folder = KeyFolder(args.dir)
    server = folder.server().public
    subscribers = folder.subscribers(broken=lambda what: print(f"left out: {what}", file=sys.stderr))
    if args.format == "json":
        print(json.dumps({"server": server, "subscribers": subscribers}, indent=2))
        return 0
    width = max(map(len, [*subscribers, "server key"]))
    for name, key in [("server key", server), *subscribers.items()]:
        print(f"{name:<{width}}  {key}")
    return 0


def _revoke(args: argparse.Namespace) -> int:
    KeyFolder(args.dir).remove(args.name)
    print(f"{args.name} is let in no more")
    return 0


def _pair(args: argparse.Namespace) -> int:
    pair = new_pair()
    write_key(args.out, pair.secret)
    print(f"public key: {pair.public}")
    return 0


def _token(args: argparse.Namespace) -> int:
    from vedette.streamer.hub.http.tokens import hash_of, new_token

    token = new_token()
    row = {"name": args.name, "token": hash_of(token), **({"cameras": args.camera} if args.camera else {})}
    print(f"token, shown once: {token}")
    print(f"for http.tokens:   - {json.dumps(row)}")
    return 0
