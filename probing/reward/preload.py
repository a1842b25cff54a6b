"""Import what could no longer be imported once nnsight has patched ``object``: parts that anyio imports late."""

from probing.features.trace import plain_objects

with plain_objects():
    import anyio.streams.file
    import anyio.streams.tls
    from anyio.abc import SocketAttribute

__all__ = ["SocketAttribute", "anyio"]
