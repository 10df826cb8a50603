"""Reads MCAP files with the reader of the PyPI package mcap, as other programs do: by the index, and with every sum checked.

Prints one line a file: messages, channels, and the names of its metadata. Ends with 1 at the first file that is not whole.
"""

import sys

from mcap.reader import make_reader


def check(path: str) -> str:
    with open(path, "rb") as file:
        reader = make_reader(file, validate_crcs=True)
        summary = reader.get_summary()
        assert summary is not None and summary.statistics is not None, "no index"
        statistics = summary.statistics
        found = [(channel.topic, message.sequence) for _, channel, message in reader.iter_messages()]
        assert len(found) == statistics.message_count, f"{len(found)} messages, {statistics.message_count} expected"
        assert len(summary.chunk_indexes) == statistics.chunk_count, "chunks"
        assert statistics.message_count == 0 or summary.chunk_indexes, "messages without chunks"
        metadata = [entry.name for entry in reader.iter_metadata()]
        assert len(metadata) == statistics.metadata_count, "metadata"
        topics = sorted({topic for topic, _ in found})
        return f"{len(found)} messages on {topics}, metadata {metadata}"


for path in sys.argv[1:]:
    try:
        print(f"{path}: {check(path)}")
    except Exception as error:  # Any error says that the file is not whole.
        print(f"{path}: {type(error).__name__}: {error}", file=sys.stderr)
        sys.exit(1)
