"""Two mail programs that people use, through upgrades: mbsync in a loop, and Thunderbird in one long session over TLS.

Both read one account, to which this script sends a message every second. Prints `ready` when both have read the first one. Told
`stop` on standard input, it waits until both have every message, and prints one line of JSON: what went wrong, and how much was
done. mbsync must end well each time; Thunderbird must never lose a connection, by its own log.
"""

import argparse
import json
import os
import pathlib
import smtplib
import subprocess
import sys
import threading
import time

PATIENCE = 240
ACCOUNT = "reader@demo.test"
# What Thunderbird's log of IMAP says when a connection ends that it did not end itself.
LOST = "CreateNewLineFromSocket: clearing IMAP_CONNECTION_IS_OPEN"


class World:
    def __init__(self, options):
        self.options = options
        self.folder = pathlib.Path(options.folder)
        self.stopping = threading.Event()
        self.sent = 0
        self.syncs = 0
        self.broken = []

    def port(self, port):
        return port + self.options.offset


def send(world):
    """One message, on a connection of its own."""
    number = world.sent
    text = f"From: <load@outside.test>\r\nTo: <{ACCOUNT}>\r\nSubject: number {number}\r\n\r\nThis is message-{number}-.\r\n"
    with smtplib.SMTP("127.0.0.1", world.port(2525), timeout=60) as smtp:
        smtp.sendmail("load@outside.test", [ACCOUNT], text)
    world.sent += 1


def sending(world):
    while not world.stopping.wait(1):
        try:
            send(world)
        except (OSError, smtplib.SMTPException) as error:
            world.broken.append(f"sending: {error!r}")


def write_mbsync(world):
    mail = world.folder / "maildir"
    mail.mkdir()
    file = world.folder / "mbsyncrc"
    file.write_text(
        f"IMAPStore server\nHost localhost\nPort {world.port(2993)}\nUser {ACCOUNT}\nPass demo\nSSLType IMAPS\n"
        f"CertificateFile {world.options.ca}\n\n"
        f"MaildirStore local\nPath {mail}/\nInbox {mail}/INBOX\nSubFolders Verbatim\n\n"
        "Channel all\nFar :server:\nNear :local:\nPatterns *\nCreate Both\nExpunge Both\nSyncState *\n"
    )
    return file, mail / "INBOX"


def sync(world, file):
    done = subprocess.run(["mbsync", "-c", file, "all"], capture_output=True, text=True, timeout=PATIENCE)
    if done.returncode != 0:
        world.broken.append(f"mbsync ended with {done.returncode}: {(done.stderr or done.stdout)[-300:]}")
    world.syncs += 1


def syncing(world, file):
    while not world.stopping.is_set():
        sync(world, file)


def texts(folder):
    """How often each message is in the files below a folder."""
    counts = {}
    for path in folder.rglob("*"):
        if not path.is_file() or path.suffix in (".msf", ".dat"):
            continue
        try:
            content = path.read_bytes()
        except OSError:
            continue  # renamed in the meantime
        for piece in content.split(b"This is message-")[1:]:
            number = int(piece.split(b"-", 1)[0])
            counts[number] = counts.get(number, 0) + 1
    return counts


def write_profile(world):
    profile = world.folder / "profile"
    profile.mkdir()
    subprocess.run(["certutil", "-N", "-d", f"sql:{profile}", "--empty-password"], check=True)
    subprocess.run(
        ["certutil", "-A", "-d", f"sql:{profile}", "-n", "posthouse", "-t", "C,,", "-i", world.options.ca], check=True
    )
    preferences = {
        "mail.accountmanager.accounts": "account1",
        "mail.accountmanager.defaultaccount": "account1",
        "mail.account.account1.server": "server1",
        "mail.account.account1.identities": "id1",
        "mail.identity.id1.fullName": "Reader",
        "mail.identity.id1.useremail": ACCOUNT,
        "mail.server.server1.type": "imap",
        "mail.server.server1.hostname": "localhost",
        "mail.server.server1.port": world.port(2993),
        "mail.server.server1.userName": ACCOUNT,
        "mail.server.server1.name": ACCOUNT,
        "mail.server.server1.socketType": 3,
        "mail.server.server1.authMethod": 3,
        "mail.server.server1.login_at_startup": True,
        "mail.server.server1.check_new_mail": True,
        # Told of mail while it fetches, it forgets at times to wait for more: then it asks a minute later.
        "mail.server.server1.check_time": 1,
        "mail.server.server1.offline_download": True,
        "mail.server.server1.autosync_offline_stores": True,
        "mail.server.server1.autosync_max_age_days": -1,
        "mail.provider.suppress_dialog_on_startup": True,
        "mail.rights.version": 1,
        "mail.spotlight.firstRunDone": True,
        "mail.shell.checkDefaultClient": False,
        "mailnews.start_page.enabled": False,
        "app.donation.eoy.version.viewed": 999,
        "datareporting.policy.dataSubmissionEnabled": False,
        "app.update.enabled": False,
    }
    lines = [f"user_pref({json.dumps(name)}, {json.dumps(value)});\n" for name, value in preferences.items()]
    (profile / "user.js").write_text("".join(lines))
    return profile


def start_screen():
    screen = subprocess.Popen(
        ["Xvfb", "-displayfd", "1", "-screen", "0", "1280x900x24", "-nolisten", "tcp"],
        stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
    )
    return screen, ":" + screen.stdout.readline().strip()


def answer_password_prompt(display):
    """Types the password into the window that asks for it, if there is one."""
    command = (
        f"export DISPLAY={display}; window=$(xdotool search --onlyvisible --name 'Enter your password' | head -n 1); "
        '[ -n "$window" ] && xdotool windowfocus "$window" type --delay 50 demo && xdotool key Return'
    )
    subprocess.run(["sh", "-c", command], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, timeout=60)


def start_thunderbird(world, profile, display):
    environment = {
        **os.environ, "DISPLAY": display, "HOME": str(world.folder), "MOZ_CRASHREPORTER_DISABLE": "1",
        "MOZ_LOG": "IMAP:4", "MOZ_LOG_FILE": str(world.folder / "imap"),
    }
    return subprocess.Popen(
        ["thunderbird", "--profile", profile, "--no-remote"],
        env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )


def log_lines(world, text):
    found = []
    for path in world.folder.glob("imap*"):
        found += [line for line in path.read_text(errors="replace").splitlines() if text in line]
    return found


def wait_for_all(folder, sent, display):
    """Whether every message is in the folder before patience ends."""
    end = time.monotonic() + PATIENCE
    while time.monotonic() < end:
        if len(texts(folder)) >= sent:
            return True
        answer_password_prompt(display)
        time.sleep(1)
    return False


def judge(world, name, folder):
    counts = texts(folder)
    missing = [number for number in range(world.sent) if number not in counts]
    twice = [number for number, count in counts.items() if count > 1]
    if missing or twice:
        world.broken.append(f"{name}: missing {missing[:10]}, twice {twice[:10]}")


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--ca", required=True)
    parser.add_argument("--offset", type=int, required=True)
    parser.add_argument("--folder", required=True, help="where the programs keep their files")
    world = World(parser.parse_args())
    send(world)
    file, maildir = write_mbsync(world)
    screen, display = start_screen()
    thunderbird = start_thunderbird(world, write_profile(world), display)
    mail = world.folder / "profile" / "ImapMail"
    try:
        sync(world, file)
        if not wait_for_all(mail, 1, display):
            world.broken.append("Thunderbird read nothing")
        threads = [threading.Thread(target=sending, args=[world]), threading.Thread(target=syncing, args=[world, file])]
        for thread in threads:
            thread.start()
        lost_before = len(log_lines(world, LOST))
        print("ready", flush=True)
        sys.stdin.readline()
        world.stopping.set()
        for thread in threads:
            thread.join()
        sync(world, file)
        judge(world, "mbsync", maildir)
        wait_for_all(mail, world.sent, display)
        judge(world, "Thunderbird", mail)
        if thunderbird.poll() is not None:
            world.broken.append("Thunderbird has ended")
        lost = log_lines(world, LOST)[lost_before:]
        world.broken += [f"Thunderbird: {line[-200:]}" for line in lost]
    finally:
        thunderbird.kill()
        screen.kill()
    report = {
        "messages": world.sent, "syncs": world.syncs, "broken": world.broken[:20], "broken_count": len(world.broken),
        "thunderbird_connections": len(log_lines(world, "CreateNewLineFromSocket: * OK [CAPABILITY")),
    }
    print(json.dumps(report), flush=True)


main()
