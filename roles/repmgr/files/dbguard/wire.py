"""How the protocol's messages are written as JSON."""

from __future__ import annotations

from typing import Any

from dbguard.protocol import Ask, Durable, Message, Peer, Record, Release, Renew, Reply


def record_to(record: Record | None) -> dict[str, Any] | None:
    """Return JSON for a record."""
    return record and {**record._asdict(), "members": sorted(record.members)}


def record_from(data: dict[str, Any] | None) -> Record | None:
    """Return the record that the JSON describes."""
    if data is None:
        return None
    return Record(int(data["term"]), int(data["number"]), str(data["primary"]), frozenset(map(str, data["members"])))


def durable_to(durable: Durable) -> dict[str, Any]:
    """Return JSON for what a voter must not forget."""
    return {**durable._asdict(), "record": record_to(durable.record)}


def durable_from(data: dict[str, Any]) -> Durable:
    """Return what a voter must not forget."""
    record = record_from(data["record"])
    return Durable(int(data["term"]), str(data["vote"]), record, float(data.get("lease", 0)))


def peer_to(peer: Peer) -> dict[str, Any]:
    """Return JSON for what a voter says of its server. One of an older version does not know what ``paused`` is."""
    return {name: value for name, value in peer._asdict().items() if value or name != "paused"}


def message_to(message: Message) -> dict[str, Any]:
    """Return JSON for a message."""
    data = message._asdict()
    if isinstance(message, Renew):
        data |= {"record": record_to(message.record), "peer": peer_to(message.peer)}
    return {"kind": type(message).__name__, **data}


def message_from(data: dict[str, Any]) -> Message:
    """Return the message that the JSON describes.

    :raises ValueError: it describes none.
    """
    term = int(data["term"])
    record = record_from(data.get("record"))
    lease = float(data.get("lease", 0))
    match data["kind"]:
        case "Renew" if record is not None:
            return Renew(term, record, Peer(**data["peer"]), lease)
        case "Ask":
            return Ask(term, bool(data["binding"]), lease)
        case "Release":
            # One of an older version tells no number.
            return Release(term, int(data.get("number", 0)), str(data.get("heir", "")))
    raise ValueError("no such message")


def reply_to(reply: Reply) -> dict[str, Any]:
    """Return JSON for a reply."""
    return {**reply._asdict(), "durable": durable_to(reply.durable), "peer": peer_to(reply.peer)}


def reply_from(data: dict[str, Any]) -> Reply:
    """Return the reply that the JSON describes."""
    return Reply(bool(data["granted"]), durable_from(data["durable"]), Peer(**data["peer"]), str(data["reason"]))
