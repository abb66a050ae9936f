"""What goes over the wire: values as bytes, records around them, and the bus's messages. No I/O."""
