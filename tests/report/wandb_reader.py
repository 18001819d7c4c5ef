"""Reads wandb's own files (``*.wandb``) with wandb's own protobuf classes."""

import json


class WandbRecord:
    """What one file holds.

    Attributes:
        run: the run's record, the first of them.
        config, summary: values by name.
        history: one dictionary for each row.
        metrics: definitions of metrics, by name or glob.
        artifacts: names of the artifacts.
        exit_code: None if the file was not closed.
    """

    def __init__(self, file):
        from wandb.proto import wandb_internal_pb2

        self.run, self.exit_code = None, None
        self.config, self.summary, self.metrics, self.history, self.artifacts = {}, {}, {}, [], []
        for data in leveldb_records(file.read_bytes(), start=7):
            record = wandb_internal_pb2.Record()
            record.ParseFromString(data)
            kind = record.WhichOneof("record_type")
            if kind == "run" and self.run is None:
                self.run = record.run
            for updated in (record.run.config.update, record.config.update):
                self.config |= {name_of(item): json.loads(item.value_json) for item in updated}
            if record.history.item:
                self.history.append({name_of(item): json.loads(item.value_json) for item in record.history.item})
            self.summary |= {name_of(item): json.loads(item.value_json) for item in record.summary.update}
            if kind == "metric":
                self.metrics[record.metric.name or record.metric.glob_name] = record.metric
            if kind == "artifact":
                self.artifacts.append(record.artifact.name)
            if kind == "exit":
                self.exit_code = record.exit.exit_code

    def column(self, name):
        """Values of a metric, by step."""
        return {row["_step"]: row[name] for row in self.history if name in row}


def name_of(item):
    return item.key or "/".join(item.nested_key)


def leveldb_records(data, start, block=32768):
    """Records of a LevelDB log: chunks of (checksum, length, type) and content that do not cross a block's end."""
    position, parts = start, b""
    while position + 7 <= len(data):
        if block - position % block < 7:
            position += block - position % block
            continue
        length, kind = int.from_bytes(data[position + 4 : position + 6], "little"), data[position + 6]
        parts += data[position + 7 : position + 7 + length]
        position += 7 + length
        if kind in (1, 4):  # whole, or last
            yield parts
            parts = b""
