"""Verifies every DKIM signature of messages. Arguments: the records of `domain dns --json`, then message files."""

import json
import sys

import dkim

with open(sys.argv[1]) as file:
    records = {record["name"].rstrip(".").lower(): record["value"] for record in json.load(file) if record["kind"] == "TXT"}


def txt(name, timeout=5):
    value = records.get(name.decode().rstrip(".").lower())
    # A printed record may stand in quoted pieces, as a zone file wants it.
    return None if value is None else "".join(value.split('"')[1::2] or [value]).encode()


count = 0
for path in sys.argv[2:]:
    with open(path, "rb") as file:
        message = file.read()
    signatures = message.split(b"\r\n\r\n")[0].lower().count(b"dkim-signature:")
    for index in range(signatures):
        if not dkim.DKIM(message).verify(idx=index, dnsfunc=txt):
            raise SystemExit(f"{path}: signature {index} does not verify\n{message.decode(errors='replace')}")
        count += 1
print(f"{count} signatures verified")
