from __future__ import annotations

import struct

import pytest
from ansible_collections.nospof.stack.plugins.modules import vrrp_neighbours_info as module
from ansible_collections.nospof.stack.plugins.modules.vrrp_neighbours_info import Heard

MAC = bytes.fromhex("0242ac110002")
INSTANCE = {
    "name": "vip_10_0_0_100",
    "router_id": 51,
    "interface": "eth0",
    "family": 4,
    "addresses": ["10.0.0.100/24", "fd00::100/64"],
    "unicast_src": "10.0.0.11",
    "unicast_peers": ["10.0.0.12"],
}
IN_USE = "virtual_router_id 51\nvirtual_ipaddress {\n 10.0.0.100/24 dev eth0\n fd00::100/64 dev eth0\n}"
OURS = Heard("10.0.0.12", "02:00:00:00:00:0c")


def test_an_arp_question_claims_no_address():
    frame = module.question(MAC, "10.0.0.100")
    assert frame == (
        b"\xff" * 6 + MAC + bytes.fromhex("08060001080006040001") + MAC + bytes(4) + bytes(6) + bytes([10, 0, 0, 100])
    )
    assert module.heard(frame) is None


def test_a_neighbour_solicitation_has_a_right_checksum():
    frame = module.question(MAC, "fd00::1:2345:6789")
    assert frame[:6] == bytes.fromhex("3333ff456789")
    header, solicitation = frame[14:54], frame[54:]
    pseudo = header[8:40] + struct.pack("!II", len(solicitation), 58)
    total = sum(struct.unpack("!32H", pseudo + solicitation))
    assert (total & 0xFFFF) + (total >> 16) == 0xFFFF
    assert module.heard(frame) is None


ARP_REPLY = (
    MAC + MAC + bytes.fromhex("08060001080006040002") + MAC + bytes([10, 0, 0, 100]) + MAC + bytes([10, 0, 0, 11])
)
ADVERT_4 = (
    MAC
    + MAC
    + bytes.fromhex("0800")
    + bytes.fromhex("45c0002000000000ff700000")
    + bytes([10, 0, 0, 66, 224, 0, 0, 18])
    + bytes.fromhex("3133c80100640000")
)
ADVERT_6 = (
    MAC
    + MAC
    + bytes.fromhex("86dd60000000001870ff")
    + bytes.fromhex("fe80" + "00" * 13 + "42")
    + bytes(16)
    + bytes.fromhex("3134c80100640000")
)
NEIGHBOUR = (
    MAC
    + MAC
    + bytes.fromhex("86dd6000000000203aff")
    + bytes(32)
    + bytes.fromhex("88000000a0000000")
    + (bytes.fromhex("fd00" + "00" * 13 + "64"))
)


@pytest.mark.parametrize(
    ("frame", "expected"),
    [
        (ARP_REPLY, Heard("10.0.0.100", "02:42:ac:11:00:02")),
        (ADVERT_4, Heard("10.0.0.66", router_id=51)),
        (ADVERT_6, Heard("fe80::42", router_id=52)),
        (NEIGHBOUR, Heard("fd00::64", "02:42:ac:11:00:02")),
    ],
)
def test_heard(frame, expected):
    assert module.heard(frame) == expected
    for length in range(len(frame) - 8):
        module.heard(frame[:length])  # cut short: anything but a crash


def test_only_what_is_new_is_looked_for():
    assert module.unknown([INSTANCE], IN_USE) == []
    assert module.unknown([INSTANCE], "") == [INSTANCE]
    (fresh,) = module.unknown([INSTANCE], IN_USE.replace("fd00::100/64", ""))
    assert (fresh["addresses"], fresh["router_id"]) == (["fd00::100/64"], None)
    (fresh,) = module.unknown([INSTANCE], IN_USE.replace("51", "5"))
    assert (fresh["addresses"], fresh["router_id"]) == ([], 51)


@pytest.mark.parametrize(("addresses", "asked"), [([], []), (["10.0.0.101/24"], ["10.0.0.101", "10.0.0.12"])])
def test_beside_a_keepalived_that_runs_an_added_address_is_looked_for(
    addresses, asked, tmp_path, monkeypatch, run_module
):
    (tmp_path / "keepalived.conf").write_text(IN_USE)
    monkeypatch.setattr(module, "CONFIGURATION", str(tmp_path / "keepalived.conf"))
    monkeypatch.setattr(module.AnsibleModule, "run_command", lambda *_, **__: (0, "", ""))
    questions = []

    def listen(_interface, wanted, _seconds):
        questions.extend(wanted)
        return [Heard("10.0.0.101", "02:00:00:00:00:42")]

    monkeypatch.setattr(module, "listen", listen)
    found = run_module(module, instances=[INSTANCE | {"addresses": [*INSTANCE["addresses"], *addresses]}])
    assert found["running"]
    assert questions == asked
    assert [line.partition(":")[0] for line in found["conflicts"]] == ["virtual IP 10.0.0.101"] * len(addresses)


@pytest.mark.parametrize(
    ("frames", "expected"),
    [
        ([], []),
        # A peer may hold the addresses, and send adverts.
        ([OURS, Heard("10.0.0.100", OURS.mac), Heard("fd00::100", OURS.mac), Heard("10.0.0.12", router_id=51)], []),
        # Another id, or the same one of the other family, is another virtual router.
        ([Heard("10.0.0.66", router_id=52), Heard("fe80::66", router_id=51)], []),
        (
            [OURS, Heard("fd00::100", "02:00:00:00:00:42")],
            [
                (
                    "virtual IP fd00::100: a machine that is no peer of this host already answers for it, with the "
                    "MAC address 02:00:00:00:00:42; free the address there, or choose another one"
                )
            ],
        ),
        (
            [OURS, Heard("10.0.0.66", router_id=51), Heard("10.0.0.100", "02:00:00:00:00:42")],
            [
                (
                    "virtual IP 10.0.0.100: a machine that is no peer of this host already answers for it, with the "
                    "MAC address 02:00:00:00:00:42; free the address there, or choose another one"
                ),
                (
                    "router_id 51 (instance vip_10_0_0_100): 10.0.0.66 on eth0 already sends adverts with it; "
                    "set another router_id for the virtual IP"
                ),
            ],
        ),
    ],
)
def test_conflicts(frames, expected):
    assert module.conflicts([INSTANCE], frames) == expected
