"""The protocol without I/O: values as bytes, records, the messages of the bus, names and scripts in Redis."""
