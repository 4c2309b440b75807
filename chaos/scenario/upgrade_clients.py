"""Clients that must not notice an upgrade: many TLS sessions in the middle of things, and a loop of new connections.

Prints `ready` when every session stands. Told `stop` on standard input, it ends them and prints one line of JSON: what was said and
what went wrong. A session that ends, or hears what its own past does not explain, counts as broken.
"""

import argparse
import asyncio
import base64
import json
import ssl
import sys
import time

WAIT = 60


class Broken(Exception):
    """A session that did not go on as it should."""


class Line:
    """A connection that sends and reads lines."""

    def __init__(self, reader, writer, process=None):
        self.reader, self.writer, self.process = reader, writer, process

    async def read(self):
        line = await asyncio.wait_for(self.reader.readline(), WAIT)
        if not line.endswith(b"\n"):
            raise Broken(f"the connection ended: {line!r}")
        return line.rstrip(b"\r\n").decode("utf-8", "replace")

    async def exactly(self, count):
        return await asyncio.wait_for(self.reader.readexactly(count), WAIT)

    async def send(self, text):
        self.writer.write(text.encode() + b"\r\n")
        await self.writer.drain()

    async def ask(self, text, start):
        await self.send(text)
        line = await self.read()
        if not line.startswith(start):
            raise Broken(f"{text.split(' ')[0]}: {line}")
        return line

    async def until(self, tag):
        """The lines before a tagged answer, literals passed over."""
        lines = []
        while True:
            line = await self.read()
            if line.endswith("}") and "{" in line:
                await self.exactly(int(line[line.rindex("{") + 1 : -1]))
                continue
            if line.startswith(tag + " "):
                if not line.startswith(tag + " OK"):
                    raise Broken(line)
                return lines
            if line.startswith("* BYE"):
                raise Broken(line)
            lines.append(line)

    async def close(self):
        self.writer.close()
        if self.process is not None:
            try:
                self.process.kill()
            except ProcessLookupError:
                pass  # it has ended with its input
            await self.process.wait()


class World:
    """What the sessions share, and what they count."""

    def __init__(self, options):
        self.options = options
        self.context = ssl.create_default_context(cafile=options.ca)
        self.stopping = asyncio.Event()
        self.standing = 0
        self.counts = {"exchanges": 0, "notices": 0, "connects": 0}
        self.broken, self.refused = [], []
        self.slowest = 0.0

    async def tls(self, port, openssl=False):
        port += self.options.offset
        if not openssl:
            pair = await asyncio.wait_for(
                asyncio.open_connection("127.0.0.1", port, ssl=self.context, server_hostname="localhost"), WAIT
            )
            return Line(*pair)
        process = await asyncio.create_subprocess_exec(
            "openssl", "s_client", "-quiet", "-CAfile", self.options.ca, "-connect", f"127.0.0.1:{port}",
            stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.DEVNULL,
        )
        return Line(process.stdout, process.stdin, process)

    async def pause(self, seconds):
        """Whether the session goes on."""
        try:
            await asyncio.wait_for(self.stopping.wait(), seconds)
            return False
        except asyncio.TimeoutError:
            return True

    def exchanged(self, since):
        self.counts["exchanges"] += 1
        self.slowest = max(self.slowest, time.monotonic() - since)


async def imap(world, user, openssl):
    line = await world.tls(2993, openssl)
    await line.read()
    await line.send(f"l LOGIN {user} demo")
    await line.until("l")
    await line.send("s SELECT INBOX")
    await line.until("s")
    return line


async def idling(world, number, openssl):
    """IDLE for long stretches; what it is told of new mail only ever rises."""
    line = await imap(world, "alice@demo.test", openssl)
    world.standing += 1
    exists = 0
    going = True
    while going:
        await line.ask("i IDLE", "+")
        end = time.monotonic() + 5 + number % 7
        while going and time.monotonic() < end:
            # Cancelling a read of a line loses nothing: the stream keeps what it has.
            try:
                told = await asyncio.wait_for(line.reader.readline(), 1)
            except asyncio.TimeoutError:
                going = not world.stopping.is_set()
                continue
            if not told.endswith(b"\n") or told.startswith(b"* BYE"):
                raise Broken(f"in IDLE: {told!r}")
            if told.endswith(b" EXISTS\r\n"):
                count = int(told.split()[1])
                if count < exists:
                    raise Broken(f"{count} messages after {exists}")
                exists, world.counts["notices"] = count, world.counts["notices"] + 1
            going = not world.stopping.is_set()
        since = time.monotonic()
        await line.send("DONE")
        await line.until("i")
        world.exchanged(since)
    await line.send("b LOGOUT")
    await line.close()


async def fetching(world, number, openssl):
    """FETCH of everything that is small, over and over."""
    line = await imap(world, "bob@demo.test", openssl)
    world.standing += 1
    count = 0
    while await world.pause(0.5 + number % 10 / 10):
        since, count = time.monotonic(), count + 1
        await line.send(f"f{count} UID FETCH 1:50 (FLAGS BODY.PEEK[])")
        await line.until(f"f{count}")
        world.exchanged(since)
    await line.send("b LOGOUT")
    await line.close()


async def enveloping(world, number, openssl):
    """Always between MAIL and DATA: recipients are added, then all is taken back."""
    line = await world.tls(2465, openssl)
    if not (await line.read()).startswith("220"):
        raise Broken("no greeting")
    await line.send("EHLO client.test")
    while (await line.read())[3:4] == "-":
        pass
    secret = base64.b64encode(b"\0alice@demo.test\0demo").decode()
    await line.ask(f"AUTH PLAIN {secret}", "235")
    await line.ask("MAIL FROM:<alice@demo.test>", "250")
    world.standing += 1
    count = 0
    while await world.pause(0.5 + number % 10 / 10):
        since, count = time.monotonic(), count + 1
        await line.ask("RCPT TO:<bob@demo.test>", "250")
        if count % 20 == 0:
            await line.ask("RSET", "250")
            await line.ask("MAIL FROM:<alice@demo.test>", "250")
        world.exchanged(since)
    await line.ask("RSET", "250")
    await line.ask("QUIT", "221")
    await line.close()


async def marking(world, number, openssl):
    """A maildrop of its own with one message marked: the mark stays until RSET takes it away."""
    line = await world.tls(2995, openssl)
    await line.read()
    await line.ask(f"USER pop{number}@demo.test", "+OK")
    await line.ask("PASS demo", "+OK")
    before = int((await line.ask("STAT", "+OK")).split()[1])
    await line.ask("DELE 1", "+OK")
    world.standing += 1
    while await world.pause(0.5 + number % 10 / 10):
        since = time.monotonic()
        count = int((await line.ask("STAT", "+OK")).split()[1])
        if count != before - 1:
            raise Broken(f"{count} messages are left of {before}, one marked")
        world.exchanged(since)
    await line.ask("RSET", "+OK")
    await line.ask("QUIT", "+OK")
    await line.close()


async def connecting(world):
    """New connections, one after the other: none may be refused."""
    while not world.stopping.is_set():
        try:
            line = await world.tls(2993)
            await line.read()
            await line.send("c CAPABILITY")
            await line.until("c")
            await line.close()
            world.counts["connects"] += 1
        except (Broken, OSError, asyncio.TimeoutError) as error:
            world.refused.append(f"{type(error).__name__}: {error}")
        await asyncio.sleep(0.02)


async def guarded(world, kind, number, openssl):
    try:
        await kind(world, number, openssl)
    except (Broken, OSError, EOFError, ValueError, asyncio.TimeoutError) as error:
        world.broken.append(f"{kind.__name__} {number}{' openssl' if openssl else ''}: {type(error).__name__}: {error}")


async def told_to_stop(world):
    loop = asyncio.get_running_loop()
    await loop.run_in_executor(None, sys.stdin.readline)
    world.stopping.set()


async def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--ca", required=True)
    parser.add_argument("--offset", type=int, required=True)
    parser.add_argument("--sessions", type=int, required=True)
    parser.add_argument("--openssl", type=int, default=0, help="how many of them are openssl s_client")
    parser.add_argument("--maildrops", type=int, required=True, help="accounts pop0, pop1, ... with a message each")
    world = World(parser.parse_args())
    options = world.options
    kinds = [marking] * options.maildrops
    others = [idling, fetching, enveloping, idling]
    kinds += [others[number % len(others)] for number in range(options.sessions - len(kinds))]
    tasks = []
    for number, kind in enumerate(kinds):
        openssl = number >= options.sessions - options.openssl
        tasks.append(asyncio.create_task(guarded(world, kind, number, openssl)))
        # A few at a time: each handshake and each login costs the server its own time.
        while len(tasks) - world.standing - len(world.broken) > 20:
            await asyncio.sleep(0.01)
    while world.standing + len(world.broken) < len(tasks):
        await asyncio.sleep(0.05)
    connects = asyncio.create_task(connecting(world))
    print("ready", flush=True)
    await told_to_stop(world)
    await asyncio.wait(tasks, timeout=2 * WAIT)
    await connects
    late = sum(not task.done() for task in tasks)
    report = {"sessions": len(tasks), "broken": world.broken[:20], "broken_count": len(world.broken) + late,
              "refused": world.refused[:20], "refused_count": len(world.refused),
              "slowest_milliseconds": round(world.slowest * 1000), **world.counts}
    print(json.dumps(report), flush=True)


asyncio.run(main())
