"""The client of the lease protocol. Needs neither pytest nor the server.

`core` holds the conversations, `sync` and `asynchronous` drive them; these two import
httpx and are therefore imported only where a lease is wanted.
"""
