"""Postgres's wire protocol as a server and a client speak it before a session begins.

Pure: bytes in, values and bytes out; no socket, no clock, no random numbers but those handed in.
Source: the chapter "Frontend/Backend Protocol" of Postgres's documentation, RFC 5802, RFC 7677.
"""
