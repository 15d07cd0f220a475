"""What the HTTP API says, as plain values: pure functions of the hub's account."""

from __future__ import annotations

from typing import Any

from vedette.streamer.hub.http.tokens import Scope
from vedette.streamer.hub.state import HubState

#: Older news than this from the hub's loop or the supervisor is no news, seconds.
STALE_S = 5.0


def processes(state: HubState, scope: Scope) -> list[dict[str, Any]]:
    """role, name, camera, pid, restarts, state, heartbeat_age_s of every process the supervisor keeps.

    Whoever sees only some cameras is shown their processes and the shared ones, of those not the last error: it may
    speak of another camera.
    """
    since_s = max(0.0, state.now_s() - state.processes_at_s)
    return [
        {
            "role": row.get("role"),
            "name": row.get("name"),
            "camera": row.get("camera"),
            "pid": row.get("pid"),
            "restarts": row.get("restarts"),
            "state": row.get("state"),
            "heartbeat_age_s": _older(row.get("beat_age_s"), since_s),
            "last_error": row.get("last_error") if row.get("camera") or scope.cameras is None else None,
        }
        for row in state.processes
        if row.get("camera") is None or scope.sees(row["camera"])
    ]


def cameras(state: HubState, scope: Scope) -> list[dict[str, Any]]:
    """name, state, fps and what else ``status.<camera>`` says; last_alert is the seq of its newest alert.

    Never the source: it may hold credentials.
    """
    last_seq = state.camera_seq()
    told = state.camera_status
    known = {row["camera"] for row in state.processes if isinstance(row.get("camera"), str)}
    names = sorted(known or set(state.config.cameras))
    return [
        {
            "name": name,
            "state": told.get(name, {}).get("state", "unknown"),
            **{
                key: told.get(name, {}).get(key)
                for key in ("fps", "epoch", "reconnects", "drops", "time", "last_error")
            },
            "last_alert": last_seq.get(name),
        }
        for name in names
        if scope.sees(name)
    ]


def health(state: HubState) -> tuple[bool, dict[str, Any]]:
    """Alive: the hub's loop turned lately."""
    age_s = state.now_s() - state.turned_s
    alive = age_s < STALE_S
    return alive, {"status": "ok" if alive else "stalled", "loop_age_s": round(age_s, 3)}


def readiness(state: HubState) -> tuple[bool, dict[str, Any]]:
    """Ready: the loop turns, the store takes alerts, and the supervisor says that infer works.

    A camera that is away does not make the daemon unready.
    """
    checks: dict[str, str] = {"hub": "ok" if health(state)[0] else "its loop does not turn"}
    trouble = state.trouble()
    checks["store"] = "ok" if trouble is None else f"holding events: {trouble}"
    fresh = state.now_s() - state.processes_at_s < STALE_S
    infer = [str(row.get("state")) for row in state.processes if row.get("role") == "infer"] if fresh else []
    if not fresh:
        checks["supervisor"] = "no report"
    else:
        checks["supervisor"] = "ok"
        working = any(word not in ("starting", "loading", "failed", "backoff", "waiting") for word in infer)
        checks["infer"] = "ok" if working else f"not working: {', '.join(infer) or 'no such process'}"
    ready = all(text == "ok" for text in checks.values())
    return ready, {"ready": ready, "checks": checks}


def _older(age_s: object, by_s: float) -> float | None:
    return round(float(age_s) + by_s, 3) if isinstance(age_s, int | float) else None
