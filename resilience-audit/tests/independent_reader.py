"""Reads and verifies an audit log from docs/audit-format.md alone; prints one JSON object per record.
Compares the roots in its checkpoints with the records; signatures need more than Python's own library."""
import base64, hashlib, json, os, re, struct, sys, uuid

TABLE = []
for n in range(256):
    for _ in range(8):
        n = n >> 1 ^ 0x82F63B78 if n & 1 else n >> 1
    TABLE.append(n)

def crc32c(data):
    crc = 0xFFFFFFFF
    for byte in data:
        crc = crc >> 8 ^ TABLE[(crc ^ byte) & 0xFF]
    return crc ^ 0xFFFFFFFF

KIND = ["event", "recovered", "gap", "cleared"]
STATUS = ["info", "success", "failure", "rejected", "timed_out", "cancelled", "panicked"]
SEVERITY = [None, "low", "medium", "high", "critical"]
CATEGORY = [None, "validation", "network", "timeout", "resource", "internal", "unknown"]

def text(body, at):
    (length,) = struct.unpack_from("<H", body, at)
    return body[at + 2:at + 2 + length].decode(), at + 2 + length

def value(body, at):
    kind, at = body[at], at + 1
    if kind == 0: return "[redacted]", at
    if kind == 1: return {0: False, 1: True}[body[at]], at + 1
    if kind == 2: return struct.unpack_from("<q", body, at)[0], at + 8
    if kind == 3: return struct.unpack_from("<d", body, at)[0], at + 8
    if kind == 4: return text(body, at)
    if kind == 5: return "[hmac-sha256:%s]" % body[at:at + 32].hex(), at + 32
    raise ValueError("unknown type of detail")

def decode(body):
    version, kind, status, severity, category, zero, count, sequence, _, mono, _ = struct.unpack_from("<6BHQQQI", body)
    assert version == 1 and zero == 0
    record = {"sequence": sequence, "monotonic_ns": mono, "kind": KIND[kind], "status": STATUS[status],
              "severity": SEVERITY[severity], "category": CATEGORY[category], "previous_hash": body[36:68].hex()}
    if any(body[68:84]): record["error_id"] = str(uuid.UUID(bytes=body[68:84]))
    at = 84
    for name in ["event_type", "action", "resource", "actor", "correlation_id", "error"]:
        found, at = text(body, at)
        if found: record[name] = found
    details, last = {}, None
    for _ in range(count):
        key, at = text(body, at)
        assert last is None or last.encode() < key.encode(), "details out of order"
        details[key], at = value(body, at)
        last = key
    if details: record["details"] = details
    assert at == len(body), "bytes after the end"
    return record

def root(leaves):
    if len(leaves) < 2: return leaves[0] if leaves else hashlib.sha256().digest()
    k = 1 << (len(leaves) - 1).bit_length() - 1
    return hashlib.sha256(b"\1" + root(leaves[:k]) + root(leaves[k:])).digest()

def read(directory):
    sequence, previous, log_id, leaves = 0, None, None, []
    for name in sorted(n for n in os.listdir(directory) if re.fullmatch(r"\d{20}\.audit", n)):
        data = open(os.path.join(directory, name), "rb").read()
        assert data[:8] == b"\x89RAL\r\n\x1a\n" and struct.unpack_from("<HH", data, 8) == (1, 80)
        assert crc32c(data[:76]) == struct.unpack_from("<I", data, 76)[0]
        log_id = log_id or data[16:32]
        previous = previous or hashlib.sha256(b"resilience-audit genesis 1" + log_id).digest()
        assert (data[16:32], data[32:40], data[40:72]) == (log_id, struct.pack("<Q", sequence + 1), previous)
        at = 80
        while at < len(data):
            (length, checksum) = struct.unpack_from("<II", data, at)
            body = data[at + 8:at + 8 + length]
            assert crc32c(log_id + data[at:at + 4] + body) == checksum, "checksum at %d" % at
            assert data[at + 8 + length:at + 12 + length] == data[at:at + 4], "trailer at %d" % at
            record, sequence = decode(body), sequence + 1
            assert record["sequence"] == sequence and record["previous_hash"] == previous.hex(), "chain at %d" % at
            previous = hashlib.sha256(b"\0" + body).digest()
            leaves.append(previous)
            record["hash"] = previous.hex()
            print(json.dumps(record))
            at += 12 + length
    for name in sorted(n for n in os.listdir(directory) if re.fullmatch(r"\d{20}\.checkpoint", n)):
        origin, size, found = open(os.path.join(directory, name), encoding="utf-8").read().split("\n")[:3]
        assert int(size) == int(name[:20]) <= sequence, "checkpoint of what is not there: %s" % name
        assert base64.b64decode(found) == root(leaves[:int(size)]), "root of %s" % name
        print("checkpoint", origin, size, file=sys.stderr)

read(sys.argv[1])
