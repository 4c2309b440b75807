"""Sends with smtplib, reads with imaplib and poplib. Arguments: the authority's file, then the ports."""

import imaplib
import poplib
import smtplib
import ssl
import sys
import time
from email.message import EmailMessage

authority = sys.argv[1]
smtp, submission, submissions, imap, imaps, pop3, pop3s = map(int, sys.argv[2:])
tls = ssl.create_default_context(cafile=authority)


def message(sender, to, subject):
    mail = EmailMessage()
    mail["From"], mail["To"], mail["Subject"] = sender, to, subject
    mail.set_content("Grüße: a text with ümlauts.\n.\n..dots\n")
    mail.add_attachment(bytes(range(256)) * 40, maintype="application", subtype="octet-stream", filename="bytes.bin")
    return mail


with smtplib.SMTP("127.0.0.1", smtp) as client:
    client.send_message(message("you@example.org", "alice@demo.test", "plain"))
with smtplib.SMTP("localhost", smtp) as client:
    client.starttls(context=tls)
    client.send_message(message("you@example.org", "alice@demo.test", "starttls"))
with smtplib.SMTP("localhost", submission) as client:
    client.starttls(context=tls)
    client.login("bob@demo.test", "demo")
    client.send_message(message("bob@demo.test", "alice@demo.test", "submission"))
with smtplib.SMTP_SSL("localhost", submissions, context=tls) as client:
    client.login("bob@demo.test", "demo")
    client.send_message(message("bob@demo.test", "alice@demo.test, bob@demo.test", "submissions"))
    try:
        client.sendmail("bob@demo.test", ["nobody@demo.test"], "Subject: no\r\n\r\n")
        raise SystemExit("an unknown local address was taken at submission")
    except smtplib.SMTPRecipientsRefused:
        pass
with smtplib.SMTP("localhost", submission) as client:
    client.starttls(context=tls)
    try:
        client.login("bob@demo.test", "wrong")
        raise SystemExit("a wrong password was taken")
    except smtplib.SMTPAuthenticationError:
        pass

box = imaplib.IMAP4("127.0.0.1", imap)
box.starttls(ssl_context=tls)
box.login("alice@demo.test", "demo")
for _ in range(200):
    count = int(box.select("INBOX")[1][0])
    if count == 4:
        break
    time.sleep(0.1)
assert count == 4, count
kind, found = box.search(None, "SUBJECT", '"submission"', "UNSEEN")
assert kind == "OK" and found[0].split() == [b"3", b"4"], found
kind, found = box.uid("SEARCH", "CHARSET", "UTF-8", "BODY", '"attachment"')
assert kind == "OK", found
kind, parts = box.fetch("1", "(UID FLAGS INTERNALDATE RFC822.SIZE ENVELOPE BODYSTRUCTURE BODY[])")
assert kind == "OK" and b"bytes.bin" in parts[0][1], parts
size = int(parts[0][0].split(b"RFC822.SIZE ")[1].split()[0])
assert size == len(parts[0][1]), (size, len(parts[0][1]))
kind, parts = box.fetch("1", "(BODY.PEEK[]<0.10> BODY.PEEK[TEXT] BODY.PEEK[1] BODY.PEEK[2.MIME] BODY.PEEK[HEADER.FIELDS (FROM TO)])")
assert kind == "OK" and len(parts[0][1]) == 10, parts
assert box.create("Projects")[0] == "OK"
assert box.copy("1:2", "Projects")[0] == "OK"
assert box.append("Projects", r"(\Seen)", imaplib.Time2Internaldate(time.time()), b"Subject: own\r\n\r\nText\r\n")[0] == "OK"
assert int(box.select("Projects")[1][0]) == 3
assert box.store("1", "+FLAGS", r"(\Deleted)")[0] == "OK"
assert box.expunge()[1] == [b"1"]
assert box.status("Projects", "(MESSAGES UIDNEXT UNSEEN)")[0] == "OK"
assert box.list()[0] == "OK" and box.lsub()[0] == "OK"
assert box.rename("Projects", "Done")[0] == "OK" and box.subscribe("Done")[0] == "OK"
box.close()
assert box.delete("Done")[0] == "OK"
box.logout()

with imaplib.IMAP4_SSL("localhost", imaps, ssl_context=tls) as box:
    box.authenticate("PLAIN", lambda _: b"\0alice@demo.test\0demo")
    assert box.select("INBOX", readonly=True)[0] == "OK"

drop = poplib.POP3("127.0.0.1", pop3)
assert "STLS" in drop.capa()
drop.stls(context=tls)
drop.user("alice@demo.test")
drop.pass_("demo")
count, size = drop.stat()
assert count == 4, count
lines = drop.retr(1)[1]
assert b"Subject: plain" in lines, lines
assert sum(len(line) + 2 for line in lines) == int(drop.list(1).split()[2]), "LIST tells the octets of RETR"
assert len({line.split()[1] for line in drop.uidl()[1]}) == 4
top = drop.top(2, 3)[1]
assert top[len(top) - 4] == b"", top
drop.dele(1)
drop.rset()
drop.dele(2)
drop.quit()
drop = poplib.POP3_SSL("localhost", pop3s, context=tls)
drop.user("alice@demo.test")
drop.pass_("demo")
assert drop.stat()[0] == 3
drop.quit()
print("all good")
