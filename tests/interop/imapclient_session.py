"""A session as IMAPClient users write it: search, fetch, idle, move. Arguments: the authority's file, SMTP and IMAPS ports."""

import smtplib
import ssl
import sys

from imapclient import IMAPClient

authority, smtp, imaps = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
tls = ssl.create_default_context(cafile=authority)


def deliver(subject):
    with smtplib.SMTP("127.0.0.1", smtp) as client:
        client.sendmail("you@example.org", ["alice@demo.test"], f"From: you@example.org\r\nSubject: {subject}\r\n\r\nText\r\n")


deliver("first")
with IMAPClient("localhost", port=imaps, ssl_context=tls) as box:
    box.login("alice@demo.test", "demo")
    assert {b"IDLE", b"MOVE", b"UIDPLUS", b"NAMESPACE"} <= set(box.capabilities()), box.capabilities()
    folders = {name: flags for flags, _, name in box.list_folders()}
    assert b"\\Sent" in folders["Sent"] and b"\\Junk" in folders["Junk"], folders
    assert box.namespace()
    info = box.select_folder("INBOX")
    assert info[b"EXISTS"] == 1 and info[b"UIDNEXT"] == 2, info
    box.idle()
    deliver("second")
    seen = []
    while (2, b"EXISTS") not in seen:
        answers = box.idle_check(timeout=30)
        assert answers, "IDLE told nothing"
        seen.extend(answers)
    box.idle_done()
    uids = box.search(["SUBJECT", "second", "NOT", "DELETED", "SINCE", "01-Jan-2020"])
    assert len(uids) == 1, uids
    data = box.fetch(uids, ["ENVELOPE", "BODYSTRUCTURE", "FLAGS", "BODY[HEADER.FIELDS (SUBJECT)]"])
    assert data[uids[0]][b"ENVELOPE"].subject == b"second", data
    box.add_flags(uids, [b"\\Flagged", b"$Work"])
    assert b"$Work" in box.get_flags(uids)[uids[0]]
    box.create_folder("Büro/Pläne")
    assert any(name == "Büro/Pläne" for _, _, name in box.list_folders())
    box.move(uids, "Büro/Pläne")
    assert box.select_folder("Büro/Pläne")[b"EXISTS"] == 1
    box.append("Büro/Pläne", b"Subject: own\r\n\r\nText\r\n", flags=[b"\\Seen"])
    box.delete_messages(box.search("ALL"))
    box.expunge()
    box.unselect_folder()
    box.delete_folder("Büro/Pläne")
print("all good")
