"""What travels: messages (data without a socket), the station's sockets, and who may use them.

``import inspector.wire.messages`` loads no ZeroMQ; the sockets' modules do.
"""
