"""A Sparkplug host application of another maker: prints what it hears, one JSON document a line.

Run by the interpreter that has pysparkplug: HOST PORT GROUP NODE. A line 'rebirth' on its standard
input becomes the node command of that name, any other line a command with that name.
"""

import json
import sys
import threading

import pysparkplug

HOST, PORT, GROUP, NODE = sys.argv[1], int(sys.argv[2]), sys.argv[3], sys.argv[4]
ONE = threading.Lock()


def heard(_: pysparkplug.Client, message: pysparkplug.Message) -> None:
    topic, payload = message.topic, message.payload
    death = getattr(payload, "bd_seq_metric", None)
    metrics = [death] if death is not None else payload.metrics
    told = {
        "kind": str(topic.message_type.value),
        "node": topic.edge_node_id,
        "device": topic.device_id,
        "seq": getattr(payload, "seq", None),
        "retain": message.retain,
        "metrics": {one.name: one.value for one in metrics},
        "types": {one.name: one.datatype.name for one in metrics},
        "historical": any(getattr(one, "is_historical", False) for one in metrics),
    }
    with ONE:
        print(json.dumps(told, default=str), flush=True)


client = pysparkplug.Client(client_id="host")
ready = threading.Event()
client.connect(HOST, port=PORT, callback=lambda _: ready.set())
everything = pysparkplug.Topic(group_id=GROUP, message_type="#")
client.subscribe(everything, pysparkplug.QoS.AT_LEAST_ONCE, heard)
ready.wait()
print(json.dumps({"kind": "ready"}), flush=True)
for line in sys.stdin:
    name = line.strip()
    command = pysparkplug.NCmd(
        timestamp=pysparkplug.get_current_timestamp(),
        metrics=(
            pysparkplug.Metric(
                timestamp=pysparkplug.get_current_timestamp(),
                name="Node Control/Rebirth" if name == "rebirth" else name,
                datatype=pysparkplug.DataType.BOOLEAN,
                value=True,
            ),
        ),
    )
    topic = pysparkplug.Topic(
        group_id=GROUP, message_type=pysparkplug.MessageType.NCMD, edge_node_id=NODE
    )
    client.publish(
        pysparkplug.Message(
            topic=topic, payload=command, qos=pysparkplug.QoS.AT_MOST_ONCE, retain=False
        ),
        include_dtypes=True,
    )
client.disconnect()
